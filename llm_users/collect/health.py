"""Was the client itself the limit? One verdict per stage: ok, strained or saturated."""

from __future__ import annotations

from llm_users.record import StageRecord

OK, STRAINED, SATURATED = "ok", "strained", "saturated"

# (what, strained from, saturated from). Kernel stamps keep single arrivals true while the loop is late, so lateness
# alone strains; what breaks the measurement is a loop that is never idle and reads several arrivals at once.
_LIMITS = (
    ("client_cpu_share_max", 0.80, 0.95),
    ("lag_p99_s", 0.010, 0.050),
    ("queue_p99_s", 0.050, 0.250),
    ("coalesced_share", 0.05, 0.20),
    ("forced_start_share", 0.20, 0.60),
)

_ORDER = (OK, STRAINED, SATURATED)


def verdict(stage: StageRecord) -> str:
    """The worst of the limits that the stage's figures pass."""
    worst = 0
    for name, strained_from, saturated_from in _LIMITS:
        value = getattr(stage, name)
        if value is None:
            continue
        worst = max(worst, (value >= strained_from) + (value >= saturated_from))
    return _ORDER[worst]
