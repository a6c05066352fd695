"""What a llama-server is: its command line and what it says of itself. No Kubernetes."""
