"""The expected usage of a run from its options: how many requests, how many tokens, what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_users.distributions import LENGTHS, TURNS, Distribution
from llm_users.load.coordinator.expected_usage import (
    RequestCount,
    TokensPerRequest,
    expected_text,
    request_count,
    tokens_per_request,
)
from llm_users.options import parsers
from llm_users.options.parsers import rates
from llm_users.options.table import Options
from llm_users.prices import PriceError, Prices
from llm_users.prompts import Prefixes, parse_mix


def lengths(text: str) -> Distribution:
    return Distribution.parse(text, LENGTHS)


def options(**given: Any) -> Options:
    return Options(**{"input_tokens": lengths("500"), "output_tokens": lengths("100"), **given})


WARM = parsers.warmup


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({"sweep": (1, 2, 4)}, RequestCount(307)),  # 100 each by default, and a warm-up request for each of 7 users
        ({"sweep": (8,), "requests": 50, "warmup": WARM("2")}, RequestCount(66)),
        ({"sweep": (8,), "requests": 50, "warmup": WARM("0")}, RequestCount(50)),
        ({"sweep": (8,), "requests": 50, "warmup": WARM("10s")}, RequestCount(50, "at least")),
        ({"sweep": (8,), "requests": 50, "warmup": WARM("0"), "ramp_s": 3.0}, RequestCount(50, "at least")),
        ({"sweep": (8,), "requests": 50, "stage_time_s": 60.0}, RequestCount(58, "up to")),
        ({"sweep": (8,), "requests": 50, "stage_time_s": 60.0, "warmup": WARM("10s")}, RequestCount(50, "about")),
        ({"sweep": (8,), "stage_time_s": 60.0}, None),
        ({"find": "ttft_p95<1", "sweep": (1, 8)}, None),
        ({"rate": rates("5,10"), "requests": 200, "warmup": WARM("0")}, RequestCount(400)),
        ({"rate": rates("5,10"), "stage_time_s": 60.0, "warmup": WARM("10s")}, RequestCount(1050, "about")),
        ({"rate": rates("5"), "stage_time_s": 60.0, "requests": 100, "warmup": WARM("0")}, RequestCount(100, "about")),
        ({"requests": 40}, RequestCount(43, "at least")),  # Locust's 3 users
        ({}, None),
    ],
)
def test_the_number_of_requests(given: dict[str, Any], count: RequestCount | None) -> None:
    assert request_count(options(**given), users=3) == count


def test_each_worker_of_an_open_loop_has_its_warm_up() -> None:
    open_loop = options(rate=rates("5,10"), requests=100)
    assert request_count(open_loop, workers=3) == RequestCount(206)


def test_tokens_are_those_of_the_drawn_lengths() -> None:
    assert tokens_per_request(options(), 10) == TokensPerRequest(500, 100)
    assert tokens_per_request(options(shared_prefix=Prefixes(1000, 8)), 10) == TokensPerRequest(1500, 100)
    # A normal distribution without its values below 1 has a higher mean than its parameter.
    wide = tokens_per_request(options(output_tokens=lengths("150,150")), 100_000)
    assert wide.output == pytest.approx(193, rel=0.05)
    inputs, outputs = parse_mix("80:500/100,20:4000/500")
    mixed = tokens_per_request(options(input_tokens=inputs, output_tokens=outputs), 100_000)
    assert mixed.input == pytest.approx(1200, rel=0.1)
    assert mixed.output == pytest.approx(180, rel=0.1)


def test_a_turn_contains_its_history() -> None:
    """Turns of 500, of 500 + 100 + 500 and of 2 x (500 + 100) + 500 tokens."""
    three = options(turns=Distribution.parse("3,0", TURNS))
    assert tokens_per_request(three, 30, has_conversations=True) == TokensPerRequest((500 + 1100 + 1700) / 3, 100)
    given = options(conversations=Path("conversations.jsonl"))
    assert tokens_per_request(given, 30, has_conversations=True) == TokensPerRequest(None, 100)


def test_given_prompts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    items = [{"prompt": "one two three four"}, {"prompt": "one two three four " * 100, "max_tokens": 7}]
    path.write_text("\n".join(map(json.dumps, items)))
    short = tokens_per_request(options(prompt="one two three four"), 10)
    assert short.input is not None
    assert 4 <= short.input <= 6
    mixed = tokens_per_request(options(prompts=str(path)), 10)
    assert mixed.input == pytest.approx(101 / 2 * short.input, rel=0.1)
    assert mixed.output == pytest.approx((100 + 7) / 2)
    assert tokens_per_request(options(prompts=str(path)), 10, counts_prompts=False) == TokensPerRequest(None, 100)


PRICES = Prices.parse(
    json.dumps({
        "currency": "USD",
        "models": {"small": {"input": 1, "output": 10}, "large": {"input": 10, "output": 40}, "own": {"gpu_hour": 2}},
    }),
    "prices.json",
)  # fmt: skip
SWEEP = {"sweep": (1, 3), "requests": 198, "prices": PRICES}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"prices": None},
            "This run sends 400 requests, 4 of them as warm-ups: about 200,000 input and up to 40,000 output tokens",
        ),
        (
            {"warmup": WARM("0"), "model": "own"},
            "This run sends 396 requests: about 198,000 input and up to 39,600 output tokens",
        ),
        (
            {"sweep": (), "rate": rates("5,10"), "requests": 198, "warmup": WARM("2"), "model": "own"},
            "This run sends 400 requests, 4 of them as warm-ups: about 200,000 input and up to 40,000 output tokens",
        ),
        # 0.2 million at 1, and 0.04 million at 10.
        ({"model": "small"}, ": about 200,000 input and up to 40,000 output tokens, up to about 0.6000 USD"),
        ({"model": "large"}, " output tokens, up to about 3.60 USD"),
        ({"targets": parsers.targets("small=3,large=1")}, " output tokens, up to about 1.35 USD"),
        ({"model": "other"}, " output tokens; the price file has no price for other"),
        ({"model": "own"}, " output tokens"),
        ({}, " output tokens; the cost is unknown, because --llm-model is not given"),
    ],
)
def test_the_sentence(given: dict[str, Any], text: str) -> None:
    assert expected_text(options(**{**SWEEP, **given})).endswith(text)


def test_the_sentence_of_a_run_whose_requests_depend_on_its_answers() -> None:
    timed = options(sweep=(4,), stage_time_s=60.0, model="large", prices=PRICES)
    assert expected_text(timed) == (
        "The number of requests of this run depends on its answers. Each request has about 500 input and up to 100 "
        "output tokens, up to about 0.0090 USD"
    )


def test_the_sentence_of_a_trace_has_its_requests_and_lengths() -> None:
    text = expected_text(options(trace="trace.jsonl"), replayed=(20, TokensPerRequest(1234.0, 56.0)))
    assert text == "This run sends 20 requests: about 24,700 input and up to 1,120 output tokens"


def test_an_ambiguous_price_is_an_error() -> None:
    entry = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
    other = {**entry, "input_cost_per_token": 2e-6}
    prices = Prices.parse(json.dumps({"azure/m": entry, "bedrock/m": other}), "prices.json")
    with pytest.raises(PriceError, match="azure/m, bedrock/m"):
        expected_text(options(sweep=(1,), prices=prices, model="m"))
