"""Which accelerators replicas use, as the start of their logs shows."""
