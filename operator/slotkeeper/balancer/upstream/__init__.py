"""The replicas: discovery, health, ejection and connections."""
