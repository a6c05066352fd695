"""Leader election among the balancers of one server."""
