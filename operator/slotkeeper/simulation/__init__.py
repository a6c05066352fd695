"""Simulation of autoscaling policies: a trace of requests in simulated time."""
