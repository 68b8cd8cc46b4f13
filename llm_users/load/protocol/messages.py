"""The messages between the coordinator and its workers. The only process of a local run sends them to itself.

Each message is one class: its name on the wire (``kind``), its fields and their bounds. A message of a run names the
run; a message of a worker also names the worker's rank, and the coordinator rejects it when the process that sent it
does not have that rank in that run. A message that does not match its class is ignored, with one line in the log for
each kind and sender, and the run continues.

A run with one stage, in the order of time::

    coordinator                                  worker
        | <-------------- HELLO ---------------- |   in Locust's own report, every 0.5 s until WELCOME arrives
        | --------------- WELCOME -------------> |   with a reason if the worker is rejected: it then exits
        | --------------- RUN -----------------> |   rank, part of the prompts, spool; the options come with Locust's
        | --------------- STAGE ---------------> |     test start
        | <-------------- PREPARING ------------ |   once a second while the worker builds prompts
        | <-------------- READY ---------------- |   how many users wait at the admission gate; again when more come
        | --------------- GO ------------------> |   when the users of all workers are there: the share of each worker
        | <-------------- COUNT ---------------- |   once a second from RUN on: what was started, where the rows are
        | --------------- ACK -----------------> |   each one lets the worker start requests for LEASE_S
        | <-------------- ROWS ----------------- |   in Locust's report every 3 s, and in messages at the stage's end
        | <-------------- LIVE ----------------- |   once a second when the run has a web interface
        | --------------- QUOTA, ARRIVALS -----> |   when the share has changed because another worker was lost
        | --------------- END -----------------> |   only when something ends the stage early
        | <-------------- DONE ----------------- |   the totals, once no request of the stage is in flight
        | --------------- FINISH --------------> |   requests in flight may end for ``grace_s``
        | <-------------- FINAL ---------------- |   how many rows the worker has sent in all
        | --------------- RESEND --------------> |   only when rows are missing: the worker sends those of its spool
        | --------------- SETTLED -------------> |   all rows are on the coordinator's disk: the spool can go

At any time a worker can send NOTE (a text for the manifest) or REFUSED (it cannot take part, so the run ends).

What happens on silence:

- A worker without an ACK starts nothing from ``LEASE_S`` after it sent the last COUNT that was acknowledged. It then
  sends BACK once a second, and continues when a QUOTA with the number of its BACK arrives. After ``WAIT_S`` it ends.
- The coordinator counts a worker as lost ``LEASE_MARGIN_S`` later, and reassigns the requests that the worker has not
  started to the others. It readmits the worker when the worker sends BACK. After ``WAIT_S`` it gives the share up; when
  no worker is present for that long, the run ends.
- READY, COUNT and FINISH repeat, so that one lost message has no effect: a COUNT says which stage the worker has
  received and whether it has started, and the coordinator sends STAGE, GO or END again if the worker is behind.
- A worker of a run that the coordinator does not know gets LEAVE: it ends the run and reports to Locust as ready again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import logging
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import Meta

from llm_users.load.protocol.arrivals import ArrivalShare
from llm_users.load.protocol.stage import (
    IDLE,
    MOST_BUCKETS,
    Bucket,
    Number,
    Phase,
    Seconds,
    StagePlan,
    StageTotals,
    Whole,
)  # fmt: skip
from llm_users.record import REQUEST_COLUMNS, RequestRecord

logger = logging.getLogger(__name__)

LEASE_S = 5.0
"""How long a worker may start requests after it sent the last COUNT that was acknowledged."""

LEASE_MARGIN_S = 0.5
"""How long after the end of the lease the coordinator reassigns the share of a silent worker."""

WAIT_S = 60.0
"""How long each side waits for the other to come back."""

TEXT_CHARACTERS = 2_000
"""Longer texts in a message are cut, so that a long error message does not make the message invalid."""

MOST_ROWS = 20_000
"""Maximum rows in one message. A sender makes batches of a thousand."""

MOST_OFFSETS = 1_000_000
"""Maximum arrivals of one request. No endpoint returns an answer with more tokens."""

MOST_CHARACTERS = 16_384
"""Maximum characters of a text in a row. The longest intended text is an error message of 500."""

_MOST_PARTS = 100_000
_MOST_COMPLAINTS = 20_000

RunId = Annotated[str, Meta(min_length=1, max_length=64)]
_Parts = Annotated[list[ArrivalShare], Meta(max_length=_MOST_PARTS)]
_Path = Annotated[str, Meta(max_length=4096)]  # PATH_MAX of Linux


def _cut_texts(struct: msgspec.Struct) -> None:
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, str) and len(value) > TEXT_CHARACTERS:
            msgspec.structs.force_setattr(struct, name, value[: TEXT_CHARACTERS - 3] + "...")


class Message(msgspec.Struct, frozen=True):
    """The base class of all messages. Texts are cut to ``TEXT_CHARACTERS``."""

    kind: ClassVar[str]
    """The name of the message on the wire: that of its class, such as ``llm_ready`` for ``Ready``."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        cls.kind = f"llm_{cls.__name__.lower()}"

    def __post_init__(self) -> None:
        _cut_texts(self)

    def encoded(self) -> dict[str, Any]:
        """Return the data of the message in types that msgpack supports."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


class RunMessage(Message, frozen=True):
    """A message that belongs to a run."""

    run: RunId


class WorkerMessage(RunMessage, frozen=True):
    """A message from a worker to the coordinator. ``worker`` is the worker's rank in the run."""

    worker: Whole


