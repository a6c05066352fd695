"""Compares the budget policy of the gateway with LRU and the optimum in hindsight."""
