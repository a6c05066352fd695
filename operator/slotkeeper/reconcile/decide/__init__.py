"""What should be: the number of replicas, and what blocks their start. Pure."""
