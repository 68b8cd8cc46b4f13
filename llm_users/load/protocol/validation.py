"""What load processes report, checked before the coordinator acts on it: it came over a network.

A message that is not what it should be is left out with one line in the log, and the run goes on; rows that were left
out are missing in the counts at the end, which says so (exit code 3).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from llm_users.load.protocol import messages
from llm_users.load.protocol.stage import StageTotals
from llm_users.record import REQUEST_COLUMNS, RequestRecord

logger = logging.getLogger(__name__)

MOST_ROWS = 20_000
"""Rows in one message; a sender makes batches of a thousand."""

MOST_OFFSETS = 1_000_000
"""Arrivals of one request: no endpoint gives an answer of more tokens."""

MOST_CHARACTERS = 16_384
"""A text in a row; the longest that is meant to be there is an error message of 500."""

NOTE_CHARACTERS = 2_000
MOST_BUCKETS = 20_000

_MOST_TEXTS = 100
_MOST_SPANS = 10_000  # a worker's window has one more each time that it is given requests of others
_MOST_COUNT = 2**53
_MOST_NUMBER = 1e15

Handler = Callable[[Any], None]
RankInRun = Callable[[str], tuple[str, int] | None]
OnStranger = Callable[[str, str, str, int], None]
Read = Callable[[Any, str], Any]


class BadMessage(ValueError):
    """A message that cannot be used; says what is wrong with it."""


class Gatekeeper:
    """Stands before the coordinator's handlers. Complains once per kind of message and load process.

    ``rank_in_run`` says which run a load process takes part in now, and its rank there; None: in none.
    ``on_stranger`` is called for a message that belongs to another run or another process, with the number of rows in
    it and the run that it names.
    """

    def __init__(self, rank_in_run: RankInRun, on_stranger: OnStranger = lambda *_: None) -> None:
        self._rank_in_run = rank_in_run
        self._on_stranger = on_stranger
        self._told: set[tuple[str, str]] = set()

    def listener(self, kind: str, handler: Handler) -> Any:
        """A handler of checked data as Locust calls it."""
        fields = _FIELDS.get(kind, _SENDER)

        def on_message(environment: Any, msg: Any, **_kwargs: Any) -> None:  # noqa: ARG001 - Locust's signature
            try:
                checked = {name: read(msg.data, name) for name, read in fields.items()}
            except BadMessage as error:
                self._complain(kind, msg.node_id, str(error))
                return
            if self._rank_in_run(msg.node_id) != (checked["run"], checked["worker"]):
                rows = len(checked["rows"]) if kind == messages.ROWS and isinstance(checked["rows"], list) else 0
                self._on_stranger(kind, msg.node_id, checked["run"], rows)
                return
            handler(self.rows(checked["rows"], msg.node_id) if kind == messages.ROWS else {**msg.data, **checked})

        return on_message

    def rows(self, rows: Any, sender: Any) -> list[Any]:
        """The packed rows that are valid and come from the sender's part in the present run."""
        if not isinstance(rows, list | tuple) or len(rows) > MOST_ROWS:
            self._complain(messages.ROWS, sender, f"it must be a list of at most {MOST_ROWS} rows")
            return []
        problem = foreign = ""
        foreigners = 0
        good = []
        rank_in_run = self._rank_in_run(sender)
        for packed in rows:
            found = row_problem(packed)
            if found is not None:
                problem = problem or found
            elif (packed[0][_RUN], packed[0][_WORKER]) != rank_in_run:
                foreign, foreigners = packed[0][_RUN], foreigners + 1
            else:
                good.append(packed)
        if problem:
            bad = len(rows) - len(good) - foreigners
            self._complain(messages.ROWS, sender, f"{bad} of its {len(rows)} rows are none: {problem}")
        if foreigners:
            self._on_stranger(messages.ROWS, sender, foreign, foreigners)
        return good

    def _complain(self, kind: str, sender: Any, problem: str) -> None:
        who = str(sender)[:80]
        if (kind, who) not in self._told and len(self._told) < MOST_ROWS:
            self._told.add((kind, who))
            logger.warning(
                "a message %s from load process %s was left out, and others like it will be: %s", kind, who, problem
            )


def row_problem(packed: Any) -> str | None:
    """What is wrong with ``[row, offsets]``; None when nothing is. Some 5 us."""
    if not isinstance(packed, list | tuple) or len(packed) != 2:
        return "no pair of a row and its arrivals"
    row, offsets_s = packed
    if not isinstance(row, list | tuple) or len(row) != len(_ROW):
        return f"not {len(_ROW)} values (do all load processes have the same version of locust-llm?)"
    for value, (name, kind, may_be_empty) in zip(row, _ROW, strict=True):
        if value is None:
            if not may_be_empty:
                return f"{name} is empty"
        elif kind is str:
            if type(value) is not str or len(value) > MOST_CHARACTERS:
                return f"{name} must be a text of at most {MOST_CHARACTERS} characters"
        elif kind is int:
            if type(value) is not int or not 0 <= value <= _MOST_COUNT:
                return f"{name} must be a count"
        elif not _is_number(value):
            return f"{name} must be a number"
    if not isinstance(offsets_s, list | tuple) or len(offsets_s) > MOST_OFFSETS or not all(map(_is_number, offsets_s)):
        return "its arrivals are no list of seconds"
    return None


