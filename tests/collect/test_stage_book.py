"""The stage's row, from the rows of its requests."""

from __future__ import annotations

from llm_users.collect.stages import StageBook, load_of
from llm_users.plan import StagePlan
from llm_users.record import RequestRecord


def test_chunks_that_a_proxy_put_together_are_not_held_against_the_client() -> None:
    """Half of the answers were buffered: all their chunks shared a read, the others' none."""
    book = StageBook()
    for number in range(8):
        buffered = {"error_code": "buffered", "coalesced": 49, "first_coalesced": 49} if number % 2 else {}
        book.add(RequestRecord(stage=1, measured=1, chunks=50, output_tokens=50, **buffered))  # type: ignore[arg-type]
    stage = book.record(load_of(StagePlan(stage=1, concurrency=4)), [])
    assert (stage.requests_ok, stage.coalesced_share, stage.first_coalesced_share) == (8, 0.0, 0.0)