# From the coordinator to workers.


class Welcome(Message, frozen=True, kw_only=True):
    """The answer to HELLO."""

    refused: str | None = None
    """Why the worker cannot take part, or None if it can."""


class Run(RunMessage, frozen=True, kw_only=True):
    """Start of a run."""

    run_key: str
    worker: Whole
    """The rank of the worker in this run."""
    workers: Whole
    live: bool
    """Whether the worker sends LIVE."""
    withhold_keys: bool
    """Whether keys and other values of the worker's environment must not be sent to the endpoint."""
    distributed: bool
    spool: _Path | None
    """The folder for the spool. None: a temporary folder of the worker."""
    prefix: _Path
    """The prefix of the run's files on the coordinator's machine."""
    rows_per_s: Seconds | None
    """Maximum rate of rows that the worker sends, or None for no limit. The worker keeps further rows in its spool."""
    first_prompt: Whole
    prompt_step: Whole


class Stage(RunMessage, frozen=True, kw_only=True):
    """Announcement of a stage."""

    plan: StagePlan


class Go(RunMessage, frozen=True, kw_only=True):
    """Start of the announced stage."""

    stage: Whole
    quota: Whole | None
    """Measured requests of the worker's share. None: no limit."""
    users: Whole | None = None
    """Users of the stage over all workers; None in an open loop."""
    lead_s: Number = 0.0
    """Open loop: the origin of the arrivals, in seconds from now, so the clocks need not agree."""
    parts: _Parts = []
    """Open loop: the worker's shares of the schedule."""
    max_in_flight: Whole | None = None


class ArrivalsChanged(RunMessage, frozen=True, kw_only=True):
    """The worker's new shares of an open loop's schedule."""

    stage: Whole
    parts: _Parts
    max_in_flight: Whole | None


class Quota(RunMessage, frozen=True, kw_only=True):
    """The worker's new share of the stage. With the number of a BACK, the worker may also continue."""

    stage: Whole
    quota: Whole | None
    number: Whole | None


class Ack(RunMessage, frozen=True, kw_only=True):
    """The COUNT with this number has arrived."""

    number: Whole


class End(RunMessage, frozen=True, kw_only=True):
    """Start nothing more in the stage."""

    stage: Whole


class Finish(RunMessage, frozen=True, kw_only=True):
    """End of the run. Requests in flight may end within ``grace_s``, or are cut off immediately (``abort``)."""

    abort: bool
    grace_s: Seconds


class Resend(RunMessage, frozen=True):
    """Rows are missing: send the rows in the spool."""


class Settled(RunMessage, frozen=True):
    """All rows of this worker are on the coordinator's disk."""


class Leave(RunMessage, frozen=True):
    """The coordinator does not know this run of the worker. The worker ends it and reports as ready again."""


# From workers to the coordinator.


class Hello(Message, frozen=True, kw_only=True):
    """A worker listens. The message is an entry of Locust's report; a master without this package ignores it."""

    version: str
    protocol: str


class Preparing(WorkerMessage, frozen=True, kw_only=True):
    """The worker builds prompts for the stage: how many are built, and how many it needs before it is ready."""

    stage: Whole
    built: Whole
    wanted: Whole


class Ready(WorkerMessage, frozen=True, kw_only=True):
    """The prompts are built, and ``waiting`` users are at the admission gate."""

    stage: Whole
    waiting: Whole
    all_users_came: bool
    """Whether no further user will come."""
    no_users_reason: str | None
    """Why no user will come, or None while one may."""


class Rows(WorkerMessage, frozen=True, kw_only=True):
    """Rows of requests that have ended: pairs of ``RequestRecord.row()`` and the arrivals of the chunks in seconds."""

    rows: Annotated[list[Any], Meta(max_length=MOST_ROWS)]

    def encoded(self) -> dict[str, Any]:
        """Return the data without copying the rows, of which there may be a thousand."""
        return {"run": self.run, "worker": self.worker, "rows": self.rows}


