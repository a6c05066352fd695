"""The Kubernetes API as raw JSON, behind a protocol that tests can fake."""
