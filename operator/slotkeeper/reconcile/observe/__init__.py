"""What exists for one server: its children, pods, model and nodes."""
