"""Benchmarks. Each compares several systems in one run."""
