"""Only refusals that repetition cannot solve end a run, and only if no request had another answer."""

from __future__ import annotations

import pytest

from llm_users.load.coordinator.first_answers import ENOUGH_ANSWERS, FirstAnswers
from llm_users.record import RequestRecord


def row(number: int, code: str = "", status: int | None = None, *, worker: int = 0, **more: object) -> RequestRecord:
    values = {"request_id": f"run-{worker}-{number}", "worker": worker, "error_code": code, "http_status": status}
    return RequestRecord(**{**values, "error_message": "the words", **more})  # type: ignore[arg-type]


def answers(*rows: RequestRecord) -> FirstAnswers:
    collected = FirstAnswers()
    for record in rows:
        collected.add(record)
    return collected


def problem(*rows: RequestRecord, workers: tuple[int, ...] = (0,)) -> str | None:
    return answers(*rows).problem(lambda: workers)


@pytest.mark.parametrize(
    ("code", "status"),
    [("400", 400), ("401", 401), ("403", 403), ("404", 404), ("422", 422), ("302", 302), ("connect", None),
     ("malformed", 200), ("AccessDeniedException", 403)],
)  # fmt: skip
def test_the_same_refusal_of_all_first_requests_is_a_problem(code: str, status: int | None) -> None:
    refused = [row(number, code, status) for number in range(ENOUGH_ANSWERS)]
    assert problem(*refused[:-1]) is None
    text = problem(*refused)
    assert text is not None
    assert f"all {ENOUGH_ANSWERS} requests" in text
    assert f"{code}: the words" in text


@pytest.mark.parametrize(
    "other",
    [row(0, chunks=3), row(0, "429", 429), row(0, "ThrottlingException", 400), row(0, "500", 500), row(0, "timeout"),
     row(0, "reset"), row(0, "malformed", 200, chunks=1),
     row(0, "cancelled", chunks=1)],
)  # fmt: skip
def test_one_other_answer_shows_that_the_endpoint_can_be_used(other: RequestRecord) -> None:
    refused = [row(number, "401", 401) for number in range(1, 100)]
    assert problem(other, *refused) is None
    assert problem(*refused[: ENOUGH_ANSWERS - 2], other, *refused[ENOUGH_ANSWERS:]) is None
    assert answers(other, *refused).verdict() is None


def test_requests_that_the_client_ended_or_could_not_send_tell_nothing() -> None:
    silent = [row(0, "aborted"), row(1, "cancelled"), row(2, "overflow"), row(3, "client_limit")]
    assert answers(*silent).verdict() is None
    refused = [row(number, "404", 404) for number in range(4, 4 + ENOUGH_ANSWERS)]
    assert problem(*silent, *refused) is not None


def test_the_first_requests_of_every_worker_must_have_ended() -> None:
    keyless = [row(number, "401", 401, worker=1) for number in range(50)]
    assert problem(*keyless, workers=(0, 1)) is None
    half = ENOUGH_ANSWERS // 2
    others = [row(number, "401", 401) for number in range(half)]
    assert problem(*keyless, *others[:-1], workers=(0, 1)) is None
    assert problem(*keyless, *others, workers=(0, 1)) is not None


def test_a_slow_answer_to_an_early_request_is_awaited() -> None:
    quick = [row(number, "404", 404) for number in range(1, 50)]  # request 0 goes to another, slower endpoint
    assert problem(*quick) is None
    assert problem(*quick, row(0, chunks=1)) is None
    assert problem(*quick, row(0, "404", 404)) is not None


def test_the_reason_names_the_most_frequent_refusals_first() -> None:
    kinds = ["401", "404", "404", "404", "401", "400"]
    text = problem(*(row(number, code, int(code)) for number, code in enumerate(kinds)))
    assert text is not None
    assert text.index("404: ") < text.index("401: ") < text.index("400: ")


def test_a_short_run_has_a_verdict_at_its_end() -> None:
    assert answers().verdict() is None
    assert "the only request failed. 401: the words" in str(answers(row(0, "401", 401)).verdict())
