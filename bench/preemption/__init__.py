"""Benchmark of preemption: what a batch on idle slots costs interactive requests."""
