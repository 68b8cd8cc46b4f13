"""How long the fuzzing may take: FUZZ_EXAMPLES times as many cases as the test suite tries.

``make test-system SUITE=crash SLOW=1`` sets it to 10.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings

_TIMES = int(os.environ.get("FUZZ_EXAMPLES", "1"))


def fuzzed(examples: int) -> Callable[[Any], Any]:
    """Try so many cases in the test suite. A case may take two seconds at most: nothing here may hang."""
    return settings(
        max_examples=examples * _TIMES,
        deadline=2000,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
