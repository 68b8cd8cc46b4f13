"""The one data type that travels: a request's row, and the rows of a stage and of a conversation.

Columns, their units and meanings are declared here once; the CSV headers, the report, the web table and the
documentation are made from them. This module must stay free of Locust, gevent and pandas.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from llm_users.outcome import BUFFERED, Outcome, outcome_of

HELD_BACK_FROM = 24
"""The fewest chunks of an answer that can be judged as held back or not (``users.buffering``): two bursts."""

STEADY, UNSTEADY = "steady", "unsteady"
"""Values of the stage column ``steadiness``; empty: unknown."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a file: its name, its unit ("" for names and codes), its meaning and its Python type."""

    name: str
    unit: str
    meaning: str
    type: type


@dataclass(frozen=True, slots=True)
class StageLoad:
    """The load of a stage: ``users`` of a closed loop, or the target ``rate_per_s`` of an open loop (requests/s).

    Neither is known where a file does not say. Everything that names a stage by its load takes the words from here.
    """

    users: int | None = None
    rate_per_s: float | None = None

    @property
    def concurrency(self) -> int:
        """The value of the column ``concurrency``, which is 0 in an open loop."""
        return self.users or 0

    @property
    def is_open(self) -> bool:
        """Whether requests start by a schedule, whatever the endpoint does."""
        return self.rate_per_s is not None

    @property
    def is_known(self) -> bool:
        """Whether it is known."""
        return self.is_open or self.users is not None

    @property
    def level(self) -> float | None:
        """The bare number, for an axis."""
        return self.users if self.rate_per_s is None else self.rate_per_s

    @property
    def order(self) -> tuple[bool, float]:
        """A sort key: closed loops by users, then open ones by rate."""
        return self.is_open, -1 if self.level is None else self.level

    @property
    def text(self) -> str:
        """As it stands in a log: ``8 users``, ``5 requests/s``."""
        return f"{self.users} users" if self.rate_per_s is None else f"{self.rate_per_s:g} requests/s"

    @property
    def short(self) -> str:
        """As it stands on a point of a curve: ``8``, ``5/s``, ``?``."""
        if self.rate_per_s is not None:
            return f"{self.rate_per_s:g}/s"
        return "?" if self.users is None else str(self.users)

    @property
    def words(self) -> str:
        """As it stands in a sentence: ``concurrency 8``, ``5 requests/s``."""
        if self.rate_per_s is not None:
            return f"{self.rate_per_s:g} requests/s"
        return f"concurrency {'-' if self.users is None else self.users}"

    @property
    def tag(self) -> str:
        """As it stands in brackets: ``8 parallel``, ``5/s``."""
        return self.short if self.is_open else f"{'-' if self.users is None else self.users} parallel"

    @property
    def at(self) -> str:
        """The same after a name, with a space in front; "" where the file does not say."""
        return f" at {self.words}" if self.is_known else ""


def load_of(users: float | None, rate_per_s: float | None) -> StageLoad:
    """The load that a row, a stage or a summary states; NaN and ``None`` are unknown."""
    if rate_per_s is not None and rate_per_s > 0:
        return StageLoad(rate_per_s=float(rate_per_s))
    return StageLoad() if users is None or math.isnan(users) else StageLoad(int(users))


def _column(unit: str, meaning: str, type_: type = float, default: Any = None) -> Any:
    return field(default=default, metadata={"unit": unit, "meaning": meaning, "type": type_})


