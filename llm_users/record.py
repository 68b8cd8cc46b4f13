"""The rows that processes exchange and files contain: rows of requests, of stages and of conversations.

This module declares the columns with their units and meanings once. The CSV headers, the report, the web table and the
documentation use these declarations. This module must not depend on Locust, gevent or pandas.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from llm_users.number_words import counted
from llm_users.outcome import BUFFERED, Outcome, outcome_of

HELD_BACK_FROM = 24
"""The minimum number of chunks of an answer for a decision whether a gateway held it back (``users.buffering``): two
bursts."""

STEADY, UNSTEADY, RAMPED = "steady", "unsteady", "ramped"
"""Values of the stage column ``steadiness``. An empty cell means unknown. The rate of a ramped stage changes, so its
queue may grow."""

STEADINESS_REQUESTS = 50
"""With fewer measured requests, the steadiness of a stage is unknown: a queue at 0.8 of its capacity can double by
chance in this number."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file: its name, its unit ("" for names and codes), its meaning and its Python type."""

    name: str
    unit: str
    meaning: str
    type: type


class RateRange(NamedTuple):
    """A rate in requests/s that changes linearly within a stage. Start and end are equal if it is constant."""

    start_per_s: float
    end_per_s: float

    @property
    def mean_per_s(self) -> float:
        """Return the mean over the stage: its number of arrivals divided by its length."""
        return (self.start_per_s + self.end_per_s) / 2

    @property
    def text(self) -> str:
        """Return the rates as an option has them: ``5``, ``2..20``."""
        if self.start_per_s == self.end_per_s:
            return f"{self.start_per_s:g}"
        return f"{self.start_per_s:g}..{self.end_per_s:g}"

    def at(self, share: float) -> float:
        """Return the rate after this share of the stage, from 0 to 1."""
        return self.start_per_s + (self.end_per_s - self.start_per_s) * min(1.0, max(0.0, share))


class Lengths(NamedTuple):
    """The lengths of the requests of a stage in tokens: of the prompt, and at most of the answer."""

    input_tokens: int
    output_tokens: int

    @property
    def text(self) -> str:
        """Return the lengths as an option has them: ``1024/128``."""
        return f"{self.input_tokens}/{self.output_tokens}"


