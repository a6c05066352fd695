"""How hard the tests that look for surprises look."""

from hypothesis import settings

# The same examples each time: a run that fails here fails everywhere.
settings.register_profile("usual", derandomize=True, deadline=None)
# `make test-long`: other examples each time, and many.
settings.register_profile("long", max_examples=5000, deadline=None)
settings.load_profile("usual")
