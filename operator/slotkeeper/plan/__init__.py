"""Plans the memory of a model on the command line."""
