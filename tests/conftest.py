"""How properties are tried: the same examples in every run, so that a failure is one for everybody.

`HYPOTHESIS_PROFILE=explore` tries many more, and others each time: for looking, not for CI. There is no
deadline in either, because speed is no matter of tests on shared machines.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=3000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
