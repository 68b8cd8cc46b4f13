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


def test_the_advice_has_the_rate_that_the_quota_allows(locust: Locust) -> None:
    """The bucket holds 2,400 tokens at the start and gets 40 per second, as the simulator refills it."""
    done = locust.run("--llm-simulator", "ttft=5ms,itl=1ms,input_tpm=2400", *MODEL, "--llm-rate", "20",
                      "--llm-arrivals", "constant", "--llm-stage-time", "20s", "--llm-warmup", "0",
                      "--llm-input-tokens", "30,0", "--llm-output-tokens", "10,0", locustfile=BEDROCK)  # fmt: skip
    found = re.search(r"served about ([\d,]+) requests and ([\d,]+) tokens \(input and output\) per minute", done.err)
    assert found is not None, done.err
    ok = [row for row in done.rows() if not row["error_code"]]
    begin = min(float(row["started_at"]) for row in ok)
    end = max(float(row["started_at"]) + float(row["end_to_end_latency_s"]) for row in ok)
    tokens = sum(int(row["input_tokens"]) + int(row["output_tokens"]) for row in ok)
    requests, per_minute = (float(text.replace(",", "")) for text in found.groups())
    assert requests == pytest.approx(60 * len(ok) / (end - begin), rel=0.06)
    assert per_minute == pytest.approx(60 * tokens / (end - begin), rel=0.06)
    assert "another region (--llm-region) and an inference profile" in done.err
