"""Autoscaler benchmark: Slotkeeper and other policies on the same traces, in simulated time."""
