"""The balancer beside its peers: what it costs, how long requests wait, what it holds."""
