"""How long and how random: by default the same walks in each run, reported as they are found.

``HYPOTHESIS_PROFILE=long`` tries a thousand new walks, each run others, and makes one that fails short.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_COMMON = settings(
    deadline=None,  # the machine that runs it is shared
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
PROFILES = {
    "ci": settings(
        _COMMON,
        max_examples=11,  # these walks take every rule; more are too long for a busy machine
        stateful_step_count=25,
        derandomize=True,
        report_multiple_bugs=False,
        phases=[Phase.explicit, Phase.generate],  # making a walk shorter takes minutes
    ),
    "long": settings(_COMMON, max_examples=1000, stateful_step_count=60),
}


def chosen() -> settings:
    """Return the settings of the profile that the environment names; the same walks in each run when it names none."""
    return PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "ci")]
