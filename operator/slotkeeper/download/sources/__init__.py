"""Where files come from: one module for each scheme of URLs."""
