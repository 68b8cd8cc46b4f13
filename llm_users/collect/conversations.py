"""Combines the rows of turns into one row per conversation, in the process that writes the rows.

Rows can arrive in any order, but only once. The memory depends on the number of open conversations, not on the total
number of conversations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from llm_users.record import COL, ConversationRecord, RequestRecord

MOST_OPEN = 50_000
"""Maximum number of open conversations, about 30 MB; above it, the oldest conversation is written incomplete."""


class _Turn(NamedTuple):
    """The values that are kept from the row of a turn."""

    number: int
    ok: bool
    started_at: float | None
    ended_at: float | None
    ttft_s: float | None


class _OpenConversation:
    """An open conversation, of which rows are still missing."""

    def __init__(self, record: RequestRecord) -> None:
        self.row = ConversationRecord(
            conversation_id=record.conversation_id or "",
            user_id=record.user_id,
            model=record.model,
            turns_planned=record.turns or 0,
        )
        self._turns_added = 0
        self._first: _Turn | None = None
        self._last: _Turn | None = None

    def add(self, record: RequestRecord) -> bool:
        """Add one turn; return True when the conversation is complete."""
        duration_s = record.end_to_end_latency_s if record.end_to_end_latency_s is not None else record.connect_s
        ended_at = None if record.started_at is None else record.started_at + (duration_s or 0.0)
        row, turn = self.row, _Turn(record.turn or 0, record.ok, record.started_at, ended_at, record.ttft_s)
        self._turns_added += 1
        row.turns_done += turn.ok
        for column in (COL.think_s, COL.input_tokens, COL.output_tokens, COL.cached_tokens):
            value = getattr(record, column)
            if value is not None:  # the sum of the known values; None when no value is known
                setattr(row, column, (getattr(row, column) or 0) + value)
        if not turn.ok:
            row.error_code = record.error_code
        if self._first is None or turn.number < self._first.number:
            self._first = turn
        if self._last is None or turn.number > self._last.number:
            self._last = turn
        is_end = not self._last.ok or self._last.number >= row.turns_planned
        return is_end and self._turns_added == self._last.number

    def finish(self) -> ConversationRecord:
        row, first, last = self.row, self._first, self._last
        if first is not None and last is not None:
            row.started_at, row.ttft_first_s, row.ttft_last_s = first.started_at, first.ttft_s, last.ttft_s
            if first.started_at is not None and last.ended_at is not None:
                row.duration_s = last.ended_at - first.started_at
        row.completed = int(row.turns_done == row.turns_planned)
        return row


class ConversationBook:
    """Adds up turns by conversation as their rows arrive."""

    def __init__(self, most_open: int = MOST_OPEN) -> None:
        self._open: dict[str, _OpenConversation] = {}
        self._most_open = most_open

    def add(self, record: RequestRecord) -> ConversationRecord | None:
        """Add one row; return the conversation that it completes, or None."""
        name = record.conversation_id
        if name is None or record.turn is None:
            return None
        conversation = self._open.get(name)
        if conversation is None:
            conversation = self._open[name] = _OpenConversation(record)
        if conversation.add(record):
            return self._open.pop(name).finish()
        if len(self._open) > self._most_open:
            return self._open.pop(next(iter(self._open))).finish()
        return None

    def end(self) -> Iterable[ConversationRecord]:
        """End the run; return the conversations of which some turns were never sent."""
        incomplete, self._open = self._open, {}
        return [conversation.finish() for conversation in incomplete.values()]
