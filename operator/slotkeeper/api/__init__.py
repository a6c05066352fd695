"""The Kubernetes API: spec and status of the resources, their rules, and the generated CRDs."""
