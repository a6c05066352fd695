"""Slotkeeper: a Kubernetes operator for llama.cpp that routes and scales by slots."""

__version__ = "0.1.0"