@dataclass(frozen=True, slots=True)
class StageLoad:
    """The load of a stage: ``users`` of a closed loop, or the target ``rate_per_s`` of an open loop (requests/s).

    Both are None if a file does not contain the load. If the rate changes within the stage, ``ramp`` has its values at
    the start and at the end, and ``rate_per_s`` is their mean. ``lengths`` is set if the stages of the run have
    different lengths. All texts that name a stage by its load use the properties of this class.
    """

    users: int | None = None
    rate_per_s: float | None = None
    ramp: RateRange | None = None
    lengths: Lengths | None = None

    def with_users(self, users: int) -> StageLoad:
        """Return the load with another number of users."""
        return dataclasses.replace(self, users=users)

    @property
    def concurrency(self) -> int:
        """Return the value of the column ``concurrency``, which is 0 in an open loop."""
        return self.users or 0

    @property
    def is_open(self) -> bool:
        """Return whether requests start on a schedule, independent of the endpoint."""
        return self.rate_per_s is not None

    @property
    def is_known(self) -> bool:
        """Return whether the load is known."""
        return self.is_open or self.users is not None

    @property
    def level(self) -> float | None:
        """Return the number of users or the rate, for an axis."""
        return self.users if self.rate_per_s is None else self.rate_per_s

    @property
    def order(self) -> tuple[Any, ...]:
        """Return a sort key: by lengths, then closed loops by users, then open loops by rate."""
        return self.lengths or (), self.is_open, -1 if self.level is None else self.level, self.ramp or ()

    @property
    def rate_text(self) -> str:
        """Return the target rate in requests/s: ``5``, ``2..20``, or "" in a closed loop."""
        if self.rate_per_s is None:
            return ""
        return f"{self.rate_per_s:g}" if self.ramp is None else self.ramp.text

    @property
    def level_text(self) -> str:
        """Return the load without the lengths, for a point of a curve: ``8``, ``5/s``, ``2..20/s``, ``?``."""
        if self.is_open:
            return f"{self.rate_text}/s"
        return "?" if self.users is None else str(self.users)

    @property
    def text(self) -> str:
        """Return the load for a log: ``8 users``, ``5 requests/s``, ``8 users, 1024/128 tokens``."""
        level = f"{self.rate_text} requests/s" if self.is_open else counted(self.users or 0, "user")
        return level if self.lengths is None else f"{level}, {self.lengths.text} tokens"

    @property
    def short(self) -> str:
        """Return the load in a few characters: ``8``, ``5/s``, ``?``, ``8 x 1024/128``."""
        return self.level_text if self.lengths is None else f"{self.level_text} x {self.lengths.text}"

    @property
    def words(self) -> str:
        """Return the load for a sentence: ``concurrency 8``, ``5 requests/s``, ``concurrency 8 (1024/128 tokens)``."""
        users = "-" if self.users is None else self.users
        level = f"{self.rate_text} requests/s" if self.is_open else f"concurrency {users}"
        return level if self.lengths is None else f"{level} ({self.lengths.text} tokens)"

    @property
    def tag(self) -> str:
        """Return the load for brackets: ``8 parallel``, ``5/s``, ``8 parallel, 1024/128``."""
        level = self.level_text if self.is_open else f"{'-' if self.users is None else self.users} parallel"
        return level if self.lengths is None else f"{level}, {self.lengths.text}"

    @property
    def at(self) -> str:
        """Return ``words`` for use after a name, such as " at concurrency 8", or "" if the load is unknown."""
        return f" at {self.words}" if self.is_known else ""

    def share_text(self, parts: Mapping[str, float]) -> str:
        """Return how several models share the load: ``of 4 users, large had 1.0 and small 3.0 on average``.

        ``parts`` has the seconds that the requests of each model took, which is proportional to the users that it had
        (Little's law), or in an open loop the number of its requests. Return "" for fewer than two models.
        """
        total = math.fsum(parts.values())
        if len(parts) < 2 or not total > 0 or not self.level:
            return ""
        shown = [f"{self.level * part / total:.{1 if self.level >= 1 else 2}f}" for part in parts.values()]
        verb, mean = ("got", "") if self.is_open else ("had", " on average")
        (first, amount), *others = zip(parts, shown, strict=True)
        named = [f"{first} {verb} {amount}", *(f"{name} {amount}" for name, amount in others)]
        of_load = f"{self.rate_text} requests/s" if self.is_open else counted(self.users or 0, "user")
        return f"of {of_load}, {', '.join(named[:-1])} and {named[-1]}{mean}"


def load_of(
    users: float | None,
    rate_per_s: float | None,
    ramp: Sequence[float | None] = (None, None),
    lengths: Sequence[float | None] = (None, None),
) -> StageLoad:
    """Return the load in a row, a stage or a summary. NaN and ``None`` mean unknown.

    ``ramp`` are the rates at the start and at the end, ``lengths`` the tokens of prompts and answers.
    """
    start_per_s, end_per_s = map(_known, ramp)
    inputs, outputs = map(_known, lengths)
    both = Lengths(int(inputs), int(outputs)) if inputs is not None and outputs is not None else None
    if rate_per_s is not None and rate_per_s > 0:
        ramped = RateRange(start_per_s, end_per_s) if start_per_s is not None and end_per_s is not None else None
        return StageLoad(None, float(rate_per_s), ramped, both)
    return StageLoad(None if users is None or math.isnan(users) else int(users), lengths=both)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _column(unit: str, meaning: str, type_: type = float, default: Any = None) -> Any:
    return field(default=default, metadata={"unit": unit, "meaning": meaning, "type": type_})


