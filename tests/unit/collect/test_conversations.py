"""Conversations are added up from the rows of their turns."""

from __future__ import annotations

from typing import Any

from llm_users.collect.conversations import ConversationBook
from llm_users.record import RequestRecord


def test_conversations_are_added_up_in_any_order_and_in_bounded_memory() -> None:
    def row(name: str, turn: int, **more: Any) -> RequestRecord:
        at = {"started_at": 100.0 + turn, "end_to_end_latency_s": 0.5, "output_tokens": 10}
        return RequestRecord(conversation_id=name, turn=turn, turns=3, user_id="0-0", **{**at, **more})

    book = ConversationBook(most_open=2)
    assert book.add(row("a", 3)) is None
    assert book.add(row("a", 1, ttft_s=0.25)) is None
    done = book.add(row("a", 2))
    assert done is not None
    assert (done.completed, done.turns_done, done.output_tokens, done.duration_s) == (1, 3, 30, 2.5)
    assert (done.ttft_first_s, done.cached_tokens) == (0.25, None)
    assert book.add(row("b", 1)) is None
    failed = book.add(row("b", 2, error_code="timeout"))
    assert failed is not None
    assert (failed.completed, failed.turns_done, failed.error_code) == (0, 1, "timeout")
    assert book.add(RequestRecord()) is None
    assert [book.add(row(name, 1)) for name in "cd"] == [None, None]
    evicted = book.add(row("e", 1))
    assert evicted is not None
    assert evicted.conversation_id == "c"
    assert [each.conversation_id for each in book.end()] == ["d", "e"]
