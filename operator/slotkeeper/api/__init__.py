"""The Kubernetes API: spec and status of a LlamaServer, their validation, and the generated CRD."""
