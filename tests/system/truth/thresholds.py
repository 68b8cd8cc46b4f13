"""Comparisons with a threshold, of pairs of releases whose true change is known: none, half, one and two thresholds.

A pair has 400 requests of eight users per run. Latencies are lognormal with 5 % spread. In one kind of pair, the second
run has latencies that are larger by the true change, and a system throughput that is smaller by it. In the other kind,
it has an error ratio that is larger by as many percentage points. Requests are independent, or correlated: of the
variance behind latencies and errors, 30 % have a memory of one request per user. Every change uses the same random
numbers.

``python -m tests.system.truth.thresholds`` prints all rates of the full version as one table.
"""

from __future__ import annotations

import argparse
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pandas import Series
from scipy import stats

from llm_reports.compare.comparison import compare_runs
from llm_reports.compare.difference import IRRELEVANT, LEVEL, WORSE, Difference, judged
from llm_reports.compare.estimates import runs_estimate
from llm_reports.input.rows import empty_stages, typed_frame
from llm_reports.metrics.groups import groups
from llm_reports.run import Run
from llm_users.record import REQUEST_COLUMNS
from llm_users.verdict import Verdict
from tests.system.truth.comparison import SHARED, Floats, deviation, holds, normals, quick_resampling, run_of
from tests.system.truth.line import TruthLine, at_least, at_most

THRESHOLD = 0.05
CHANGES = (0.0, 0.5, 1.0, 2.0)
"""The true changes, as multiples of the threshold."""
REQUESTS, USERS, SPREAD = 400, 8, 0.05
LENGTHS_SPREAD = 0.5  # of the prompts' lengths, in the pairs that are compared prompt by prompt
ERRORS = 0.02  # the error ratio before
TAIL = LEVEL / 2  # an interval is on the wrong side of one bound this often
MEDIAN, P95, THROUGHPUT, ERROR_RATIO = (
    "end_to_end_latency_s median",
    "end_to_end_latency_s p95",
    "output_throughput_token_per_s system",
    "error_ratio share",
)

CORRELATED, SIDES = "correlated", "median, mean of 5 runs per side"


@dataclass
class Rates:
    """How often the comparisons of one figure and one true change came to each result."""

    counts: Counter[str] = field(default_factory=Counter)
    pairs: int = 0

    def add(self, line: Difference, truth: float) -> None:
        """Count the results of one comparison. ``truth``: the true worsening, as a share of 1."""
        self.pairs += 1
        self.counts.update([str(line.verdict), line.outcome])
        self.counts["covered"] += holds(line.worsening_interval, truth)

    def share(self, result: str) -> float:
        return self.counts[result] / self.pairs


Table = dict[tuple[str, float], Rates]
"""The rates by the name of a figure with its kind of samples, and the true change in thresholds."""


def lines(full: bool) -> Iterator[TruthLine]:
    """The lines of this area."""
    rates_of = table(full)
    equal = [rates for (name, change), rates in rates_of.items() if change == 0 and name != SIDES]
    share = sum(rates.share(WORSE) for rates in equal) / len(equal)
    yield at_most("worse: all figures of single runs, 0 % change", LEVEL, share, "<= 5 %")
    for (name, change), rates in rates_of.items():
        passed, failed = rates.share(Verdict.PASSED), rates.share(Verdict.FAILED)
        chance = 3 * deviation(TAIL, rates.pairs)  # three standard deviations of so many pairs
        where = f"{name}, {100 * change * THRESHOLD:g} % change"
        errors_rose = name.startswith(ERROR_RATIO) and change > 0  # errors fail with any significant increase
        if change == 0:
            limit = LEVEL if full else round(LEVEL + 3 * deviation(LEVEL, rates.pairs), 3)
            yield at_most(f"worse: {where}", limit, rates.share(WORSE), "<= 5 %")
        if change < 2 and not errors_rose:
            limit = round(TAIL + chance if change == 1 else chance, 3)
            yield at_most(f"failed: {where}", limit, failed, "2.5 %" if change == 1 else "0 %")
        if change == 1:
            yield at_most(f"passed: {where}", round(TAIL + chance, 3), passed, "2.5 %")
        if change == 2:
            # At 12 % errors, correlation multiplies the variance by 2.7, so 400 requests are worth 150: of 150 pairs,
            # 79 % failed.
            if name == f"{ERROR_RATIO}, {CORRELATED}":
                yield at_least(f"failed: {where}", round(0.79 - 3 * deviation(0.79, rates.pairs), 3), failed, "79 %")
            else:
                yield at_least(f"failed: {where}", 0.8, failed, ">= 80 %")
            yield at_most(f"passed: {where}", 0.0, max(passed, rates.share(IRRELEVANT)), "never")
        least = 0.93 - 3 * deviation(0.95, rates.pairs)
        yield at_least(f"coverage: {where}", round(least, 3), rates.share("covered"), "95 %")


def table(full: bool, pairs: int | None = None) -> Table:
    """Measure the rates. ``pairs``: the number of pairs of each kind, if not the default."""
    rates: Table = {}
    pairs = pairs or (100 if full else 8)
    lengths = np.exp(LENGTHS_SPREAD * np.random.default_rng(0).standard_normal(REQUESTS))
    with quick_resampling():
        for correlated in (False, True):
            kind = CORRELATED if correlated else "i.i.d."
            for seed in range(pairs):
                _compare(rates, kind, (MEDIAN, P95, THROUGHPUT), Releases(seed, correlated))
                _compare(rates, kind, (ERROR_RATIO,), Releases(seed, correlated, errors=True))
        for seed in range(pairs):
            _compare(rates, f"{CORRELATED}, by prompt", (MEDIAN,), Releases(seed, True, lengths=lengths))
    _compare_sides(rates, 2000 if full else 400)
    return rates


