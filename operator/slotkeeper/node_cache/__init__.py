"""The agent of a node's cache: creates its folders, and keeps it within its limit."""
