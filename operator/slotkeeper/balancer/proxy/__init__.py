"""The path of a request: from its client through the queue to a replica, and its response back."""
