"""Errors of `slotkeeper bake`."""


class BakeError(Exception):
    """An image could not be built or pushed. The message states why, and what to do."""
