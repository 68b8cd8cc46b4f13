"""Throttled runs: a quota of a day ends the run, and a quota of a minute brings advice with the served rate."""

from __future__ import annotations

import re

import pytest

from tests.project import ROOT
from tests.system.locust_runs import Locust

BEDROCK = str(ROOT / "locustfiles" / "bedrock.py")
MODEL = ("--llm-model", "us.amazon.nova-lite-v1:0")


@pytest.mark.parametrize("keeps_going", [False, True])
def test_a_quota_of_a_day_ends_the_run(locust: Locust, keeps_going: bool) -> None:
    spec = "ttft=5ms,itl=1ms,bedrock_error=throttling_day:0.5"
    more = ["--llm-keep-going"] if keeps_going else []
    done = locust.run("--llm-simulator", spec, *MODEL, "--llm-sweep", "2,4", "--llm-requests", "60",
                      "--llm-warmup", "0", *more, locustfile=BEDROCK)  # fmt: skip
    rows = done.rows()
    if keeps_going:
        assert done.code == 1, done.err
        assert len(rows) == 120
        return
    assert done.code == 3, done.err
    assert len(rows) < 30
    assert len(done.rows("stages")) == 1
    reason = "the run ends, because an exceeded quota does not recover within it: Too many tokens per day"
    assert reason in done.err
    assert any(reason in note for note in done.manifest["notes"])


def test_the_advice_and_the_report_have_the_quota(locust: Locust) -> None:
    """The bucket holds 60,000 tokens at the start, which last for 13 s, and gets 1,000 per second, input and output."""
    done = locust.run("--llm-simulator", "ttft=5ms,itl=1ms,input_tpm=60000", *MODEL, "--llm-rate", "20",
                      "--llm-arrivals", "constant", "--llm-stage-time", "80s", "--llm-warmup", "0",
                      "--llm-input-tokens", "300,0", "--llm-output-tokens", "60,0", "--llm-report", timeout_s=150,
                      locustfile=BEDROCK)  # fmt: skip
    pattern = r"The quota found: between .*? about ([\d,]+) requests and ([\d,]+) tokens per minute"
    report = (done.prefix.with_name(f"{done.prefix.name}_report") / "report.md").read_text()
    for text in (done.err, report):
        found = re.search(pattern, " ".join(text.split()))
        assert found is not None, text
        requests, tokens = (float(number.replace(",", "")) for number in found.groups())
        assert tokens == pytest.approx(60_000, rel=0.06)
        used = [int(row["input_tokens"]) + int(row["output_tokens"]) for row in done.rows() if not row["error_code"]]
        assert requests == pytest.approx(60_000 / (sum(used) / len(used)), rel=0.06)
    assert "another region (--llm-region) and the inference profile (--llm-model global.MODEL)" in done.err
