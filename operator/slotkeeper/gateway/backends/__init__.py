"""Servers outside of the gateway's LlamaServers: connections to them, and what passes through."""
