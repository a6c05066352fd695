"""The nouns: what a LlamaServer is, and the CRD that says so to the API server."""
