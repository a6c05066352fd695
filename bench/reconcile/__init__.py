"""The operator beside a plain client that applies the very same manifests, up to 1,000 servers."""
