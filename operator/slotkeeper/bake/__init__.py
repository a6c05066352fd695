"""Images with a model in them, on top of an image of llama-server."""