@dataclass(slots=True)
class RequestRecord:
    """One request with any outcome. ``None`` means "not measured" and is an empty cell in the CSV.

    Durations are seconds of one monotonic clock. t0 is the moment before the first byte of the request was passed to
    the socket; c1..cK are the arrival times of the content chunks; N is the number of output tokens.
    """

    request_id: str = _column("", "identifier of this request, unique over all workers of the run", str, "")
    run_id: str = _column("", "identifier of the run", str, "")
    worker: int = _column("", "rank of the worker that sent the request, from 0", int, 0)
    user_id: str = _column("", "the simulated user that sent the request", str, "")
    response_id: str | None = _column("", "the server's own identifier of the answer", str)
    stage: int = _column("", "stage in which the request started, from 1", int, 0)
    stage_end: int = _column("", "stage in which the request ended", int, 0)
    user_class: str = _column("", "name of the User class", str, "")
    api: str = _column(
        "", "wire dialect: openai-chat, openai-responses, anthropic-messages, bedrock-converse, ...", str, ""
    )
    model: str = _column("", "model name as sent", str, "")
    name: str = _column("", "name of the request in Locust's table", str, "")
    framework: str = _column("", "serving framework or provider, for the tables", str, "")
    prompt_index: int | None = _column("", "position of the prompt in the seeded sequence", int)
    phase: str = _column("", "ramp, warmup, measure or drain: the stage's phase when the request started", str, "")
    phase_end: str = _column("", "the stage's phase when the request ended", str, "")
    measured: int = _column("0/1", "1 when the request counts in the stage's statistics", int, 0)
    window_tokens: float | None = _column(
        "tokens", "output tokens of the request that arrived inside the MEASURE window"
    )
    concurrency: int = _column(
        "users", "users of the stage that ran (ramp: requested users); 0 in an open loop", int, 0
    )
    started_at: float | None = _column("unix s", "wall clock of t0 (of the start of connecting when that failed)")
    queue_s: float | None = _column("s", "intended send time to t0")
    connect_s: float | None = _column("s", "DNS + TCP + TLS before t0; 0 on a reused connection")
    ttft_s: float | None = _column("s", "c1 - t0: time to the first chunk of any kind")
    ttfat_s: float | None = _column("s", "time to the first answer (non-reasoning) chunk, from t0")
    end_to_end_latency_s: float | None = _column("s", "end of stream - t0 (LLMPerf)")
    last_token_s: float | None = _column("s", "cK - t0")
    tpot_s: float | None = _column(
        "s/token", "time per output token after the first chunk's, stop token included; defined in metrics.md"
    )
    gap_p50_s: float | None = _column("s", "median of this request's chunk gaps")
    gap_p95_s: float | None = _column("s", "95th percentile of this request's chunk gaps")
    gap_p99_s: float | None = _column("s", "99th percentile of this request's chunk gaps")
    gap_max_s: float | None = _column("s", "largest of this request's chunk gaps")
    chunks: int = _column("count", "events that carried output", int, 0)
    reads: int = _column("count", "reads from the socket", int, 0)
    coalesced: int = _column("count", "content chunks that shared a read with an earlier one", int, 0)
    output_tokens: int | None = _column(
        "tokens",
        "output tokens: the server's usage if it can be correct, else the local tokenizer; with --llm-count tokenizer "
        "always the latter",
        int,
    )
    output_tokens_source: str | None = _column("", "usage or tokenizer", str)
    input_tokens: int | None = _column("tokens", "input tokens: the server's usage, else the local tokenizer", int)
    input_tokens_source: str | None = _column("", "usage or tokenizer", str)
    cached_tokens: int | None = _column("tokens", "input tokens that the server took from its cache", int)
    reasoning_tokens: int | None = _column("tokens", "output tokens spent on reasoning", int)
    requested_output_tokens: int | None = _column("tokens", "the cap on output tokens that was sent", int)
    request_output_throughput_token_per_s: float | None = _column(
        "tokens/s", "output_tokens / end_to_end_latency_s (LLMPerf)"
    )
    server_latency_s: float | None = _column("s", "latency that the server reports")
    server_ttft_s: float | None = _column("s", "time to first token that the server reports")
    finish_reason: str | None = _column("", "why the answer ended, in the server's words", str)
    http_status: int | None = _column("", "HTTP status of the response", int)
    retries: int = _column("count", "attempts beyond the first, when retries are on", int, 0)
    reconnects: int = _column(
        "count",
        "times that the request was sent again on a new connection because a kept one closed without an answer",
        int,
        0,
    )
    error_code: str | None = _column(
        "",
        "empty = success; else HTTP status, the provider's code, or connect, client_limit, timeout, reset, truncated, "
        "malformed, empty, aborted, cancelled, buffered",
        str,
    )
    error_message: str | None = _column("", "description of the error", str)
    stamp_source: str | None = _column("", "kernel or user: where the arrival stamps come from", str)
    cache_write_tokens: int | None = _column("tokens", "input tokens that the server wrote to its cache", int)
    latency_mode: str | None = _column("", "Bedrock's performanceConfig that the server used", str)
    service_tier: str | None = _column("", "service tier that served the request", str)
    events_per_token: float | None = _column("events/token", "chunks / output_tokens: a stream event is not a token")
    expected_answer: str | None = _column("", "the expected answer of a check; empty: the answer was not checked", str)
    answer_match: int | None = _column("0/1", "1 when a checked answer is right (numbers: by LLMPerf's rule)", int)
    answer_strict_match: int | None = _column("0/1", "1 when the answer is also right by the stricter rule", int)
    answer_excerpt: str | None = _column("", "the first 200 characters of a checked answer, secrets redacted", str)
    rate_per_s: float | None = _column("requests/s", "target rate of the stage in an open loop; its concurrency is 0")
    held_s: float | None = _column("s", "part of queue_s: the wait because of --llm-max-in-flight")
    corrected_ttft_s: float | None = _column("s", "open loop: c1 - intended send time, so that no delay is omitted")
    corrected_end_to_end_latency_s: float | None = _column("s", "open loop: end of stream - intended send time")
    conversation_id: str | None = _column("", "the conversation that the request is a turn of", str)
    turn: int | None = _column("", "number of the turn in the conversation, from 1", int)
    turns: int | None = _column("count", "planned turns of the conversation", int)
    think_s: float | None = _column("s", "the user's pause before this turn; not part of queue_s")
    endpoint: str | None = _column("", "base URL of the request, without credentials and query", str)
    first_coalesced: int = _column("count", "content chunks that shared the read of the first one", int, 0)
    window_share: float | None = _column(
        "share",
        "fraction of the output that arrived inside the MEASURE window; without chunk times 1 or 0, by its end time",
    )
    burst_chunks: int = _column(
        "count", "chunks of a typical burst if a gateway held the stream back, else 0: see buffered-streams.md", int, 0
    )
    output_tokens_usage: int | None = _column(
        "tokens",
        "output tokens by the server's usage, if the client counts answers too (--llm-count), or if the usage cannot "
        "be correct; output_tokens is then from the local tokenizer",
        int,
    )
    output_tokens_counted: int | None = _column(
        "tokens",
        "tokens of the visible output (text, tool calls, streamed reasoning) by the client's tokenizer (--llm-count)",
        int,
    )
    streamed: int = _column(
        "0/1",
        "1: the request asked for a stream; 0: it asked for the whole answer at once, so the columns of TTFT, TPOT, "
        "last token and gaps are empty",
        int,
        1,
    )

    def correct_for_omission(self) -> None:
        """Set the latencies from the intended send time, which include the delays of an open loop that falls behind."""
        if self.queue_s is None:
            return
        if self.ttft_s is not None:
            self.corrected_ttft_s = self.queue_s + self.ttft_s
        if self.end_to_end_latency_s is not None:
            self.corrected_end_to_end_latency_s = self.queue_s + self.end_to_end_latency_s

    def count_in_window(self, share: float | None) -> None:
        """Set the fraction of the output that arrived inside the MEASURE window (0 to 1; None: no output)."""
        self.window_share = share
        if share is not None and self.output_tokens is not None:
            self.window_tokens = share * self.output_tokens

    def row(self) -> list[Any]:
        """Return the values in the order of ``REQUEST_COLUMNS``: the packed form for messages between processes."""
        return list(_request_values(self))

    @classmethod
    def from_row(cls, values: Iterable[Any]) -> RequestRecord:
        """Create a record from the values that ``row`` returns."""
        return cls(*values)

    @property
    def load(self) -> StageLoad:
        """Return the load of the request's stage that was known when the request started."""
        return load_of(self.concurrency, self.rate_per_s)

    @property
    def outcome(self) -> Outcome:
        """Return how the request ended."""
        return outcome_of(self.error_code, self.http_status)

    @property
    def ok(self) -> bool:
        """Return whether the request succeeded. A request with a buffered answer succeeded too."""
        return self.outcome is Outcome.OK

    @property
    def buffered(self) -> bool:
        """Return whether the complete answer arrived at once: a success with unknown times to the first tokens."""
        return self.error_code == BUFFERED


