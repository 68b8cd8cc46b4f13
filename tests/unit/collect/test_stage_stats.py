"""The stage's row, from the rows of its requests."""

from __future__ import annotations

from llm_users.collect.stage_stats import StageBook
from llm_users.record import RequestRecord, StageLoad


def test_chunks_that_a_proxy_put_together_are_not_held_against_the_client() -> None:
    """Half of the answers were buffered: all their chunks shared a read, the others' none."""
    book = StageBook()
    for number in range(8):
        buffered = {"error_code": "buffered", "coalesced": 49, "first_coalesced": 49} if number % 2 else {}
        book.add(RequestRecord(stage=1, measured=1, chunks=50, output_tokens=50, **buffered))  # type: ignore[arg-type]
    stage = book.record(1, StageLoad(4), [])
    assert (stage.requests_ok, stage.coalesced_share, stage.first_coalesced_share) == (8, 0.0, 0.0)


def test_answers_that_a_gateway_held_back_are_noted_by_model() -> None:
    """Of 10 answers of one model all came in bursts, of another 1: 38 of 39 gaps are zero. A late client is not why."""
    book = StageBook()
    for number in range(10):
        common = {"stage": 1, "measured": 1, "chunks": 40, "output_tokens": 40}
        book.add(RequestRecord(**common, model="held", burst_chunks=20, coalesced=38, first_coalesced=19))  # type: ignore[arg-type]
        book.add(RequestRecord(**common, model="free", burst_chunks=0 if number else 12))  # type: ignore[arg-type]
        book.add(RequestRecord(**{**common, "chunks": 23}, model="short"))  # type: ignore[arg-type]
    stage = book.record(1, StageLoad(2), [])
    assert stage.held_back_share == 11 / 20
    assert stage.zero_gap_share == 380 / (11 * 39)
    assert (stage.coalesced_share, stage.first_coalesced_share) == (0.0, 0.0)
    (text,) = book.holding(1)
    assert text.startswith("stage 1: a gateway holds the stream back: 10 of 10 answers of held arrived in bursts of ")
    assert "bursts of about 20 chunks" in text
    assert "97% of their chunk gaps are zero" in text
    assert book.holding(2) == []
