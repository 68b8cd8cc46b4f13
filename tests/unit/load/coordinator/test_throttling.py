"""The advice about throttled requests, and the quotas that end a run."""

from __future__ import annotations

import dataclasses

import pytest

from llm_users.load.coordinator.throttling import Throttling
from llm_users.record import RequestRecord


def served(stage: int, at_s: float, model: str = "") -> RequestRecord:
    return RequestRecord(
        stage=stage, started_at=at_s, end_to_end_latency_s=1.0, input_tokens=90, output_tokens=10, model=model
    )


def refused(message: str, code: str = "429", at_s: float | None = None, model: str = "") -> RequestRecord:
    return RequestRecord(stage=2, error_code=code, error_message=message, http_status=429, started_at=at_s, model=model)


MESSAGE = "Too many tokens, please wait before trying again."


def throttled_stage(throttling: Throttling, served_per_s: float, *, seconds: int = 120, model: str = "") -> None:
    """Add a burst of 200 requests in 2 s, then a constant rate beside one throttled request per second."""
    for i in range(200):
        throttling.add(served(2, 100 + i / 100, model))
    for i in range(round(served_per_s * seconds)):
        throttling.add(served(2, 102 + i / served_per_s, model))
    for i in range(seconds + 1):
        throttling.add(refused(MESSAGE, at_s=102.0 + i, model=model))


def test_the_quota_does_not_include_the_burst_before_the_first_throttled_request() -> None:
    """Stage 1 is not throttled. Stage 2 serves a burst of 200 requests, then one of 100 tokens every 2 s."""
    throttling = Throttling()
    for i in range(600):
        throttling.add(served(1, i / 10))
    throttled_stage(throttling, 0.5)
    advice = throttling.advice()
    assert advice is not None
    assert f"121 of 981 requests were throttled, the first one with {MESSAGE!r}" in advice
    assert "of stage 2, the endpoint served about 30 requests and 3,000 tokens per minute (2,700 input, 300" in advice
    assert "Lower the load" in advice
    assert "inference profile" not in advice
    assert throttling.long_quota is None


def test_less_than_a_minute_after_the_first_throttled_request_is_not_the_quota() -> None:
    throttling = Throttling()
    throttled_stage(throttling, 0.5, seconds=40)
    advice = throttling.advice() or ""
    assert "The quota found" not in advice
    # 200 + 20 requests from 100 s to the end of the last one at 102 + 38 + 1 s.
    assert "Served in stage 2, including the burst at the start: about 322 requests" in advice
    assert "not the quota. To find the quota, measure at least 3 minutes (--llm-stage-time 180s)" in advice


def test_each_model_has_its_own_quota() -> None:
    throttling = Throttling()
    throttled_stage(throttling, 0.5, model="a")
    throttled_stage(throttling, 2, model="b")
    advice = throttling.advice() or ""
    assert "The quota found of a: between" in advice
    assert "about 30 requests and 3,000 tokens" in advice
    assert "about 120 requests and 12,000 tokens" in advice
    assert "150 requests" not in advice


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("amazon.nova-lite-v1:0", "an inference profile (--llm-model us.MODEL or global.MODEL)"),
        ("us.amazon.nova-lite-v1:0", "the inference profile (--llm-model global.MODEL)"),
        ("zai.glm-4.7", "us.MODEL or global.MODEL"),
    ],
)
def test_on_bedrock_the_advice_names_region_and_profile(model: str, words: str) -> None:
    throttling = Throttling(on_bedrock=True)
    throttling.add(refused(MESSAGE, "ThrottlingException", model=model))
    advice = throttling.advice() or ""
    assert "another region (--llm-region)" in advice
    assert words in advice
    assert "For a quota request" not in advice  # the report has no figures without a successful request


def test_a_global_profile_leaves_only_another_region() -> None:
    throttling = Throttling(on_bedrock=True)
    throttling.add(refused(MESSAGE, "ThrottlingException", model="global.anthropic.claude-sonnet-4-20250514-v1:0"))
    advice = throttling.advice() or ""
    assert advice.endswith("On Bedrock, another region (--llm-region) has separate quotas")
    assert "profile" not in advice


def test_a_quota_of_a_day_has_other_advice() -> None:
    throttling = Throttling()
    throttling.add(served(2, 100.0))
    throttling.add(refused("Too many tokens per day, please wait before trying again.", at_s=101.0))
    advice = throttling.advice() or ""
    assert "does not recover within a run" in advice
    assert "Lower the load" not in advice
    assert "section" not in advice


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


def test_longer_throttled_requests_are_named() -> None:
    """Prompts of 400 tokens are served, those of 800 are throttled."""
    throttling = Throttling(input_length=lambda index: 400 if index % 2 else 800)
    throttling.add(dataclasses.replace(refused(MESSAGE, at_s=1.0), prompt_index=0))
    for index in range(1, 100, 2):
        throttling.add(dataclasses.replace(served(2, index), prompt_index=index))
        throttling.add(dataclasses.replace(refused(MESSAGE, at_s=index), prompt_index=index + 1))
    advice = throttling.advice() or ""
    assert "they request 800 input tokens on average, and those that were served beside them 400" in advice
    assert "costs are too low" in advice


def test_equal_lengths_are_not_named() -> None:
    throttling = Throttling(input_length=lambda index: 400)
    for index in range(100):
        throttling.add(dataclasses.replace(refused(MESSAGE, at_s=index), prompt_index=index))
        throttling.add(dataclasses.replace(served(2, index), prompt_index=index))
    assert "too low" not in (throttling.advice() or "")
