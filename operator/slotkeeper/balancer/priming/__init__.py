"""Priming: a new replica computes the beginnings of prompts before it gets requests."""