def _compare(rates: Table, kind: str, figures: Sequence[str], releases: Releases) -> None:
    base = releases.before()
    for change in CHANGES:
        comparison = compare_runs(
            [base, releases.after(change * THRESHOLD)], threshold=THRESHOLD, on="median,p95,system,error_ratio"
        )
        for line in comparison.differences:
            if line.name in figures:
                assert line.estimate.paired == (releases.lengths is not None)
                rates.setdefault((f"{line.name}, {kind}", change), Rates()).add(line, change * THRESHOLD)


def _compare_sides(rates: Table, repeats: int) -> None:
    """Five runs per side, whose medians differ by 2 % from run to run; the estimate is a ratio of geometric means."""
    dice = np.random.default_rng(5)
    (group,) = groups([run_of(np.random.default_rng(1), 30, 1.0, SPREAD, "run")])
    for _ in range(repeats):
        before, after = (np.exp(0.02 * dice.standard_normal(5)) for _ in range(2))
        for change in CHANGES:
            estimate = runs_estimate(before, (1 + change * THRESHOLD) * after)
            line = Difference((group,) * 5, (group,) * 5, "end_to_end_latency_s", "median", "s", estimate=estimate)
            line = judged(line, estimate.chance.p, THRESHOLD, True)
            rates.setdefault((SIDES, change), Rates()).add(line, change * THRESHOLD)


@dataclass(frozen=True)
class Releases:
    """Runs of two releases, of which the second is worse by a known change.

    ``errors``: the error ratio changes, otherwise latencies and throughput change. ``lengths``: the factors of the
    prompts' lengths, the same in both runs, if the runs are compared prompt by prompt.
    """

    seed: int
    correlated: bool
    errors: bool = False
    lengths: Floats | None = None

    def before(self) -> Run:
        """The run of the first release."""
        return self._run("before", 0, 0.0)

    def after(self, change: float) -> Run:
        """The run of the second release."""
        return self._run("after", 1, change)

    def _run(self, name: str, side: int, change: float) -> Run:
        dice = np.random.default_rng((self.seed, side))
        shared = SHARED if self.correlated else 0.0
        z, risk = (normals(dice, REQUESTS, USERS, shared) for _ in range(2))
        length = np.ones(REQUESTS) if self.lengths is None else self.lengths
        failing = risk < stats.norm.ppf(ERRORS + change) if self.errors else np.zeros(REQUESTS, dtype=bool)
        slower = 0.0 if self.errors else change
        took_s = (1 + slower) * length * np.exp(SPREAD * z)
        tokens = np.round(1000 * length * (1 - slower) * (1 + slower))  # the throughput, tokens / time, is 1 - slower

        def column(value: object) -> Series:
            return Series(np.full(REQUESTS, value))

        def of_successful(values: Floats) -> Series:
            return Series(np.where(failing, np.nan, values))

        values = {
            "request_id": Series([f"r{i:06d}" for i in range(REQUESTS)]),
            "measured": column(1),
            "stage": column(1),
            "concurrency": column(USERS),
            "prompt_index": Series(np.arange(REQUESTS)),
            "started_at": Series(_closed_loop(took_s)),
            "ttft_s": of_successful(took_s / 10),
            "end_to_end_latency_s": Series(took_s),
            "tpot_s": of_successful(took_s / 1000),
            "output_tokens": of_successful(tokens),
            "requested_output_tokens": Series(np.round(1000 * length)),
            "input_tokens": Series(np.round(550 * length)),
            "connect_s": column(0.0),
            "error_code": Series(np.where(failing, "500", "")),
        }
        manifest = {} if self.lengths is None else {"options": {"llm_seed": "1"}}
        return Run(name, Path(name), typed_frame(values, REQUEST_COLUMNS), empty_stages(), manifest=manifest)


def _closed_loop(took_s: Floats) -> Floats:
    """The starts of requests of users that send the next one as soon as the last one is answered."""
    free = [1.7e9 + i * float(took_s[i]) / USERS for i in range(USERS)]  # they do not start together
    starts = []
    for duration in took_s:
        starts.append(heapq.heappop(free))
        heapq.heappush(free, starts[-1] + float(duration))
    return np.array(starts)


def main() -> None:
    """Print the rates of the full version."""
    parser = argparse.ArgumentParser(description="Print how often comparisons with a threshold come to each result.")
    parser.add_argument("--pairs", type=int, help="pairs of runs of each kind (default: 100)")
    pairs = parser.parse_args().pairs
    results = (WORSE, Verdict.PASSED, Verdict.FAILED, Verdict.UNDECIDED, "covered")
    print(f"{'figure':<60} {'true change':>12} " + " ".join(f"{result:>9}" for result in results))
    for (name, change), rates in table(True, pairs).items():
        cells = " ".join(f"{100 * rates.share(result):>7.1f} %" for result in results)
        print(f"{name:<60} {100 * change * THRESHOLD:>10.1f} % {cells}")


if __name__ == "__main__":
    main()
