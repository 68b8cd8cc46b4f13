"""Notes below the comparison table about conditions that make two stages hard to compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from llm_reports.compare.difference import ERROR_RATIO
from llm_reports.compare.start_order import at_once, in_order
from llm_reports.metrics.distinctions import ALIKE
from llm_reports.metrics.groups import Group
from llm_reports.stats.block_resampling import autocorrelation_time
from llm_users.record import COL

_ENOUGH_ROUNDS = 24
# Below this number, one comparison in eight of two equal queues at 90 % of their limit gave a false alarm.
FEWEST_INDEPENDENT = 30


def unlike(base: Group, other: Group) -> Iterator[str]:
    """Yield the reasons why two stages are hard to compare, as sentences."""
    level = base.load.at
    means: Mapping[str, list[float]] = {
        name: [float(group.ok[name].astype("float64").mean()) for group in (base, other)]
        for name in (COL.input_tokens, COL.output_tokens)
    }
    for name, (before, after) in means.items():
        if before > 0 and abs(after / before - 1) > ALIKE:
            yield (
                f"Mean {name.replace('_', ' ')}{level}: {before:.0f} in {base.run.name}, {after:.0f} in "
                f"{other.run.name}. Different token counts alone change the times."
            )
    for group in (base, other):
        if group.health in ("strained", "disturbed"):
            yield f"The client of {group.run.name} was {group.health}{level}."
        counts = group.counts
        if counts.failed:
            throttled = f", {counts.throttled} of them throttled" if counts.throttled else ""
            yield (
                f"{counts.failed} of {counts.ended} requests of {group.run.name}{level} failed{throttled}. "
                f"Latencies include successful requests only; {ERROR_RATIO} counts the failed ones."
            )
        if not counts.ok:
            yield f"No request of {group.run.name}{level} succeeded, so there is no latency to compare."
    if base.load.is_open:
        yield (
            "The throughput of an open loop follows its schedule, so it does not affect the verdict unless --on "
            "names it."
        )
    rounds = min(len(base.measured), len(other.measured)) / at_once(base)
    unit = "request in flight" if base.load.is_open else "user"
    if rounds < _ENOUGH_ROUNDS:
        yield (
            f"Only {rounds:.0f} requests per {unit}{level}: time blocks are short compared with the correlation time "
            f"of the endpoint, so the intervals are widened. Measure at least {_ENOUGH_ROUNDS} requests per {unit}."
        )


def long_memory(base: Group, other: Group) -> str:
    """Return why the latencies of an open loop cannot decide a comparison; "" when they can.

    A queue near its limit has a long correlation time, so its requests contain few independent values.
    """
    if not base.load.is_open:
        return ""
    few = []
    for group in (base, other):
        took_s = in_order(group.ok)[COL.corrected_end_to_end_latency_s].to_numpy(np.float64, na_value=math.nan)
        independent = len(took_s) / autocorrelation_time(took_s)
        if independent < FEWEST_INDEPENDENT:
            few.append(
                f"the {len(took_s)} requests of {group.run.name} are equivalent to {independent:.0f} independent ones"
            )
    if not few:
        return ""
    return (
        f"{' and '.join(few)}, and {FEWEST_INDEPENDENT} are needed: a queue near its limit has a long correlation "
        "time. Run longer, or at a lower rate"
    )
