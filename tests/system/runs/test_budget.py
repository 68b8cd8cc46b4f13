"""A budget in whole runs: what they reserve is printed, they end at the budget, and a run beyond it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.aws_environment import use_example_credentials
from tests.project import ROOT
from tests.system.locust_runs import Locust

BEDROCK = str(ROOT / "locustfiles" / "bedrock.py")
HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
LIST = {"currency": "USD", "models": {"claude-3-haiku": {"input": 1000, "output": 5000, "cache_read": 100}}}


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(LIST))
    return path


@pytest.fixture(autouse=True)
def example_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_example_credentials(monkeypatch)


ASKED = ("--llm-simulator", "ttft=5ms,itl=1ms", "--llm-model", HAIKU, "--llm-output-tokens", "10,0",
         "--llm-input-tokens", "20,0", "--llm-warmup", "0", "--llm-ramp", "0")  # fmt: skip


def test_a_run_says_what_it_reserves_and_ends_at_its_budget(locust: Locust, prices: Path) -> None:
    # About 0.07 each, by their rows: the first stage fits, the second does not.
    money = ("--llm-prices", str(prices), "--llm-budget", "1.3")
    run = locust.run(*ASKED, *money, "--llm-sweep", "2,4", "--llm-requests", "12", locustfile=BEDROCK)
    assert run.code == 0, run.err
    assert "stage 1: 2 users x (20 input + 10 max output) reserve 60 tokens of quota" in run.err
    assert "about 0.8400 USD if every answer has the maximum length" in run.err
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
