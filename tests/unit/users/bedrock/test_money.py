"""Before money is spent: what a stage reserves and costs is said, and the budget holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_users.load.coordinator.budget import Budget
from llm_users.options.table import OptionError, Options, load_prices
from llm_users.prices import PriceError, Prices
from llm_users.prompts import LengthLaw
from llm_users.record import RequestRecord
from tests.system.runs.conftest import ROOT, Locust

BEDROCK = str(ROOT / "locustfiles" / "bedrock.py")
HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
LIST = {"currency": "USD", "models": {"claude-3-haiku": {"input": 1000, "output": 5000, "cache_read": 100}}}


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(LIST))
    return path


@pytest.fixture
def locust(tmp_path: Path) -> Locust:
    return Locust(tmp_path)


def test_a_price_list() -> None:
    prices = Prices.load(json.dumps(LIST), "p.json")
    price = prices.of_model(f"us.{HAIKU}")
    assert price is not None
    # 1 000 000 tokens of input, of which half came from the cache.
    assert price.of(1_000_000, 0, cache_read=500_000) == pytest.approx(550)
    assert price.of(0, 2_000_000) == pytest.approx(10_000)
    assert prices.of_model("meta.llama") is None
    assert prices.shown(0.01234) == "0.0123 USD"


def test_the_longest_name_wins() -> None:
    models = {"claude": {"input": 1, "output": 1}, "claude-3-haiku": {"input": 2, "output": 2}}
    price = Prices.load(json.dumps({"models": models}), "p.json").of_model(HAIKU)
    assert price is not None
    assert price.input == pytest.approx(2e-6)


def test_the_reports_price_file_will_do() -> None:
    text = 'currency = "EUR"\n[models.tiny]\ninput = 1\noutput = 2\n[models.own]\ngpu_hour = 2.5\n'
    prices = Prices.load(text, "prices.toml")
    assert (prices.currency, list(prices.models)) == ("EUR", ["tiny"])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"models": {"a": {"input": 1}}}', '{"models": {"a": {"input": -1, "output": 1}}}',
     '{"models": {"a": {"input": 1, "output": "x"}}}', '{"models": {"a": {"input": 1, "output": 1, "tips": 1}}}'],
)  # fmt: skip
def test_a_bad_price_list(text: str) -> None:
    with pytest.raises(PriceError, match=r"p\.json"):
        Prices.load(text, "p.json")


def test_a_budget_needs_prices() -> None:
    class Given:
        llm_budget = "3"

    with pytest.raises(OptionError, match="--llm-prices"):
        Options.parse(Given())


def options(prices: Path, budget: float | None, **more: object) -> Options:
    lengths = {"input_tokens": LengthLaw.parse("100"), "output_tokens": LengthLaw.parse("20")}
    given: dict[str, object] = {
        "model": HAIKU,
        "prices": load_prices(str(prices)),
        "budget": budget,
        "warmup_requests": 0,
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


ASKED = ("--llm-simulator", "ttft=5ms,itl=1ms", "--llm-model", HAIKU, "--llm-output-tokens", "10,0",
         "--llm-input-tokens", "20,0", "--llm-warmup", "0", "--llm-ramp", "0")  # fmt: skip


def test_a_run_says_what_it_reserves_and_ends_at_its_budget(locust: Locust, prices: Path) -> None:
    # About 0.07 each, by their rows: the first stage fits, the second does not.
    money = ("--llm-prices", str(prices), "--llm-budget", "1.3")
    run = locust.run(*ASKED, *money, "--llm-sweep", "2,4", "--llm-requests", "12", locustfile=BEDROCK)
    assert run.code == 0, run.err
    assert "stage 1: 2 users x (20 input + 10 max output) reserve 60 tokens of quota" in run.err
    assert "about 0.8400 USD if every answer is as long as allowed" in run.err
    rows = run.rows()
    spent = sum(int(r["input_tokens"]) * 0.001 + int(r["output_tokens"]) * 0.005 for r in rows)
    assert 0 < spent <= 1.3
    assert {r["stage"] for r in rows} == {"1"} or len(rows) < 24
    assert any("--llm-budget 1.3" in note for note in run.manifest["notes"])


def test_a_run_beyond_its_budget_is_refused(locust: Locust, prices: Path) -> None:
    money = ("--llm-prices", str(prices), "--llm-budget", "0.5")
    run = locust.run(*ASKED, *money, "--llm-sweep", "2", "--llm-requests", "100", locustfile=BEDROCK)
    assert run.code == 2
    assert "stage 1 would cost" in run.err


def test_what_an_open_loop_reserves_is_what_may_be_in_flight() -> None:
    limited = Options(rates=(5.0,), max_in_flight=8)
    text = Budget(limited, reserves_quota=True).describe_stage(8, 100)
    assert text is not None
    assert text.startswith(
        "8 requests in flight x (550 input + 150 max output) reserve 5,600 tokens of quota at a time"
    )
    unlimited = Budget(Options(rates=(5.0,)), reserves_quota=True).describe_stage(0, 100)
    assert unlimited == "100 requests with 70,000 tokens in all"
