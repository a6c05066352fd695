"""Request -> slot: a process of its own in front of one server's replicas."""
