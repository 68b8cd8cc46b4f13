"""The budget: price lists, what a stage reserves and costs, and when the money that is left does not suffice."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from llm_users.distributions import LENGTHS, Distribution
from llm_users.load.coordinator.budget import Budget
from llm_users.options.command_line import read_options
from llm_users.options.parsers import OptionError, Target, Warmup, load_prices, rates
from llm_users.options.table import Options
from llm_users.record import RequestRecord

HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
LIST = {"currency": "USD", "models": {"claude-3-haiku": {"input": 1000, "output": 5000, "cache_read": 100}}}


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(LIST))
    return path


def test_a_budget_needs_prices() -> None:
    class Given:
        llm_budget = "3"

    with pytest.raises(OptionError, match="--llm-prices"):
        read_options(Given())


def options(prices: Path, budget: float | None, **more: object) -> Options:
    lengths = {"input_tokens": Distribution.parse("100", LENGTHS), "output_tokens": Distribution.parse("20", LENGTHS)}
    given: dict[str, object] = {
        "model": HAIKU,
        "prices": load_prices(str(prices)),
        "budget": budget,
        "warmup": Warmup(),
    }
    return Options(**{**given, **lengths, **more})  # type: ignore[arg-type]


def row(asked: int = 100, given: int = 20, **more: object) -> RequestRecord:
    made = {"model": HAIKU, "input_tokens": asked, "output_tokens": given, "end_to_end_latency_s": 1.0, **more}
    return RequestRecord(**made)  # type: ignore[arg-type]


def test_nothing_starts_that_might_pass_the_budget(prices: Path) -> None:
    """One request costs 0.2: of a budget of 2, with 4 users, 6 requests are spent when 4 more are on their way."""
    budget = Budget(options(prices, 2.0))
    spent = 0
    while budget.why_stop(4) is None:
        budget.add(row())
        spent += 1
    assert spent == 7
    assert budget.spent + 3 * 0.2 <= 2.0  # those that were in flight


def test_a_dear_answer_makes_it_careful(prices: Path) -> None:
    budget = Budget(options(prices, 2.0))
    budget.add(row(given=200))
    assert budget.why_stop(1) is not None


def test_rows_of_workers_come_late(prices: Path) -> None:
    """In 3 s each user may have made 3 requests of 1 s that nobody has seen."""
    alone, distributed = (Budget(options(prices, 2.0), distributed=far) for far in (False, True))
    for budget in (alone, distributed):
        budget.add(row())
    assert alone.why_stop(3) is None
    assert distributed.why_stop(3) is not None


def test_what_failed_before_any_output_is_free(prices: Path) -> None:
    budget = Budget(options(prices, 1.0))
    budget.add(RequestRecord(model=HAIKU, input_tokens=100, error_code="ThrottlingException"))
    assert budget.spent == 0


def test_a_model_without_a_price_ends_a_run_with_a_budget(prices: Path) -> None:
    budget = Budget(options(prices, 5.0))
    budget.add(row(model="meta.llama3"))
    assert "meta.llama3" in (budget.why_stop(1) or "")


def test_what_a_stage_reserves_is_said(prices: Path) -> None:
    said = Budget(options(prices, None, requests=50), reserves_quota=True).describe_stage(8, 50)
    assert said is not None
    assert "8 users x (100 input + 20 max output) reserve 960 tokens" in said
    assert "50 requests with 6,000 tokens" in said
    assert "about 10.00 USD" in said
    assert Budget(Options()).describe_stage(8, 50) is None


def test_a_stage_that_does_not_fit_is_not_begun(prices: Path) -> None:
    budget = Budget(options(prices, 5.0, requests=10))
    assert budget.plan(1, 2, free=False) is None
    for _ in range(20):
        budget.add(row())
    assert "stage 2 would cost about 2.00 USD, after 4.00 USD" in (budget.plan(2, 2, free=False) or "")


def test_what_an_open_loop_reserves_is_what_may_be_in_flight() -> None:
    limited = Options(rate=rates("5"), max_in_flight=8)
    text = Budget(limited, reserves_quota=True).describe_stage(8, 100)
    assert text is not None
    assert text.startswith(
        "8 requests in flight x (550 input + 150 max output) reserve 5,600 tokens of quota at a time"
    )
    unlimited = Budget(Options(rate=rates("5")), reserves_quota=True).describe_stage(0, 100)
    assert unlimited == "100 requests with 70,000 tokens in total"


def test_a_stage_with_several_models_has_the_mean_cost_by_their_shares(tmp_path: Path) -> None:
    """100 input and 20 output tokens cost 0.0002 with model a and 0.0006 with b, which gets 3 of 4 requests."""
    path = tmp_path / "prices.json"
    path.write_text(
        json.dumps({"currency": "USD", "models": {"a": {"input": 1, "output": 5}, "b": {"input": 3, "output": 15}}})
    )
    shared = options(path, None, model=None, targets=(Target("a"), Target("b", weight=Fraction(3))))
    assert "about 0.0500 USD if every answer has the maximum length" in (Budget(shared).describe_stage(1, 100) or "")
    unpriced = options(path, None, model=None, targets=(Target("a"), Target("none")))
    assert "the price file has no price for none" in (Budget(unpriced).describe_stage(1, 100) or "")


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0.000084, "0.000084 USD"), (0.00000123, "0.0000012 USD"), (0.0012, "0.0012 USD"), (0.2, "0.2000 USD"),
     (3.456, "3.46 USD"), (0, "0.0000 USD")],
)  # fmt: skip
def test_small_amounts_have_two_digits(prices: Path, amount: float, text: str) -> None:
    loaded = load_prices(str(prices))
    assert loaded is not None
    assert loaded.shown(amount) == text
