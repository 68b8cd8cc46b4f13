"""What tables, labels and notes need of a group: one stage of one run and one model. This module does not load pandas.

``metrics.groups.Group`` has it from the rows of a pandas table, ``end_of_run`` from the lines of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from llm_users.quantile import DurationHistogram
from llm_users.record import Shortfall, StageLoad

if TYPE_CHECKING:
    from llm_reports.metrics.summary import Summary


@dataclass(frozen=True)
class Counts:
    """The outcomes of the requests of a group.

    ``failed`` includes throttled and dropped requests, as in the stages file.
    """

    rows: int
    measured: int
    ok: int
    failed: int
    throttled: int
    dropped: int
    aborted: int
    cancelled: int
    errors: tuple[tuple[str, int], ...]  # code and count, most frequent first: failed but not throttled
    throttles: tuple[tuple[str, int], ...]
    unmeasured_phases: tuple[tuple[str, int], ...]

    @property
    def ended(self) -> int:
        """The measured requests without aborted and cancelled ones, which neither succeeded nor failed."""
        return self.measured - self.aborted - self.cancelled

    @property
    def failed_otherwise(self) -> int:
        """The failed requests without throttled ones."""
        return self.failed - self.throttled


@dataclass(frozen=True)
class Facts:
    """Counts and names of a group that notes and labels need in addition to the outcomes.

    ``busy_s``, ``held``, the events, the names and the two flags are of the measured requests, all others of the
    successful ones.
    """

    busy_s: float
    """The sum of the end-to-end latencies, as far as they are known."""

    held: int
    """Requests that waited because of ``--llm-max-in-flight`` and were then sent."""
    event_tokens: float
    """Output tokens of the requests with known numbers of tokens and events."""
    events: float
    apis: frozenset[str]
    endpoints: frozenset[str]
    knows_prompts: bool
    """Whether requests have a prompt of the seeded sequence."""
    limits_output: bool
    """Whether requests have a cap on the output tokens."""
    buffered: int
    unstreamed: int
    """Answers to requests that did not ask for a stream."""
    without_content: int
    """Answers of an LLMPerf file with a TTFT of 0."""
    bursts: int
    """Answers that arrived in large bursts. The next two count their gaps between chunks."""
    burst_gaps: float
    burst_zero_gaps: float
    user_stamps: int
    local_token_counts: int
    cached_tokens: float
    input_tokens: float
    without_connect: int
    connected: int = 0
    """Requests that opened a connection. ``reused`` counts those whose connection was already open."""
    reused: int = 0
    failure_reasons: str = ""
    """The errors of the requests if none of the measured requests succeeded, in words; "" otherwise."""
    count_difference: str = ""
    """The difference between usage and the client's count of output tokens, and its probable reason; "" if small."""


class RunInfo(Protocol):
    """The parts of a run that do not depend on pandas."""

    @property
    def name(self) -> str: ...
    @property
    def manifest(self) -> Mapping[str, Any]: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def gaps(self) -> Mapping[int, Mapping[str, DurationHistogram]]: ...
    @property
    def foreign(self) -> bool: ...
    @property
    def started(self) -> datetime | None: ...


class StageGroup(Protocol):
    """One stage of one run, for one framework and model."""

    @property
    def run(self) -> RunInfo: ...
    @property
    def stage(self) -> int | None: ...
    @property
    def load(self) -> StageLoad: ...
    @property
    def framework(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def counts(self) -> Counts: ...
    @property
    def health(self) -> str: ...
    @property
    def count_connect(self) -> bool: ...
    @property
    def steadiness(self) -> str: ...
    @property
    def shortfall(self) -> Shortfall | None: ...
    @property
    def facts(self) -> Facts: ...
    def summary(self, metric: Any) -> Summary:
        """Return the figures of a ``Metric`` over the requests that count."""
