"""Prompts that are computed, and restored from files, by real llama-servers."""
