"""What the LLM tab warns of, and how urgently."""

from __future__ import annotations

from typing import Any

import pytest

from llm_users.record import RequestRecord, StageRecord
from llm_users.web.banners import Seen, banners


class Writer:
    def __init__(self, *notes: str, stages: tuple[StageRecord, ...] = ()) -> None:
        self.notes = list(notes)
        self.stages = list(stages)


def said(writer: Writer | None = None, seen: Seen | None = None, client: StageRecord | None = None) -> Any:
    run: Any = writer
    return [(each["level"], each["text"]) for each in banners(seen or Seen(), client, None, run, processes=2)]


def test_nothing_to_say() -> None:
    assert said() == said(Writer(), client=StageRecord(client_cpu_share_max=0.1, lag_p99_s=0.0001)) == []


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (RequestRecord(stamp_source="user"), "1 of 2 answers have timestamps of the program, not of the kernel"),
        (RequestRecord(error_code="buffered"), "1 answers arrived at once although the client requested a stream"),
        (RequestRecord(streamed=0), "1 answers were not streamed (--llm-no-stream, or stream=False in a call)"),
        (
            RequestRecord(output_tokens_source="tokenizer"),
            "The local tokenizer counted the output tokens of 1 answers",
        ),
    ],
)
def test_what_the_rows_have_in_them(row: RequestRecord, words: str) -> None:
    seen = Seen()
    for each in (row, RequestRecord(stamp_source="kernel", output_tokens_source="server")):
        seen.add(each)
    ((_, text),) = said(seen=seen)
    assert text.startswith(words)


def test_the_early_end_of_a_run_is_the_first_banner() -> None:
    ended = "the run was ended: the endpoint cannot be used: all 6 requests so far failed. 401: no key"
    assert said(Writer("a note", ended)) == [("bad", f"T{ended[1:]}"), ("warn", "A note")]


def test_a_client_that_is_strained_or_saturated_now_and_then() -> None:
    ((level, text),) = said(client=StageRecord(client_cpu_share_max=0.9, lag_p99_s=1.0))
    assert level == "bad"
    assert text.startswith("The client is saturated now (")
    stages = (
        StageRecord(stage=1, health="ok"),
        StageRecord(stage=2, health="strained", lag_p99_s=0.004),
        StageRecord(stage=3, health="saturated", lag_p99_s=1.0, client_cpu_share_max=0.9),
    )
    (worse, milder) = said(Writer(stages=stages))
    assert worse[0] == "bad"
    assert worse[1].startswith("In stage 3 the client was saturated (")
    assert milder[0] == "warn"
    assert milder[1].startswith("In stage 2 the client was strained (")


def test_equal_banners_are_one_with_a_count() -> None:
    writer: Any = Writer(
        "stage 1: 3 users are missing",
        "stage 2: 12 users are missing",
        "no OPENAI_API_KEY in the environment: requests carry no key",
        stages=tuple(StageRecord(stage=number, health="strained", lag_p99_s=0.004) for number in (1, 2, 4)),
    )
    shown = banners(Seen(), None, None, writer, processes=1)
    assert [(each["text"][:30], each["count"]) for each in shown] == [
        ("Stage 2: 12 users are missing", 2),
        ("In stages 1, 2 and 4 the clien", 1),
        ("No OPENAI_API_KEY in the envir", 1),
    ]
    assert [each["level"] for each in shown] == ["warn", "warn", "info"]
    assert "strained (stage 4: timers were 0.0040 s late" in shown[1]["text"]


def test_a_client_that_is_disturbed_is_told_about_the_machine() -> None:
    late = StageRecord(client_cpu_share_max=0.016, lag_p99_s=0.03, lag_own_p99_s=0.001)
    ((level, text),) = said(client=late)
    assert level == "warn"
    assert text.startswith("The client is disturbed now (the client waited 0.0290 s for a CPU (p99)")
    assert "stop other programs" in text
    assert "--processes" not in text


def test_a_worker_that_is_gone_is_the_first_problem_until_it_is_back() -> None:
    lost = "worker 1 was lost in stage 2; 7 requests that it had not started were reassigned to the other workers"
    gone = "worker 11: at least 3 of the 9 requests that it had started were lost"
    saturated = StageRecord(client_cpu_share_max=0.9, lag_p99_s=1.0)
    found = said(Writer("worker 2 joined in stage 1", lost, gone), client=saturated)
    assert [level for level, _ in found] == ["bad", "bad", "bad", "info"]
    assert found[0] == ("bad", lost.capitalize())
    assert found[1] == ("bad", gone.capitalize())
    back = said(Writer(lost, gone, "worker 1 was back in stage 2"))
    assert [level for level, _ in back] == ["bad", "warn", "info"]
    assert back[0][1] == gone.capitalize()