@dataclass(slots=True)
class StageRecord:
    """One stage of a run, over all workers."""

    stage: int = _column("", "number of the stage, from 1", int, 0)
    concurrency: int = _column("users", "users that ran when measuring began; 0 in an open loop", int, 0)
    measure_started_at: float | None = _column("unix s", "master's wall clock at the start of MEASURE")
    measure_s: float | None = _column("s", "length of the MEASURE window (union of the workers' windows)")
    requests_started: int = _column("count", "requests started in the stage, in any phase", int, 0)
    requests_measured: int = _column("count", "requests that count in the stage's statistics", int, 0)
    requests_ok: int = _column("count", "measured requests that succeeded", int, 0)
    requests_failed: int = _column("count", "measured requests that failed (throttled ones included)", int, 0)
    requests_throttled: int = _column("count", "measured requests that were throttled (429)", int, 0)
    requests_aborted: int = _column("count", "measured requests cut off by the end of the stage or of the test", int, 0)
    window_tokens: float = _column(
        "tokens", "output tokens of successful requests that arrived inside the MEASURE window", float, 0.0
    )
    output_throughput_token_per_s: float | None = _column("tokens/s", "window_tokens / measure_s")
    request_throughput_per_s: float | None = _column(
        "requests/s", "sum of window_share of the successful requests / measure_s"
    )
    concurrency_actual: float | None = _column("requests", "time-weighted number of requests in flight in the window")
    client_cpu_s: float | None = _column("s", "CPU of all workers inside the MEASURE window")
    client_cpu_share_max: float | None = _column("share", "largest CPU share of one worker in the window")
    lag_p99_s: float | None = _column("s", "99th percentile of the delay of a short sleep's wake-up, worst process")
    queue_p99_s: float | None = _column(
        "s", "99th percentile of queue_s without held_s and connect_s, over the measured requests"
    )
    forced_start_share: float | None = _column("share", "starts that did not get an idle event loop within 20 ms")
    coalesced_share: float | None = _column("share", "content chunks that shared a read with an earlier one")
    tokens_per_chunk: float | None = _column("tokens", "output tokens per content chunk")
    stamp_source: str | None = _column("", "kernel, user or mixed", str)
    health: str | None = _column(
        "", "whether the client was the limit: ok, strained, disturbed or saturated; empty: too short to decide", str
    )
    rate_per_s: float | None = _column("requests/s", "target rate in an open loop; its concurrency is 0")
    requests_held: int = _column("count", "measured requests that waited because of --llm-max-in-flight", int, 0)
    requests_dropped: int = _column(
        "count", "measured requests that exceeded --llm-max-in-flight and were dropped", int, 0
    )
    requests_cancelled: int = _column("count", "measured requests that the client cancelled (--llm-cancel)", int, 0)
    first_coalesced_share: float | None = _column(
        "share", "answers whose first content chunk shared its read with later chunks, which makes ttft_s too long"
    )
    load_actual: float | None = _column(
        "users",
        "time-weighted users in the window that were inside a call, in their wait_time or in the pause after a "
        "failure; empty in an open loop",
    )
    started_rate_per_s: float | None = _column(
        "requests/s", "open loop: (measured requests that were sent - 1) / time from the first to the last"
    )
    failed_window_tokens: float = _column(
        "tokens", "output tokens inside the window of requests that failed, were cut off or were cancelled", float, 0.0
    )
    window_widened: int = _column(
        "0/1", "1: the window was shorter than half a mean latency and ends with the last measured request", int, 0
    )
    others_cpu_share: float | None = _column(
        "share", "CPU of programs other than the workers in the window, as a share of all cores of the machine"
    )
    steal_share: float | None = _column(
        "share", "CPU that the hypervisor gave to other guests in the window, as a share of all cores of the machine"
    )
    lag_own_p99_s: float | None = _column(
        "s", "like lag_p99_s, without the time in which the process was ready to run but had no CPU"
    )
    steadiness: str | None = _column(
        "",
        "unsteady: the queue (requests in flight, or latency) grew through the window; steady; ramped: the rate of the "
        "stage changes (--llm-rate 2..20), so its queue may grow; empty: unknown",
        str,
    )
    requests_resent: int = _column("count", "measured requests with reconnects: the server received them twice", int, 0)
    requests_client_limited: int = _column(
        "count", "measured requests that failed with client_limit: this machine had no free descriptor or port", int, 0
    )
    concurrency_asked: int | None = _column(
        "users", "requested users, without the users of classes that send no LLM requests; empty in an open loop", int
    )
    users_actual: float | None = _column(
        "users", "time-weighted users in or between requests, summed over the workers, each over its own window"
    )
    users_ended: int | None = _column(
        "users", "users that ended on their own during the stage, and users of workers that were lost in the stage", int
    )
    held_back_share: float | None = _column(
        "share", f"share of answers with burst_chunks among successful answers with {HELD_BACK_FROM} or more chunks"
    )
    zero_gap_share: float | None = _column(
        "share", "share of zero gaps among the chunk gaps of answers with burst_chunks (coalesced / gaps)"
    )
    rate_start_per_s: float | None = _column(
        "requests/s",
        "target rate at the start of a stage whose rate changes (--llm-rate 2..20); rate_per_s is its mean",
    )
    rate_end_per_s: float | None = _column("requests/s", "target rate at the end of such a stage")
    stage_input_tokens: int | None = _column(
        "tokens", "length of the prompts of a stage of --llm-length-sweep; empty in other runs", int
    )
    stage_output_tokens: int | None = _column("tokens", "maximum length of the answers of such a stage", int)

    @property
    def load(self) -> StageLoad:
        """Return the load that ran."""
        return load_of(
            self.concurrency,
            self.rate_per_s,
            (self.rate_start_per_s, self.rate_end_per_s),
            (self.stage_input_tokens, self.stage_output_tokens),
        )

    @property
    def shortfall(self) -> Shortfall | None:
        """Return by how much the load was below the requested load, or None if it was not or if that is unknown."""
        return shortfall_of(
            self.concurrency_asked,
            self.concurrency,
            self.users_actual,
            self.load_actual,
            users_ended=self.users_ended,
            widened=bool(self.window_widened),
            requests=self.requests_measured,
        )


