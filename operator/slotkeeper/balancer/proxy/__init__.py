"""Requests on their way from clients to replicas."""
