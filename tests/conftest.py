"""All tests: Hypothesis draws the same examples at each run, so that what passes here passes elsewhere."""

from hypothesis import settings

settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")
