"""Verdicts on stages whose values hardly vary: TPOT of a server that shares its capacity among answers.

The requests of such a stage are strongly correlated, so they have no interval. The gate passes them only if all values
are far from the limit. The limit is the true P95 of a long series (false passes), or 50 ms (power, with 15 ms alone).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pandas import Series

from llm_reports.input.rows import empty_stages, typed_frame
from llm_reports.metrics.groups import Group, groups
from llm_reports.run import Run
from llm_reports.slo.gate import judge
from llm_reports.slo.objectives import parse_objectives
from llm_users.record import REQUEST_COLUMNS
from llm_users.verdict import Verdict
from tests.queue_models import Random, Values, sharing
from tests.system.truth.line import TruthLine, at_least, at_most

_CAPACITY, _ALONE_S, _ITL_S = 24, 4.0, 0.015  # 6 requests/s


def times(luck: Random, rate_per_s: float, requests: int) -> tuple[Values, Values, Values]:
    """Return starts and ends (s), and the time per output token (s), of answers of equal length."""
    starts, ends = sharing(luck, rate_per_s, requests, capacity=_CAPACITY, alone_s=_ALONE_S)
    return starts, ends, (ends - starts) / _ALONE_S * _ITL_S


def stage(luck: Random, rate_per_s: float, seconds: float) -> Group:
    """Return one open-loop stage with measured requests only."""
    starts, ends, tpot_s = times(luck, rate_per_s, int(rate_per_s * seconds))
    ones = np.ones(len(starts))
    columns = {
        "stage": Series(ones), "measured": Series(ones), "rate_per_s": Series(rate_per_s * ones),
        "started_at": Series(1.7e9 + starts), "queue_s": Series(0 * ones), "connect_s": Series(0 * ones),
        "end_to_end_latency_s": Series(ends - starts), "ttft_s": Series(0.2 * ones), "tpot_s": Series(tpot_s),
        "output_tokens": Series(250 * ones), "chunks": Series(250 * ones),
    }  # fmt: skip
    return groups([Run("queue", Path("queue"), typed_frame(columns, REQUEST_COLUMNS), empty_stages())])[0]


def passed(seed: int, rate_per_s: float, seconds: float, limit_s: float, runs: int) -> float:
    """Return the share of stages that pass ``tpot_p95`` with this limit."""
    luck = np.random.default_rng(seed)
    objective = parse_objectives(f"tpot_p95<{limit_s:.9g}").all[0]
    verdicts = [judge(stage(luck, rate_per_s, seconds), objective).verdict for _ in range(runs)]
    return sum(verdict is Verdict.PASSED for verdict in verdicts) / runs


def lines(full: bool) -> Iterator[TruthLine]:
    """False passes near the limit at 80 % to 96 % of the capacity, and power at half and two thirds of it."""
    runs = 150 if full else 60
    for rate_per_s in (4.8, 5.4, 5.73) if full else (5.73,):
        tpot_s = times(np.random.default_rng(41), rate_per_s, 60_000)[2]
        right = float(np.quantile(tpot_s[5_000:], 0.95))
        for seconds in (60.0, 100.0):
            title = f"TPOT at {rate_per_s:g}/s of 6/s, {seconds:g} s: the limit is the truth ({1000 * right:.0f} ms)"
            share = passed(42, rate_per_s, seconds, right, runs)
            yield at_most(f"{title}, passed", 0.05 if full else 0.08, share)
    for rate_per_s in (3.0, 4.0):
        for seconds in (60.0, 100.0):
            share = passed(43, rate_per_s, seconds, 0.05, runs // 2)
            yield at_least(f"TPOT at {rate_per_s:g}/s of 6/s, {seconds:g} s, limit 50 ms: passed", 0.8, share)
    share = passed(44, 3.0, 60.0, 0.03, runs // 2)
    yield at_least("TPOT at 3/s of 6/s, 60 s, limit twice the figure: passed", 0.8, share)
