"""Memory that llama-server will allocate for a model, planned from its GGUF header."""
