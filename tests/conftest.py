"""What every test shares: Hypothesis draws the same examples on every machine and in every run."""

from __future__ import annotations

from hypothesis import settings

# No deadline: two busy cores make any time limit flicker. No database: a red example becomes a test of its own.
settings.register_profile("deterministic", derandomize=True, deadline=None, database=None, print_blob=True)
settings.load_profile("deterministic")
