"""The gateway: one address for many servers, routed by the name of the model."""
