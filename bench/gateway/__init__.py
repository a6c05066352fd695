"""Compares the gateway with the balancer alone and with other gateways."""
