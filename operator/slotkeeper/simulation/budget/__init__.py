"""Plays budget policies against request traces of several models, in simulated time."""
