"""From the rows of turns to one row for each conversation, where the rows are written.

Rows may come in any order, each once. Memory depends on how many conversations are under way, not on how many
there were.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from llm_users.record import ConversationRecord, RequestRecord

MOST_OPEN = 50_000
"""Conversations under way at most, about 30 MB; beyond that the one begun first is written as it is."""


class _Turn(NamedTuple):
    """What is kept of a turn's row."""

    number: int
    ok: bool
    started_at: float | None
    ended_at: float | None
    ttft_s: float | None


class _Talk:
    """A conversation under way."""

    def __init__(self, record: RequestRecord) -> None:
        self.row = ConversationRecord(
            conversation_id=record.conversation_id or "",
            user_id=record.user_id,
            model=record.model,
            turns_planned=record.turns or 0,
        )
        self._seen = 0
        self._first: _Turn | None = None
        self._last: _Turn | None = None

    def add(self, record: RequestRecord) -> bool:
        """One turn; True when nothing of the conversation is missing any more."""
        row, turn = self.row, _turn_of(record)
        self._seen += 1
        row.turns_done += turn.ok
        row.think_s = _sum(row.think_s, record.think_s)
        row.input_tokens = _sum(row.input_tokens, record.input_tokens)
        row.output_tokens = _sum(row.output_tokens, record.output_tokens)
        row.cached_tokens = _sum(row.cached_tokens, record.cached_tokens)
        if not turn.ok:
            row.error_code = record.error_code
        if self._first is None or turn.number < self._first.number:
            self._first = turn
        if self._last is None or turn.number > self._last.number:
            self._last = turn
        is_end = not self._last.ok or self._last.number >= row.turns_planned
        return is_end and self._seen == self._last.number

    def finish(self) -> ConversationRecord:
        row, first, last = self.row, self._first, self._last
        if first is not None and last is not None:
            row.started_at, row.ttft_first_s, row.ttft_last_s = first.started_at, first.ttft_s, last.ttft_s
            if first.started_at is not None and last.ended_at is not None:
                row.duration_s = last.ended_at - first.started_at
        row.completed = int(row.turns_done == row.turns_planned)
        return row


class ConversationBook:
    """Adds up turns by conversation as their rows come."""

    def __init__(self, most_open: int = MOST_OPEN) -> None:
        self._open: dict[str, _Talk] = {}
        self._most_open = most_open

    def add(self, record: RequestRecord) -> ConversationRecord | None:
        """One row; returns a conversation that is over now."""
        name = record.conversation_id
        if name is None or record.turn is None:
            return None
        talk = self._open.get(name)
        if talk is None:
            talk = self._open[name] = _Talk(record)
        if talk.add(record):
            return self._open.pop(name).finish()
        if len(self._open) > self._most_open:
            return self._open.pop(next(iter(self._open))).finish()
        return None

    def end(self) -> Iterable[ConversationRecord]:
        """The run is over: those whose rest was never sent."""
        left, self._open = self._open, {}
        return [talk.finish() for talk in left.values()]


def _turn_of(record: RequestRecord) -> _Turn:
    lasted_s = record.end_to_end_latency_s if record.end_to_end_latency_s is not None else record.connect_s
    ended_at = None if record.started_at is None else record.started_at + (lasted_s or 0.0)
    return _Turn(record.turn or 0, record.ok, record.started_at, ended_at, record.ttft_s)


def _sum(total: Any, value: Any) -> Any:
    """Of what is known; None while nothing is."""
    if value is None:
        return total
    return value if total is None else total + value