class Count(WorkerMessage, frozen=True, kw_only=True):
    """What the worker has started, where its rows are, and its position in the run. The answer is ACK."""

    number: Whole
    stage: Whole
    """The stage of the last request that it started. ``started`` and ``measured`` refer to this stage."""
    started: Whole
    measured: Whole
    total: Whole
    """Requests that the worker has started in the run."""
    counts: _Path | None
    """The file with its counts, or None if they are only in memory."""
    held: Whole
    """Rows that are only in its spool."""
    shards: Annotated[list[_Path], Meta(max_length=100)]
    """The files of its spool."""
    host: str
    known_stage: Whole
    """The last stage that the worker has received. The fields below refer to this stage."""
    admitted: bool
    """Whether GO has arrived."""
    waiting: Whole | None
    """Users at the admission gate; None while it builds prompts, and after GO."""
    quota: Whole | None
    over: bool
    """Whether the worker has nothing more to do in the stage."""


class Back(WorkerMessage, frozen=True, kw_only=True):
    """The worker has had no answer for a while and waits for the QUOTA with this number."""

    number: Whole
    stage: Whole
    measured: Whole


_LiveCount = Annotated[int, Meta(ge=0, le=10**9)]
_LiveNumber = Annotated[float, Meta(ge=0, le=10**9)]
_Found = Annotated[int, Meta(gt=0, le=10**9)]
_StageNumber = Annotated[int, Meta(ge=-1, le=10**6)]
_Histogram = Annotated[dict[Bucket, _Found], Meta(max_length=MOST_BUCKETS)]


class LiveMetrics(msgspec.Struct, frozen=True):
    """What one worker did since its last live metrics. Histograms are counts of a ``DurationHistogram``."""

    stage: _LiveCount = 0
    phase: Phase = IDLE
    measured_s: _LiveNumber | None = None  # time since it began to measure in the stage
    in_flight: _LiveCount = 0
    requests: _LiveCount = 0  # requests that ended, including failed and excluding aborted ones
    failed: _LiveCount = 0
    throttled: _LiveCount = 0
    tokens: _LiveNumber = 0.0  # tokens that arrived: chunks times the mean tokens per chunk so far
    cpu: _LiveNumber = 0.0  # share of a core
    done: Annotated[dict[_StageNumber, _Found], Meta(max_length=16)] = {}  # measured requests that ended, by stage
    ttft: _Histogram = {}
    gap: _Histogram = {}
    tpot: _Histogram = {}
    lag: _Histogram = {}
    lag_own: _Histogram = {}  # without the wait for a CPU; empty: unknown


class Live(WorkerMessage, frozen=True, kw_only=True):
    """What the worker did in the last second, if the run has a web interface."""

    metrics: LiveMetrics


class Done(WorkerMessage, frozen=True, kw_only=True):
    """End of the worker's part of a stage."""

    totals: StageTotals

    def __post_init__(self) -> None:
        if self.totals.worker != self.worker:
            raise ValueError(f"the totals belong to worker {self.totals.worker}")
        _cut_texts(self.totals)


class Final(WorkerMessage, frozen=True, kw_only=True):
    """End of the run on this worker, which has sent this number of rows."""

    sent: Whole


class Note(WorkerMessage, frozen=True, kw_only=True):
    """A text for the log and the manifest. ``is_warning``: whether the log has it as a warning."""

    text: str
    is_warning: bool = True


class Refused(WorkerMessage, frozen=True, kw_only=True):
    """The worker cannot take part in the run."""

    reason: str


MESSAGES: tuple[type[Message], ...] = (
    Hello, Welcome, Run, Stage, Preparing, Ready, Go, Count, Ack, Rows, Live, Back, Quota, ArrivalsChanged, End, Done,
    Finish, Final, Resend, Settled, Leave, Note, Refused,
)  # fmt: skip


def _identity() -> str:
    structs: dict[str, type[msgspec.Struct]] = {message_type.kind: message_type for message_type in MESSAGES}
    structs |= {struct.__name__: struct for struct in (StagePlan, StageTotals, LiveMetrics)}
    fields = [column.name for column in REQUEST_COLUMNS]
    for name, struct in structs.items():
        for base in struct.__mro__:
            fields += [f"{name}.{field}: {type_}" for field, type_ in inspect.get_annotations(base).items()]
    return hashlib.sha256("\n".join(fields).encode()).hexdigest()[:12]


PROTOCOL = _identity()
"""A short text that differs between versions whose rows or messages have different fields."""


# Rows. ``RequestRecord`` declares the columns.

