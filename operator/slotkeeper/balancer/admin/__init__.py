"""The metrics port: for Prometheus, probes, the operator and debugging."""