LOAD_SHARE = 0.95
"""The minimum share of the requested users or rate at which the load counts as complete."""


REQUESTS_PER_USER = 10
"""The minimum number of measured requests for each user of a stage. A user is idle for half a request on average before
the last request of its stage ends, so 10 requests keep 95 % of the load (``LOAD_SHARE``)."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A load below the requested load."""

    ran: float
    asked: int
    why: str
    users_missing: bool
    """Whether users did not start or ended early. Otherwise all users ran and their requests waited for the client."""

    @property
    def short(self) -> str:
        """Return a short mark: ``5 of 8 users``."""
        return f"{self.ran:.3g} of {counted(self.asked, 'user')}"

    @property
    def text(self) -> str:
        """Return a sentence: ``only 5 of 8 users ran: the others did not start``."""
        if self.users_missing:
            return f"only {self.short} ran: {self.why}"
        return f"the load was equivalent to {self.short}: {self.why}"


def shortfall_of(
    asked: float | None,
    users: float | None,
    users_actual: float | None,
    load_actual: float | None,
    *,
    users_ended: float | None,
    widened: bool,
    requests: float | None = None,
) -> Shortfall | None:
    """Compare the load that ran with the requested load; return None if it was complete.

    ``requests`` is the number of measured requests, None if it is unknown; with few of them for each user, they are the
    reason for a lower load.

    The function does not compare the load over a widened window, because the end of such a window has no load.
    """
    if not users:
        return None
    if asked and users < LOAD_SHARE * asked:
        return Shortfall(users, int(asked), "the others did not start", users_missing=True)
    if users_ended and users_actual is not None and users_actual < LOAD_SHARE * users and not widened:
        return Shortfall(users_actual, int(users), "users ended during the stage", users_missing=True)
    if load_actual is not None and load_actual < LOAD_SHARE * users and not widened:
        why = "their requests waited for the client, or workers did not measure at the same time"
        enough = REQUESTS_PER_USER * int(users)
        if requests and requests < enough:
            why = (
                f"{requests:.0f} requests are few for {counted(int(users), 'user')}, who wait for the others at the "
                f"end of a stage; use at least {enough} requests, {REQUESTS_PER_USER} for each user"
            )
        return Shortfall(load_actual, int(users), why, users_missing=False)
    return None