_COLUMN_TYPES: dict[type, Any] = {int: Whole, float: Number, str: Annotated[str, Meta(max_length=MOST_CHARACTERS)]}
_COLUMNS = dataclasses.fields(RequestRecord)
_Row = msgspec.defstruct(
    "_Row",
    [
        (column.name, type_ | None if column.default is None else type_)
        for column in _COLUMNS
        for type_ in [_COLUMN_TYPES[column.metadata["type"]]]
    ],
    array_like=True,
    forbid_unknown_fields=True,
    gc=False,
)


class _PackedRow(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    row: _Row  # type: ignore[valid-type]
    offsets_s: Annotated[list[Number], Meta(max_length=MOST_OFFSETS)]


_RUN, _WORKER = (REQUEST_COLUMNS.index(c) for c in REQUEST_COLUMNS if c.name in ("run_id", "worker"))


def row_problem(packed: Any) -> str | None:
    """Return what is wrong with ``[row, offsets_s]``, or None. Takes about 1 us for a row without arrivals."""
    try:
        msgspec.convert(packed, _PackedRow)
    except msgspec.ValidationError as error:
        text = re.sub(r"`\$\[0\]\[(\d+)\]`", lambda match: _COLUMNS[int(match[1])].name, str(error))
        return text.replace("`$[0]`", "the row").replace("`$[1]", "`arrivals")
    return None


# Received messages.

MessageT = TypeVar("MessageT", bound=Message)
RankInRun = Callable[[str], tuple[str, int] | None]
OnForeign = Callable[[str, str, str, int], None]


class Inbox:
    """Converts data from Locust into messages and passes them to handlers.

    Invalid data is ignored, with one line in the log for each kind and sender.
    """

    def __init__(self) -> None:
        self._complained: set[tuple[str, str]] = set()

    def listener(self, message_type: type[MessageT], handler: Callable[[MessageT], None]) -> Any:
        """Return the handler with the signature that Locust calls, with ``environment`` and ``msg``."""

        def on_message(environment: Any, msg: Any, **_kwargs: Any) -> None:  # noqa: ARG001 - Locust's signature
            message = self.read(message_type, msg.data, msg.node_id)
            if message is not None:
                handler(message)

        return on_message

    def read(self, message_type: type[MessageT], data: Any, sender: Any) -> MessageT | None:
        """Return the message in this data, or None if it is invalid."""
        try:
            return msgspec.convert(data, message_type)
        except msgspec.ValidationError as error:
            self.complain(message_type.kind, sender, str(error))
            return None

    def complain(self, kind: str, sender: Any, problem: str) -> None:
        """Log an invalid message, once for each kind and sender."""
        who = str(sender)[:80]
        if (kind, who) not in self._complained and len(self._complained) < _MOST_COMPLAINTS:
            self._complained.add((kind, who))
            logger.warning(
                "an invalid message %s from worker %s is ignored, as are further ones: %s", kind, who, problem
            )


class CoordinatorInbox(Inbox):
    """The inbox of the coordinator, which also checks that the sender takes part in the present run.

    ``rank_in_run`` returns which run a worker takes part in now and its rank there, or None. ``on_foreign`` is called
    with kind, sender, run and number of rows for a message of another run or another worker.
    """

    def __init__(self, rank_in_run: RankInRun, on_foreign: OnForeign = lambda *_: None) -> None:
        super().__init__()
        self._rank_in_run = rank_in_run
        self._on_foreign = on_foreign

    def read(self, message_type: type[MessageT], data: Any, sender: Any) -> MessageT | None:
        """Return the message, or None. ``Rows`` contain only the valid rows of this worker in this run."""
        message = super().read(message_type, data, sender)
        if not isinstance(message, WorkerMessage):
            return message
        if self._rank_in_run(sender) != (message.run, message.worker):
            self._on_foreign(message.kind, sender, message.run, len(message.rows) if isinstance(message, Rows) else 0)
            return None
        if isinstance(message, Rows):
            rows = self._valid_rows(message, sender)
            return msgspec.structs.replace(message, rows=rows)
        return message

    def _valid_rows(self, message: Rows, sender: Any) -> list[Any]:
        problem = foreign_run = ""
        foreign = 0
        valid = []
        identity = (message.run, message.worker)
        for packed in message.rows:
            row_error = row_problem(packed)
            if row_error is not None:
                problem = problem or row_error
            elif (packed[0][_RUN], packed[0][_WORKER]) != identity:
                foreign_run, foreign = packed[0][_RUN], foreign + 1
            else:
                valid.append(packed)
        if problem:
            invalid = len(message.rows) - len(valid) - foreign
            self.complain(message.kind, sender, f"{invalid} of its {len(message.rows)} rows are invalid: {problem}")
        if foreign:
            self._on_foreign(message.kind, sender, foreign_run, foreign)
        return valid
