"""Measured ratios, each with its peers in one run."""