@dataclass(slots=True)
class ConversationRecord:
    """One conversation with the sums over its turns, including turns outside of MEASURE."""

    conversation_id: str = _column("", "same value as in the rows of its turns", str, "")
    user_id: str = _column("", "the simulated user that held the conversation", str, "")
    model: str = _column("", "model name as sent", str, "")
    turns_planned: int = _column("count", "planned turns", int, 0)
    turns_done: int = _column("count", "turns that were answered", int, 0)
    started_at: float | None = _column("unix s", "wall clock of t0 of the first turn")
    duration_s: float | None = _column("s", "end of the last turn - t0 of the first turn, pauses included")
    think_s: float | None = _column("s", "sum of the user's pauses before the turns")
    ttft_first_s: float | None = _column("s", "ttft_s of the first turn")
    ttft_last_s: float | None = _column("s", "ttft_s of the last turn that was sent")
    input_tokens: int | None = _column("tokens", "sum over the turns, each with its preceding history", int)
    output_tokens: int | None = _column("tokens", "sum over the turns", int)
    cached_tokens: int | None = _column("tokens", "sum over the turns of the tokens from the server's cache", int)
    completed: int = _column("0/1", "1 when every planned turn was answered", int, 0)
    error_code: str | None = _column(
        "", "why the conversation ended early; also empty if the run ended between two turns", str
    )


