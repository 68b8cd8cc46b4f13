"""The advice about throttled requests, and the quotas that end a run."""

from __future__ import annotations

import pytest

from llm_users.load.coordinator.throttling import Throttling
from llm_users.record import RequestRecord


def served(stage: int, at_s: float) -> RequestRecord:
    return RequestRecord(stage=stage, started_at=at_s, end_to_end_latency_s=1.0, input_tokens=90, output_tokens=10)


def refused(message: str, code: str = "429") -> RequestRecord:
    return RequestRecord(stage=2, error_code=code, error_message=message, http_status=429)


def test_the_quota_is_what_the_throttled_stage_served() -> None:
    """Stage 1 is not throttled, and stage 2 serves 31 requests of 100 tokens in 60 s beside 10 throttled ones."""
    throttling = Throttling()
    for i in range(600):
        throttling.add(served(1, i / 10))
    for i in range(31):
        throttling.add(served(2, 100 + 59 * i / 30))
    for _ in range(10):
        throttling.add(refused("Too many tokens, please wait before trying again."))
    advice = throttling.advice()
    assert advice is not None
    assert "10 of 641 requests were throttled" in advice
    assert "'Too many tokens, please wait before trying again.'" in advice
    assert "in stage 2 the endpoint served about 31 requests and 3,100 tokens (input and output) per minute" in advice
    assert "Lower the load" in advice
    assert "inference profile" not in advice
    assert throttling.long_quota is None


def test_on_bedrock_the_advice_names_region_and_profile() -> None:
    throttling = Throttling(on_bedrock=True)
    throttling.add(refused("Too many tokens, please wait before trying again.", "ThrottlingException"))
    assert "another region (--llm-region) and an inference profile" in (throttling.advice() or "")


@pytest.mark.parametrize(
    ("message", "is_long"),
    [
        ("Too many tokens per day, please wait before trying again.", True),
        ("Rate limit reached for gpt-4o on requests per day (RPD): Limit 200, Used 200", True),
        ("You exceeded your current quota, please check your plan and billing details.", True),
        ("Daily limit of this key exceeded", True),
        ("Too many tokens, please wait before trying again.", False),
        ("Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000. Today is a good day", False),
    ],
)
def test_a_quota_of_a_day_is_recognised(message: str, is_long: bool) -> None:
    throttling = Throttling()
    throttling.add(refused(message))
    assert throttling.long_quota == (message if is_long else None)


def test_without_throttled_requests_there_is_no_advice() -> None:
    throttling = Throttling()
    throttling.add(served(1, 0.0))
    throttling.add(RequestRecord(error_code="400", error_message="ValidationException: 3 requests per day"))
    assert (throttling.advice(), throttling.long_quota) == (None, None)