@dataclass(slots=True)
class RequestRecord:
    """One request, whatever became of it. ``None`` means "not measured" and is an empty cell in the CSV.

    Durations are seconds of one monotonic clock. t0 is the moment before the first byte of the request was handed
    to the socket; c1..cK are the arrival stamps of the content chunks; N is the number of output tokens.
    """

    request_id: str = _column("", "identifier of this request, unique over all workers of the run", str, "")
    run_id: str = _column("", "identifier of the run", str, "")
    worker: int = _column("", "rank of the worker that sent the request, from 0", int, 0)
    user_id: str = _column("", "the simulated user that sent it", str, "")
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
    window_tokens: float | None = _column("tokens", "its output tokens that arrived inside the MEASURE window")
    concurrency: int = _column(
        "users", "users of the stage that ran (ramp: that were asked for); 0 in an open loop", int, 0
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
        "tokens", "output tokens: the server's usage where that can be true, else the local tokenizer", int
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
    server_latency_s: float | None = _column("s", "latency as the server itself reports it")
    server_ttft_s: float | None = _column("s", "time to first token as the server itself reports it")
    finish_reason: str | None = _column("", "why the answer ended, in the server's words", str)
    http_status: int | None = _column("", "HTTP status of the response", int)
    retries: int = _column("count", "attempts beyond the first, when retries are on", int, 0)
    reconnects: int = _column(
        "count", "times that it was sent again on a new connection because a kept one died without an answer", int, 0
    )
    error_code: str | None = _column(
        "",
        "empty = success; else HTTP status, the provider's code, or connect, client_limit, timeout, reset, truncated, "
        "malformed, empty, aborted, cancelled, buffered",
        str,
    )
    error_message: str | None = _column("", "what went wrong, in words", str)
    stamp_source: str | None = _column("", "kernel or user: where the arrival stamps come from", str)
    cache_write_tokens: int | None = _column("tokens", "input tokens that the server wrote to its cache", int)
    latency_mode: str | None = _column("", "Bedrock's performanceConfig as it was really used", str)
    service_tier: str | None = _column("", "service tier that really served the request", str)
    events_per_token: float | None = _column("events/token", "chunks / output_tokens: a stream event is not a token")
    expected_answer: str | None = _column("", "what the answer was checked against; empty: it was not checked", str)
    answer_match: int | None = _column("0/1", "1 when a checked answer is right (numbers: by LLMPerf's rule)", int)
    answer_strict_match: int | None = _column("0/1", "1 when it is right by the stricter rule too", int)
    answer_excerpt: str | None = _column("", "how a checked answer begins: 200 characters, secrets taken out", str)
    rate_per_s: float | None = _column("requests/s", "target rate of the stage in an open loop; its concurrency is 0")
    held_s: float | None = _column("s", "of queue_s, the wait for a place among --llm-max-in-flight")
    corrected_ttft_s: float | None = _column("s", "open loop: c1 - intended send time, so that no delay is omitted")
    corrected_end_to_end_latency_s: float | None = _column("s", "open loop: end of stream - intended send time")
    conversation_id: str | None = _column("", "the conversation that the request is a turn of", str)
    turn: int | None = _column("", "which turn of the conversation, from 1", int)
    turns: int | None = _column("count", "turns that the conversation is meant to have", int)
    think_s: float | None = _column("s", "the user's pause before this turn; not part of queue_s")
    endpoint: str | None = _column("", "base URL of the request, without credentials and query", str)
    first_coalesced: int = _column("count", "content chunks that shared the read of the first one", int, 0)
    window_share: float | None = _column(
        "share", "fraction of its output that arrived inside the MEASURE window; without chunk times 1 or 0, by its end"
    )
    usage_output_tokens: int | None = _column(
        "tokens",
        "output tokens by the server's usage where that cannot be true; output_tokens is then the local tokenizer's",
        int,
    )
    burst_chunks: int = _column(
        "count", "chunks of a typical burst, when a gateway held the stream back, else 0: see metrics.md", int, 0
    )

    def correct_for_omission(self) -> None:
        """Latencies from when the request was meant to be sent: an open loop that falls behind omits nothing."""
        if self.queue_s is None:
            return
        if self.ttft_s is not None:
            self.corrected_ttft_s = self.queue_s + self.ttft_s
        if self.end_to_end_latency_s is not None:
            self.corrected_end_to_end_latency_s = self.queue_s + self.end_to_end_latency_s

    def count_in_window(self, share: float | None) -> None:
        """Say which fraction of the output arrived inside the MEASURE window (0 to 1; None: there was no output)."""
        self.window_share = share
        if share is not None and self.output_tokens is not None:
            self.window_tokens = share * self.output_tokens

    def row(self) -> list[Any]:
        """The values in the order of ``REQUEST_COLUMNS``: the packed form that travels between processes."""
        return [getattr(self, name) for name in _REQUEST_NAMES]

    @classmethod
    def from_row(cls, values: Iterable[Any]) -> RequestRecord:
        """The inverse of ``row``."""
        return cls(*values)

    @property
    def load(self) -> StageLoad:
        """The load of the request's stage, as far as it was known when the request started."""
        return load_of(self.concurrency, self.rate_per_s)

    @property
    def outcome(self) -> Outcome:
        """How the request ended."""
        return outcome_of(self.error_code, self.http_status)

    @property
    def ok(self) -> bool:
        """True when the request succeeded, also with a buffered answer."""
        return self.outcome is Outcome.OK

    @property
    def buffered(self) -> bool:
        """True when the complete answer arrived at once: a success whose times to the first tokens are unknown."""
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
    requests_aborted: int = _column("count", "measured requests cut by the end of the stage or of the test", int, 0)
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
    lag_p99_s: float | None = _column("s", "99th percentile of how late a short sleep woke up, worst process")
    queue_p99_s: float | None = _column(
        "s", "99th percentile of queue_s without held_s and connect_s, over the measured requests"
    )
    forced_start_share: float | None = _column("share", "starts that did not get a quiet event loop within 20 ms")
    coalesced_share: float | None = _column("share", "content chunks that shared a read with an earlier one")
    tokens_per_chunk: float | None = _column("tokens", "output tokens per content chunk")
    stamp_source: str | None = _column("", "kernel, user or mixed", str)
    health: str | None = _column(
        "", "ok, strained, disturbed or saturated: was the client itself the limit? Empty: too short to say", str
    )
    rate_per_s: float | None = _column("requests/s", "target rate in an open loop; its concurrency is 0")
    requests_held: int = _column("count", "measured requests that waited for a place among --llm-max-in-flight", int, 0)
    requests_dropped: int = _column("count", "measured requests that found no place and were dropped", int, 0)
    requests_cancelled: int = _column("count", "measured requests that the client gave up (--llm-cancel)", int, 0)
    first_coalesced_share: float | None = _column(
        "share", "answers whose first content chunk shared its read with later ones, which makes ttft_s too long"
    )
    load_actual: float | None = _column(
        "users",
        "time-weighted users in the window inside a call, in their own wait_time or in the pause after a failure; "
        "empty in an open loop",
    )
    started_rate_per_s: float | None = _column(
        "requests/s", "open loop: measured requests that were sent, less one, by the time from the first to the last"
    )
    failed_window_tokens: float = _column(
        "tokens", "output tokens inside the window of requests that failed or were cut or cancelled", float, 0.0
    )
    window_widened: int = _column(
        "0/1", "1: the window was shorter than half a mean latency and ends with the last measured request", int, 0
    )
    others_cpu_share: float | None = _column(
        "share", "CPU of programs other than the workers, of all cores of the machine, in the window"
    )
    steal_share: float | None = _column(
        "share", "CPU that the hypervisor gave to other guests, of all cores of the machine, in the window"
    )
    lag_own_p99_s: float | None = _column(
        "s", "like lag_p99_s, without the time in which the process was ready to run and had no CPU"
    )
    steadiness: str | None = _column(
        "", "unsteady: the queue (requests in flight, or latency) grew through the window; steady; empty: unknown", str
    )
    requests_resent: int = _column("count", "measured requests with reconnects: the server got them twice", int, 0)
    requests_client_limited: int = _column(
        "count", "measured requests that failed with client_limit: this machine had no descriptor or port left", int, 0
    )
    concurrency_asked: int | None = _column(
        "users", "users that were asked for, those of classes without LLM requests left out; empty in an open loop", int
    )
    users_actual: float | None = _column(
        "users", "time-weighted users in a request or between two, each worker's over its own window, added up"
    )
    users_ended: int | None = _column(
        "users", "users that ended by themselves during the stage, and those of workers that were lost in it", int
    )
    held_back_share: float | None = _column(
        "share", f"of the successful answers of {HELD_BACK_FROM} or more chunks, those with burst_chunks"
    )
    zero_gap_share: float | None = _column(
        "share", "of the chunk gaps in answers with burst_chunks, those that are zero (coalesced / gaps)"
    )

    @property
    def load(self) -> StageLoad:
        """The load that ran."""
        return load_of(self.concurrency, self.rate_per_s)

    @property
    def shortfall(self) -> Shortfall | None:
        """By how much less load ran than was asked for; None when it ran, or is not known."""
        return shortfall_of(
            self.concurrency_asked,
            self.concurrency,
            self.users_actual,
            self.load_actual,
            users_ended=self.users_ended,
            widened=bool(self.window_widened),
        )


LOAD_SHARE = 0.95
"""The share of the users or of the rate that was asked for from which on the load counts as there."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Less load ran than was asked for."""

    ran: float
    asked: int
    why: str
    users_missing: bool
    """Users did not come or ended; else all were there, and their requests waited for the client."""

    @property
    def short(self) -> str:
        """As a mark: ``5 of 8 users``."""
        return f"{self.ran:.3g} of {self.asked} users"

    @property
    def text(self) -> str:
        """In a sentence: ``only 5 of 8 users ran: the others did not come``."""
        if self.users_missing:
            return f"only {self.short} ran: {self.why}"
        return f"the load was that of {self.short}: {self.why}"


def shortfall_of(
    asked: float | None,
    users: float | None,
    users_actual: float | None,
    load_actual: float | None,
    *,
    users_ended: float | None,
    widened: bool,
) -> Shortfall | None:
    """Compare what ran with what was asked for. A window that was widened ends without load, so it is not judged."""
    if not users:
        return None
    if asked and users < LOAD_SHARE * asked:
        return Shortfall(users, int(asked), "the others did not come", users_missing=True)
    if users_ended and users_actual is not None and users_actual < LOAD_SHARE * users and not widened:
        return Shortfall(users_actual, int(users), "users ended during the stage", users_missing=True)
    if load_actual is not None and load_actual < LOAD_SHARE * users and not widened:
        why = "their requests waited for the client, or workers did not measure at the same time"
        return Shortfall(load_actual, int(users), why, users_missing=False)
    return None


@dataclass(slots=True)
class ConversationRecord:
    """One conversation: what its turns add up to, those outside of MEASURE too."""

    conversation_id: str = _column("", "as in the rows of its turns", str, "")
    user_id: str = _column("", "the simulated user that held it", str, "")
    model: str = _column("", "model name as sent", str, "")
    turns_planned: int = _column("count", "turns that it was meant to have", int, 0)
    turns_done: int = _column("count", "turns that were answered", int, 0)
    started_at: float | None = _column("unix s", "wall clock of t0 of its first turn")
    duration_s: float | None = _column("s", "end of its last turn - t0 of its first, pauses included")
    think_s: float | None = _column("s", "sum of the user's pauses before its turns")
    ttft_first_s: float | None = _column("s", "ttft_s of its first turn")
    ttft_last_s: float | None = _column("s", "ttft_s of the last turn that was sent")
    input_tokens: int | None = _column("tokens", "sum over its turns, each with the history before it", int)
    output_tokens: int | None = _column("tokens", "sum over its turns", int)
    cached_tokens: int | None = _column("tokens", "sum over its turns: taken from the server's cache", int)
    completed: int = _column("0/1", "1 when every planned turn was answered", int, 0)
    error_code: str | None = _column("", "what ended it early; empty also when the run ended between two turns", str)


def columns_of(record_type: type) -> tuple[Column, ...]:
    """The columns that a record type declares, in file order."""
    return tuple(
        Column(f.name, f.metadata["unit"], f.metadata["meaning"], f.metadata["type"])
        for f in dataclasses.fields(record_type)
    )


REQUEST_COLUMNS = columns_of(RequestRecord)
STAGE_COLUMNS = columns_of(StageRecord)
CONVERSATION_COLUMNS = columns_of(ConversationRecord)
_REQUEST_NAMES = tuple(column.name for column in REQUEST_COLUMNS)

# A spreadsheet takes a cell that starts with one of these for a formula; text from a server must never become one.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def cell(value: Any) -> Any:
    """A value as it is written into a CSV cell: ``None`` empty, floats short, text that looks like a formula quoted."""
    if value is None:
        return ""
    if type(value) is float:
        return format(value, ".9g") if abs(value) < 1e6 else format(value, ".6f")
    if type(value) is str:
        if "\r" in value:  # the csv module writes it without quotes, and takes it for the end of a line
            value = value.replace("\r", " ")
        if value.lstrip("'").startswith(_FORMULA_STARTS):  # also what would be read as if it had been quoted
            return "'" + value
    return value