@dataclass(slots=True)
class ServerMetricRecord:
    """One metric of a server's own ``/metrics`` over one stage (``--llm-server-metrics``).

    A counter fills ``increase`` and ``per_s``. A gauge fills ``mean``, ``minimum`` and ``maximum``. A histogram fills
    ``increase`` (of its count), ``per_s``, ``mean`` (the increase of its sum / the increase of its count) and the
    bounds of the buckets that contain its quantiles.
    """

    run_id: str = _column("", "run_id of the rows of the stage", str, "")
    stage: int = _column("", "number of the stage", int, 0)
    server: str = _column("", "the URL that was read, without credentials and query", str, "")
    engine: str = _column("", "vllm, sglang, llamacpp, tgi, triton, dcgm", str, "")
    metric: str = _column("", "name of the metric here, such as requests_running or ttft_s", str, "")
    kind: str = _column("", "gauge, counter or histogram", str, "")
    scrapes: int = _column(
        "count", "gauge: readings within the stage; else 2: one before and one after the stage", int, 0
    )
    span_s: float | None = _column("s", "time from the start of the users of the stage to the end of its last request")
    mean: float | None = _column("the metric's", "gauge: mean of the scrapes; histogram: mean of the new observations")
    minimum: float | None = _column("the metric's", "gauge: smallest value of the scrapes")
    maximum: float | None = _column("the metric's", "gauge: largest value of the scrapes")
    increase: float | None = _column("the metric's", "counter: by how much it grew; histogram: new observations")
    per_s: float | None = _column("the metric's / s", "increase / span_s")
    p50_low: float | None = _column("the metric's", "histogram: lower bound of the bucket with the median")
    p50_high: float | None = _column("the metric's", "its upper bound; empty: the last bucket, which has none")
    p90_low: float | None = _column("the metric's", "histogram: lower bound of the bucket with the 90th percentile")
    p90_high: float | None = _column("the metric's", "its upper bound; empty: the last bucket, which has none")
    p99_low: float | None = _column("the metric's", "histogram: lower bound of the bucket with the 99th percentile")
    p99_high: float | None = _column("the metric's", "its upper bound; empty: the last bucket, which has none")


