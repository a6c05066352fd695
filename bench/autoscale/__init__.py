"""How the scaler compares: the same traces under it and under others, in simulated time."""
