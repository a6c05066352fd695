"""From a LlamaServer to the manifests of its children. Pure."""
