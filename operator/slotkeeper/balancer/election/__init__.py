"""Which of a server's balancers is the leader."""
