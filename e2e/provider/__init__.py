"""A real one-node Kubernetes cluster: on Docker by kind, else natively."""
