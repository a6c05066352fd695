"""Builds the manifests of a LlamaServer's child objects. Pure."""
