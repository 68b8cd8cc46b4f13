"""Parsing of objectives such as ``ttft_p95<0.5,tpot_p95<50ms,errors<1%``. This module does not depend on rows.

It does not load pandas, because Locust's command line uses it to check ``--llm-slo``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from llm_reports.errors import InputError
from llm_users.number_words import DurationError, parse_duration
from llm_users.record import COL, REQUEST_COLUMNS

EXAMPLE = "ttft_p95<0.5,tpot_p95<0.05,e2e_p99<10,errors<0.01"
ERRORS, MISMATCHES, STRICT_MISMATCHES = "errors", "mismatches", "strict_mismatches"
FAILURES_ALLOWED = 0.05
"""The share of failed requests that is allowed in a stage if there is no objective for errors.

Latency objectives count a failed request as infinitely slow, so a P95 tolerates this share anyway. Throughput and the
knee do not have such a limit, and an endpoint that rejects half of the requests is fast with the others.
"""
_FORM = re.compile(r"([a-z0-9_]+?)(?:_(p[0-9.]+|[a-z]+))?(<=|>=|<|>)([0-9.]+(?:e[+-]?[0-9]+)?)([^<>=]*)")
_SHARE_UNITS = {"": 1.0, "%": 0.01}
_RATE_UNITS = {"": 1.0, "tok/s": 1.0, "tokens/s": 1.0}


@dataclass(frozen=True, slots=True)
class Kind:
    """A metric for objectives: its column, its meaning, its unit, and whether less is better."""

    column: str
    meaning: str
    unit: str = "s"
    less_is_better: bool = True
    needs_stream: bool = False
    """Whether only a streamed answer has the metric."""


KINDS = {
    "ttft": Kind(COL.ttft_s, "time to the first token", needs_stream=True),
    "ttfat": Kind(COL.ttfat_s, "time to the first answer token, after any reasoning", needs_stream=True),
    "tpot": Kind(COL.tpot_s, "time per output token after the first", needs_stream=True),
    "e2e": Kind(COL.end_to_end_latency_s, "end of the answer since the request"),
    "corrected_ttft": Kind(COL.corrected_ttft_s, "open loop: first token since the intended start", needs_stream=True),
    "corrected_e2e": Kind(COL.corrected_end_to_end_latency_s, "open loop: end of the answer since the intended start"),
    "queue": Kind(COL.queue_s, "wait in the client before sending"),
    "throughput": Kind(COL.request_output_throughput_token_per_s, "output tokens/s of one request", "tokens/s", False),
    ERRORS: Kind(COL.error_code, "share of requests that failed", ""),
    MISMATCHES: Kind(COL.answer_match, "share of checked answers that are wrong", ""),
    STRICT_MISMATCHES: Kind(COL.answer_strict_match, "the same by the stricter rule", ""),
}
_MEANT = {
    "latency": "e2e", "end_to_end": "e2e", "end_to_end_latency": "e2e", "e2el": "e2e", "itl": "tpot", "error": ERRORS,
    "inter_token_latency": "tpot", "error_rate": ERRORS, "failures": ERRORS, "tps": "throughput", COL.ttft_s: "ttft",
    "corrected_latency": "corrected_e2e", "mismatch": MISMATCHES, "mismatch_rate": MISMATCHES, "wrong": MISMATCHES,
}  # fmt: skip

_JUDGED = {
    COL.stage, COL.concurrency, COL.rate_per_s, COL.measured, COL.phase, COL.turn,
    COL.framework, COL.model, COL.user_class,
    COL.error_code, COL.http_status, COL.expected_answer, COL.retries,
    COL.started_at, COL.queue_s, COL.held_s, COL.connect_s, COL.end_to_end_latency_s, COL.last_token_s,
    COL.output_tokens, COL.input_tokens, COL.cached_tokens, COL.reasoning_tokens,
    COL.window_tokens, COL.window_share, COL.worker,
    COL.chunks, COL.coalesced, COL.first_coalesced, COL.gap_max_s, COL.prompt_index, COL.streamed,
    *(kind.column for kind in KINDS.values()),
}  # fmt: skip
JUDGED_COLUMNS = tuple(column.name for column in REQUEST_COLUMNS if column.name in _JUDGED)
"""The columns of a row that a judgement reads: groups, objectives, dependence, client delay, steadiness.

The load search keeps only these columns of every row. tests/unit/wiring/test_load_search.py compares judgements from
these columns with judgements from complete rows.
"""


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective. ``q`` is the quantile that it limits, ``None`` for a mean and for a share of requests."""

    text: str
    name: str
    limit: float
    q: float | None
    inclusive: bool = False

    @property
    def kind(self) -> Kind:
        """The metric of the objective."""
        return KINDS[self.name]

    @property
    def without_stream(self) -> str:
        """The reason why the objective cannot be judged if no answer was streamed."""
        others = ", ".join(name for name, kind in KINDS.items() if not kind.needs_stream and kind.unit)
        return (
            f"{self.text} requires streamed answers, and the run has none (--llm-no-stream, or stream=False in a "
            f"call). Measure with streams, or set objectives on {others} or errors"
        )

    @property
    def is_share(self) -> bool:
        """Whether the objective limits a share of requests rather than a figure of each request."""
        return not self.kind.unit

    def holds(self, value: float) -> bool:
        """Return whether a value is within the limit; False for NaN."""
        if self.inclusive and value == self.limit:
            return True
        return value < self.limit if self.kind.less_is_better else value > self.limit

    def broken(self, value: float) -> bool:
        """Return whether a value exceeds the limit; False for NaN."""
        return value == value and not self.holds(value)  # noqa: PLR0124 (NaN)


