"""Locust's table of failures has one entry for each kind of error; the rows have the whole texts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llm_users.collect.error_kinds import KIND_CHARACTERS, MOST_KINDS, OTHER, ErrorKinds, kind_of
from tests.stream_bytes import reply
from tests.unit.users.rig import Rig
from tests.wire_server import Wire

THROTTLES = 500


def throttle(number: int) -> str:
    """What OpenAI says, with a new figure, time and id in every answer."""
    return (
        "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 10,000, "
        f"Used {9000 + number}, Requested 550. Please try again in {number * 7 % 5000 / 1000:g}s. "
        f"Request id req_{number:x}"
    )


def test_500_throttles_with_an_id_each_are_one_entry_of_the_failures_table(
    make_rig: Callable[..., Rig], wire: Wire
) -> None:
    bodies = [{"error": {"message": throttle(n), "code": "rate_limit_exceeded"}} for n in range(THROTTLES)]
    port = wire.serve(*(reply("429 Too Many Requests", body)[0:1] for body in bodies))
    rig = make_rig()
    for _ in range(THROTTLES):
        rig.ask(port.url)
    assert [record.error_message for record in rig.seen.records] == [throttle(n) for n in range(THROTTLES)]
    (entry,) = rig.environment.stats.errors.values()
    assert entry.occurrences == THROTTLES
    assert "429: Rate limit reached for * in organization org-x" in str(entry.error)


def test_raised_errors_keep_the_whole_text(make_rig: Callable[..., Rig], wire: Wire) -> None:
    rig = make_rig(attributes={"raise_errors": True})
    with pytest.raises(Exception, match="Request id req_7"):
        rig.ask(wire.serve(reply("429 Too Many Requests", {"error": throttle(7)})).url)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Used 9001, Requested 550. Try again in 4999ms.", "Used N, Requested N. Try again in Nms."),
        ("Try again in 1.234s", "Try again in Ns"),
        ("allow bedrock:InvokeModelWithResponseStream", "allow bedrock:InvokeModelWithResponseStream"),
        ("the model `tiny` isn't 'there'", "the model * isn't *"),
        ("trace a7f3e2d1-aaaa-bbbb-cccc-123456789abc", "trace *"),
        ("Request ID: dead-beef", "Request ID: *"),
        ("see https://127.0.0.1:8000/v1/models?id=7", "see https://127.0.0.1:8000/v1/models?id=N"),
        (
            "POST /chat does not exist; does it need /v1 at its end?",
            "POST /chat does not exist; does it need /v1 at its end?",
        ),
        ("no /v1-abc123 here", "no /* here"),
        ("the connection was closed by the server", "the connection was closed by the server"),
        ("", ""),
    ],
)
def test_numbers_ids_and_quoted_values_are_taken_out(message: str, kind: str) -> None:
    assert kind_of(message) == kind


def test_a_kind_is_short_and_kinds_are_few() -> None:
    assert len(kind_of("word " * 1000)) == KIND_CHARACTERS
    kinds = ErrorKinds()
    words = [chr(97 + n // 26) + chr(97 + n % 26) for n in range(500)]
    entries = {kinds.entry(word, word) for word in words}
    assert len(entries) == MOST_KINDS + 1
    assert OTHER in entries
    assert kinds.entry(words[0], words[0]) == (words[0], words[0])  # a known kind keeps its entry
