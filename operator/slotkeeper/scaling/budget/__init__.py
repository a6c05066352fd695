"""Which models of a gateway may run within its budget of GPUs, memory and loaded models. Pure."""
