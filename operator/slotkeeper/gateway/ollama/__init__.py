"""Ollama's API, translated to OpenAI's as llama-server serves it."""
