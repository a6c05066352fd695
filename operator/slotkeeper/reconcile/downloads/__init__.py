"""The progress of downloads, polled from the pods that run them."""
