"""What all tests share: how much hypothesis searches.

Examples have no deadline: a machine that is busy is not a defect. `HYPOTHESIS_PROFILE=ci` (CI sets it by CI=true) makes
the search the same on every run; `thorough` searches ten times as long.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow]

settings.register_profile("developer", deadline=None, suppress_health_check=_SLOW)
settings.register_profile("ci", deadline=None, suppress_health_check=_SLOW, derandomize=True, print_blob=True)
settings.register_profile("thorough", deadline=None, suppress_health_check=_SLOW, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "developer"))
