"""Compares the balancer with other proxies: CPU, latency, queueing time and memory."""