@dataclass(frozen=True, slots=True)
class Objectives:
    """All objectives of an expression, which must hold together."""

    text: str
    all: tuple[Objective, ...]

    @property
    def limits(self) -> Mapping[str, Objective]:
        """The limits for a single request: the loosest limit of each metric, without shares of requests.

        A P50 under 0.2 s and a P95 under 0.5 s allow 0.5 s for a single request.
        """
        loosest: dict[str, Objective] = {}
        for objective in self.all:
            known = loosest.get(objective.name)
            if not objective.is_share and (known is None or known.holds(objective.limit) is False):
                loosest[objective.name] = objective
        return loosest


def parse_objectives(expression: str) -> Objectives:
    """Parse a comma-separated expression; raises ``InputError`` with the error and a valid alternative."""
    parts = [re.sub(r"\s+", "", part).lower() for part in expression.split(",") if part.strip()]
    if not parts:
        raise InputError(f"the objectives are empty; write for example {EXAMPLE}")
    return Objectives(",".join(parts), tuple(_objective(part) for part in dict.fromkeys(parts)))


def _objective(text: str) -> Objective:
    match = _FORM.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is not a valid objective; write METRIC_STATISTIC<LIMIT, for example {EXAMPLE}")
    name, statistic, comparison, number, unit = match.groups(default="")
    if statistic and name not in KINDS and f"{name}_{statistic}" in {*KINDS, *_MEANT}:
        name, statistic = f"{name}_{statistic}", ""
    if name not in KINDS:
        near = _MEANT.get(name) or next(iter(difflib.get_close_matches(name, KINDS, 1)), "")
        hint = f" Did you mean {near} ({KINDS[near].meaning})?" if near else ""
        raise InputError(f"{text!r}: {name!r} is not a valid metric.{hint} Valid metrics: {', '.join(KINDS)}")
    kind = KINDS[name]
    q = _quantile(text, name, statistic)
    if comparison.startswith("<") != kind.less_is_better:
        better = "less" if kind.less_is_better else "more"
        reversed_text = text.translate(str.maketrans("<>", "><"))
        raise InputError(f"{text!r}: for {name}, {better} is better; write {reversed_text}")
    return Objective(text, name, _limit(text, name, number, unit), q, comparison.endswith("="))


def _quantile(text: str, name: str, statistic: str) -> float | None:
    if not KINDS[name].unit:
        if statistic:
            raise InputError(
                f"{text!r}: {name} is a share of all requests and does not have a {statistic}; write {name}<0.01"
            )
        return None
    if statistic == "mean":
        return None
    if statistic in ("median", "p50"):
        return 0.5
    if statistic in ("max", "min"):
        tail = "p99" if (statistic == "max") == KINDS[name].less_is_better else "p1"
        raise InputError(
            f"{text!r}: the {statistic} of a sample does not predict the next request; write {name}_{tail}"
        )
    try:
        percent = float(statistic.removeprefix("p")) if statistic.startswith("p") else 0.0
    except ValueError:
        percent = 0.0
    if not 0 < percent < 100:
        problem = f"{statistic!r} is not a valid statistic" if statistic else f"{name} requires a statistic"
        raise InputError(f"{text!r}: {problem}; write {name}_p95, {name}_p99.9, {name}_median or {name}_mean")
    return round(percent / 100, 12)


def _limit(text: str, name: str, number: str, unit: str) -> float:
    kind = KINDS[name]
    try:
        limit = float(number)
    except ValueError:
        raise InputError(f"{text!r}: {number!r} is not a number") from None
    if kind.unit == "s":
        try:
            limit = parse_duration(number + unit)
        except DurationError as error:
            raise InputError(f"{text!r}: the unit of {name} is s: {error}") from None
    else:
        units = _RATE_UNITS if kind.unit else _SHARE_UNITS
        if unit not in units:
            raise InputError(f"{text!r}: the unit of {name} is {kind.unit or 'a share (0.01 or 1%)'}, not {unit}")
        limit *= units[unit]
    if not kind.unit and not 0 < limit < 1:
        raise InputError(
            f"{text!r}: a share of {name} is between 0 and 1, and a sample cannot prove that it is 0; "
            f"write {name}<0.01 or {name}<1%"
        )
    if not 0 < limit < math.inf:
        raise InputError(f"{text!r}: the limit must be a number above 0")
    return limit
