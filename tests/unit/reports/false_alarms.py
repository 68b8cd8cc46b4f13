"""How often ``llm-report compare`` finds a difference between two runs of one process, over its whole table.

``python -m tests.unit.reports.false_alarms [PAIRS]`` compares so many pairs (default 1,200, about 10 minutes on two
cores) of closed loops on the simulated endpoint and prints the share of tables with a false alarm, with its Wilson
interval.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from llm_reports.compare.comparison import compare_runs
from llm_reports.compare.difference import LEVEL
from llm_reports.stats import block_resampling
from llm_reports.stats.intervals import ratio_interval
from llm_users.simulator.spec import Spec
from tests.unit.reports.closed_loop import Setting, run_of

SETTINGS = {
    "alone": Setting(Spec.parse("ttft=100ms,itl=10ms,capacity=4,jitter=0.3"), (1, 4, 16), 400, 0),
    "shared": Setting(Spec.parse("ttft=100ms,itl=10ms,capacity=4,jitter=0.3"), (1, 4, 16), 400, 8),
}
"""The endpoint for oneself; and shared with eight users of somebody else, who slow it down when they are there."""
WITHIN = 0.015


def smallest_p(setting: Setting, pair: int) -> tuple[float, list[float]]:
    """The smallest corrected p of the table of one pair, and each line's own p."""
    # Intervals have no part in the verdict, and 1 in 2,000 is fine enough a p for it: both take most of the time.
    block_resampling.PERMUTATIONS = 1999
    block_resampling.DRAWS = block_resampling.FEWEST_DRAWS = 2
    frame = compare_runs([run_of(setting, 2 * pair), run_of(setting, 2 * pair + 1)]).frame()
    return float(frame["p"].min()), frame["p_alone"].tolist()


def measure(setting: Setting, pairs: int) -> tuple[int, list[float]]:
    """How many of so many tables have a false alarm, and the shares of false alarms of the single lines."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(partial(smallest_p, setting), range(pairs), chunksize=10))
    by_line = zip(*(lines for _, lines in found), strict=True)
    return sum(p < LEVEL for p, _ in found), [sum(p < LEVEL for p in line) / pairs for line in by_line]


def main() -> int:
    """Print the rates; returns 1 when one of them is farther than 1.5 points from the level."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 1200
    off = 0
    for name, setting in SETTINGS.items():
        began = time.monotonic()
        alarms, lines = measure(setting, pairs)
        rate, interval = alarms / pairs, ratio_interval(alarms, pairs)
        print(f"{name}: {setting}")
        print(
            f"  whole table: {alarms} of {pairs} = {rate:.2%} (95 %: {interval.low:.2%} to {interval.high:.2%}), "
            f"stated {LEVEL:.0%}; single lines {min(lines):.1%} to {max(lines):.1%}, "
            f"{sum(lines) / len(lines):.1%} in the mean of {len(lines)}; {time.monotonic() - began:.0f} s"
        )
        off += abs(rate - LEVEL) > WITHIN
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