def columns_of(record_type: type) -> tuple[Column, ...]:
    """Return the columns that a record type declares, in file order."""
    return tuple(
        Column(f.name, f.metadata["unit"], f.metadata["meaning"], f.metadata["type"])
        for f in dataclasses.fields(record_type)
    )


REQUEST_COLUMNS = columns_of(RequestRecord)
STAGE_COLUMNS = columns_of(StageRecord)
CONVERSATION_COLUMNS = columns_of(ConversationRecord)
SERVER_METRIC_COLUMNS = columns_of(ServerMetricRecord)


class ColumnNames:
    """The names of all declared columns as attributes: ``COL.ttft_s`` is ``"ttft_s"``.

    A name that no record type declares raises AttributeError, where a misspelled literal would be an unknown column.
    """

    def __init__(self, columns: Iterable[Column]) -> None:
        vars(self).update({column.name: column.name for column in columns})

    def __getattr__(self, name: str) -> str:
        raise AttributeError(f"no column is named {name!r}")


COL = ColumnNames(REQUEST_COLUMNS + STAGE_COLUMNS + CONVERSATION_COLUMNS + SERVER_METRIC_COLUMNS)
_request_values = attrgetter(*(column.name for column in REQUEST_COLUMNS))

# A spreadsheet treats a cell that starts with one of these as a formula; text from a server must never become one.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_UNSAFE_STARTS = "".join(_FORMULA_STARTS) + "'"


def cells(values: Iterable[Any]) -> list[Any]:
    """Return values as cells for ``csv.writer``, which writes ``None`` as an empty cell; see ``cell``."""
    return [
        _number(value)
        if (kind := type(value)) is float
        else cell(value)
        if kind is str and (value[:1] in _UNSAFE_STARTS or "\r" in value)
        else value
        for value in values
    ]


def _number(value: float) -> str:
    return f"{value:.9g}" if -1e6 < value < 1e6 else f"{value:.6f}"


def cell(value: Any) -> Any:
    """Return a value as a CSV cell: "" for ``None``, short floats, and texts that look like a formula quoted."""
    if value is None:
        return ""
    if type(value) is float:
        return _number(value)
    if type(value) is str:
        if "\r" in value:  # the csv module does not quote it and reads it as the end of a line
            value = value.replace("\r", " ")
        if value.lstrip("'").startswith(_FORMULA_STARTS):  # also texts that look quoted already
            return "'" + value
    return value


def unguarded(text: str) -> str:
    """Undo ``cell``, which puts a ' before text that a spreadsheet would read as a formula."""
    return text[1:] if text.startswith("'") and cell(text[1:]) == text else text
