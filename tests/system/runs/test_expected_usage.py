"""The expected usage that a run logs before it starts, against the rows that it has written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.aws_environment import use_example_credentials
from tests.project import ROOT
from tests.system.locust_runs import Finished, Locust

# Without usage, the tokens of the rows are those of the local tokenizer. The simulated endpoint counts words.
SIMULATOR = (
    "--llm-simulator", "ttft=2ms,itl=0.2ms,usage=off", "--llm-model", "openai/simulated",
    "--llm-input-tokens", "120,60", "--llm-output-tokens", "30,20",
)  # fmt: skip
LITELLM = {
    "simulated": {"input_cost_per_token": 0.001, "output_cost_per_token": 0.01},
    "azure/simulated": {"input_cost_per_token": 0.002, "output_cost_per_token": 0.02},
}
LINE = re.compile(
    r"This run sends (?:(about|at least|up to) )?([\d,]+) requests(?:, [\d,]+ of them as warm-ups)?: about ([\d,]+) "
    r"input and up to ([\d,]+) output tokens, up to about ([\d,.]+) USD"
)


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "litellm.json"
    path.write_text(json.dumps(LITELLM))
    return path


def expected(run: Finished) -> tuple[str, list[float]]:
    match = LINE.search(run.err)
    assert match is not None, run.err
    return match[1] or "", [float(text.replace(",", "")) for text in match.groups()[1:]]


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        (("--llm-sweep", "1,4", "--llm-requests", "60"), ""),
        (("--llm-rate", "60", "--llm-requests", "120", "--llm-warmup", "0"), ""),
        (("--llm-rate", "60", "--llm-stage-time", "4s", "--llm-warmup", "1s"), "about"),
    ],
)
def test_the_line_is_what_the_rows_add_up_to(
    locust: Locust, prices: Path, arguments: tuple[str, ...], bound: str
) -> None:
    """A counted plan is exact. Its tokens differ by rounding to three digits and by the chat template.

    The arrivals of a timed plan are a Poisson number: 300 with a standard deviation of 17. The tolerance of 20 % is
    three and a half standard deviations.
    """
    run = locust.run(*SIMULATOR, "--llm-prices", str(prices), *arguments)
    assert run.code == 0, run.err
    said, (requests, given, output, cost) = expected(run)
    rows = run.rows()
    inputs = sum(int(row["input_tokens"]) for row in rows)
    caps = sum(int(row["requested_output_tokens"]) for row in rows)
    assert said == bound
    if bound == "":
        assert requests == len(rows)
    share = 0.03 if bound == "" else 0.2
    assert requests == pytest.approx(len(rows), rel=share)
    assert given == pytest.approx(inputs, rel=share + 0.03)
    assert output == pytest.approx(caps, rel=share)
    assert cost == pytest.approx(inputs * 0.001 + caps * 0.01, rel=share + 0.03)


def test_conversations_are_expected_with_their_history(locust: Locust, prices: Path) -> None:
    """The last conversations can end before their last turn, so the rows have a little less."""
    conversations = str(ROOT / "locustfiles" / "conversations.py")
    arguments = (
        "--llm-sweep",
        "4",
        "--llm-requests",
        "200",
        "--llm-warmup",
        "0",
        "--llm-ramp",
        "0",
        "--llm-turns",
        "4,1",
    )
    run = locust.run(
        *SIMULATOR, "--llm-prices", str(prices), *arguments, "--llm-think-time", "0", locustfile=conversations
    )
    assert run.code == 0, run.err
    _, (requests, given, output, _) = expected(run)
    rows = run.rows()
    assert requests == len(rows)
    assert given == pytest.approx(sum(int(row["input_tokens"]) for row in rows), rel=0.15)
    assert output == pytest.approx(sum(int(row["requested_output_tokens"]) for row in rows), rel=0.15)


def test_a_run_on_a_free_endpoint_without_prices_says_nothing(locust: Locust) -> None:
    run = locust.run(*SIMULATOR, "--llm-sweep", "1", "--llm-requests", "3")
    assert run.code == 0
    assert "This run sends" not in run.err


def test_bedrock_without_a_host_is_a_paid_endpoint(locust: Locust, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is a closed port of this machine, so no request reaches AWS."""
    use_example_credentials(monkeypatch)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    arguments = ("--llm-model", "anthropic.claude-3-haiku-20240307-v1:0", "--llm-sweep", "1", "--llm-requests", "2")
    run = locust.run(*arguments, locustfile=str(ROOT / "locustfiles" / "bedrock.py"))
    assert "This run sends 3 requests, 1 of them as warm-ups: about " in run.err


def ambiguous(model: str) -> str:
    return json.dumps({
        f"{provider}/{model}": {"input_cost_per_token": cost, "output_cost_per_token": cost}
        for provider, cost in (("azure", 1e-6), ("deepinfra", 2e-6))
    })  # fmt: skip


def test_an_ambiguous_model_is_refused_before_the_run(locust: Locust, prices: Path) -> None:
    prices.write_text(ambiguous("other"))
    run = locust.run(*SIMULATOR, "--llm-model", "other", "--llm-prices", str(prices), "--llm-sweep", "1")
    assert run.code == 2
    assert "--llm-prices: " in run.err
    assert "match the model 'other': azure/other, deepinfra/other." in run.err
    assert "Traceback" not in run.err


def test_an_ambiguous_model_that_the_server_names_only_removes_the_costs(locust: Locust, prices: Path) -> None:
    prices.write_text(ambiguous("simulated"))
    run = locust.run(
        *SIMULATOR[:2], "--llm-prices", str(prices), "--llm-sweep", "1", "--llm-requests", "3", "--llm-report"
    )
    assert run.code == 0, run.err
    assert "; the cost is unknown, because --llm-model is not given" in run.err
    assert run.err.count("match the model 'simulated': azure/simulated, deepinfra/simulated.") == 2  # budget and report
    assert "no costs in the report" in run.err
    assert "Time to First Token" in run.out