_RUN, _WORKER = (REQUEST_COLUMNS.index(c) for c in REQUEST_COLUMNS if c.name in ("run_id", "worker"))
_ROW = tuple((f.name, f.metadata["type"], f.default is None) for f in dataclasses.fields(RequestRecord))


def _is_number(value: Any) -> bool:
    return type(value) in (float, int) and -_MOST_NUMBER < value < _MOST_NUMBER


def _field(data: Any, name: str) -> Any:
    if not isinstance(data, dict):
        raise BadMessage("it must be a table of fields")
    if name not in data:
        raise BadMessage(f"it has no field {name}")
    return data[name]


def _count(data: Any, name: str) -> int:
    value = _field(data, name)
    if type(value) is not int or not 0 <= value <= _MOST_COUNT:
        raise BadMessage(f"{name} must be a count")
    return value


def _yes_or_no(data: Any, name: str) -> bool:
    value = _field(data, name)
    if type(value) is not bool:
        raise BadMessage(f"{name} must be true or false")
    return value


def _number(data: Any, name: str) -> float:
    value = _field(data, name)
    if not _is_number(value):
        raise BadMessage(f"{name} must be a number")
    return float(value)


def _text(data: Any, name: str) -> str:
    """A text; one that is too long is cut."""
    value = _field(data, name)
    if not isinstance(value, str):
        raise BadMessage(f"{name} must be a text")
    return value if len(value) <= NOTE_CHARACTERS else value[: NOTE_CHARACTERS - 3] + "..."


def _histogram(data: Any, name: str) -> dict[int, int]:
    counts = _field(data, name)
    if not isinstance(counts, dict) or len(counts) > MOST_BUCKETS:
        raise BadMessage(f"{name} must be a histogram")
    for bucket, count in counts.items():
        if type(bucket) is not int or not -1 <= bucket <= MOST_BUCKETS:
            raise BadMessage(f"{name} has a bucket that cannot be")
        if type(count) is not int or not 0 <= count <= _MOST_COUNT:
            raise BadMessage(f"{name} has a count that cannot be")
    return counts


def _or_none(read: Read) -> Read:
    return lambda data, name: None if _field(data, name) is None else read(data, name)


def _texts(data: Any, name: str) -> list[str]:
    """A short list of texts, such as the files of a spool."""
    value = _field(data, name)
    if not isinstance(value, list | tuple) or len(value) > _MOST_TEXTS:
        raise BadMessage(f"{name} must be a list of at most {_MOST_TEXTS} texts")
    return [_text({name: each}, name) for each in value]


def _spans(data: Any, name: str) -> list[list[float]]:
    """Starts and lengths of a few stretches of time."""
    value = _field(data, name)
    if not isinstance(value, list | tuple) or len(value) > _MOST_SPANS:
        raise BadMessage(f"{name} must be a list of at most {_MOST_SPANS} spans")
    for span in value:
        if not isinstance(span, list | tuple) or len(span) != 2 or not all(map(_is_number, span)) or span[1] < 0:
            raise BadMessage(f"{name} has a span without a start and a length")
    return [[float(start_s), float(length_s)] for start_s, length_s in value]


_READ_AS: dict[str, Read] = {
    "int": _count,
    "float": _number,
    "str": _text,
    "dict[int, int]": _histogram,
    "list[list[float]]": _spans,
}


def _reader(kind: str) -> Read:
    name, _, none = kind.partition(" | ")
    return _or_none(_READ_AS[name]) if none else _READ_AS[name]


# Kind of message -> how its fields are read. Fields that are not named here are handed on as they are.
_FIELDS: dict[str, dict[str, Read]] = {
    messages.PREPARING: dict.fromkeys(("stage", "built", "wanted"), _count),
    messages.READY: {
        **dict.fromkeys(("stage", "waiting", "all_users_came"), _count),
        "no_users_reason": _or_none(_text),
    },
    messages.COUNT: {
        **dict.fromkeys(("number", "stage", "started", "measured", "total", "held", "at"), _count),
        **dict.fromkeys(("gone", "over"), _yes_or_no),
        **dict.fromkeys(("waiting", "quota"), _or_none(_count)),
        "shards": _texts,
        "counts": _or_none(_text),
        "host": _text,
    },
    messages.BACK: dict.fromkeys(("number", "stage", "measured"), _count),
    messages.DONE: {f.name: _reader(str(f.type)) for f in dataclasses.fields(StageTotals)},
    messages.FINAL: {"sent": _count},
    messages.NOTE: {"text": _text},
    messages.REFUSED: {"reason": _text},
    messages.ROWS: {"rows": _field},
}
_SENDER: dict[str, Read] = {"run": _text, "worker": _count}
for _each in _FIELDS.values():
    _each |= _SENDER

PROTOCOL = messages.identity(
    [column.name for column in REQUEST_COLUMNS] + [f"{kind}.{name}" for kind in _FIELDS for name in _FIELDS[kind]]
)
"""Differs between versions whose rows or messages differ."""
