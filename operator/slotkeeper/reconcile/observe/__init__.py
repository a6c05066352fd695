"""What there is of one server: its children, pods, model and nodes."""
