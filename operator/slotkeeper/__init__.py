"""Slotkeeper runs llama.cpp on Kubernetes and thinks in slots."""

__version__ = "0.1.0"
