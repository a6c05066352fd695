"""Prompt files: slots of replicas that are saved, and restored in other replicas."""
