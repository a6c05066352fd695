"""How a gateway pod terminates. No pydantic: the gateway reads the same numbers."""

DRAIN_SECONDS = 600
"""Maximum time for which a terminating pod completes its requests, as a replica's default."""

SHUTDOWN_DELAY_SECONDS = 30
"""Longer than a terminating pod still accepts requests before it drains: until no Service routes to
it."""
