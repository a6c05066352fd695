"""Compares the operator with a plain client that applies the same manifests."""
