"""The operator: kopf wakes it, one body of work makes the cluster as the LlamaServers say."""
