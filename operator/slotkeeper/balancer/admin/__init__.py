"""The metrics port: metrics, probes, the demand for autoscalers, and debugging."""
