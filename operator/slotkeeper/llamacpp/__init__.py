"""llama.cpp without Kubernetes: command line, GGUF files, the response of /slots."""
