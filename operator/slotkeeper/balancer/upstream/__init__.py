"""The replicas: which there are, whether they are healthy, their connections."""
