"""Whole runs of the packaged locustfile against the simulated Bedrock: tables, throttles, workers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llm_users.simulator.launch import launch
from tests.aws_environment import use_example_credentials
from tests.ports import master_ports
from tests.project import ROOT
from tests.system.locust_runs import Locust

BEDROCK = str(ROOT / "locustfiles" / "bedrock.py")
SIMULATED = ("--llm-simulator", "ttft=5ms,itl=1ms")
INSTANT = "anthropic.claude-instant-v1"
LLAMA = "us.meta.llama3-1-8b-instruct-v1:0"


@pytest.fixture(autouse=True)
def example_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_example_credentials(monkeypatch)


def test_the_first_run_of_this_project(locust: Locust) -> None:
    """LLMPerf's run of Claude Instant, with short answers."""
    lengths = ("--llm-input-tokens", "100,0", "--llm-output-tokens", "16,4")
    run = locust.run(
        *SIMULATED, "--llm-api", "invoke", "--llm-model", INSTANT, *lengths, "--llm-sweep", "1",
        "--llm-requests", "100", "--llm-report", locustfile=BEDROCK,
    )  # fmt: skip
    assert run.code == 0, run.err
    rows = [row for row in run.rows() if row["measured"] == "1"]
    assert len(rows) == 100
    assert {(row["api"], row["framework"], row["error_code"]) for row in rows} == {("bedrock-invoke", "bedrock", "")}
    assert all(row["output_tokens"] == row["requested_output_tokens"] for row in rows)
    assert run.out.count("| bedrock   | anthropic.claude-instant-v1 |") == 2
    assert (run.manifest["framework"], run.manifest["model"]) == ("bedrock", INSTANT)
    assert any(note.startswith("Bedrock: http://127.0.0.1:") for note in run.manifest["notes"])


def test_a_throttled_run(locust: Locust) -> None:
    """Throttles before the stream and inside it are counted apart, and their tokens' times stay out."""
    spec = "ttft=5ms,itl=1ms,bedrock_error=throttling_tokens:0.2,stream_error=throttlingException@3:0.2"
    run = locust.run(
        "--llm-simulator", spec, "--llm-model", LLAMA, "--llm-sweep", "4", "--llm-requests", "60", locustfile=BEDROCK
    )
    assert run.code == 1
    rows = [row for row in run.rows() if row["measured"] == "1"]
    throttled = [row for row in rows if row["error_code"]]
    assert {row["error_code"] for row in throttled} == {"ThrottlingException"}
    assert {row["http_status"] for row in throttled} == {"200", "429"}
    assert any("Too many tokens" in row["error_message"] for row in throttled)
    (stage,) = run.rows("stages")
    assert int(stage["requests_throttled"]) == len(throttled)
    assert int(stage["requests_ok"]) == 60 - len(throttled)
    assert 5 <= len(throttled) <= 45


def test_a_run_whose_credentials_expire(locust: Locust) -> None:
    """Keys that cannot be renewed: good rows up to a moment, from then on rows that say why."""
    spec = "ttft=5ms,itl=1ms,expire_credentials=700ms"
    run = locust.run(
        "--llm-simulator", spec, "--llm-model", LLAMA, "--llm-sweep", "4", "--llm-stage-time", "2s",
        locustfile=BEDROCK,
    )  # fmt: skip
    assert run.code == 1
    rows = sorted(run.rows(), key=lambda row: float(row["started_at"]))
    codes = [row["error_code"] for row in rows]
    assert {*codes} == {"", "ExpiredTokenException"}
    first = codes.index("ExpiredTokenException")
    assert first > 20
    assert "" not in codes[first:]
    assert all("security token included in the request is expired" in row["error_message"] for row in rows[first:])
    (stage,) = run.rows("stages")
    assert (int(stage["requests_throttled"]), int(stage["requests_failed"])) == (
        0, sum(bool(row["error_code"]) for row in rows if row["measured"] == "1"),
    )  # fmt: skip


def test_two_workers(locust: Locust) -> None:
    run = locust.run(
        *SIMULATED, "--llm-model", LLAMA, "--llm-sweep", "4", "--llm-requests", "20", "--processes", "2",
        *master_ports(), locustfile=BEDROCK,
    )  # fmt: skip
    assert run.code == 0, run.err
    rows = [row for row in run.rows() if row["measured"] == "1"]
    assert (len(rows), {row["worker"] for row in rows}) == (20, {"0", "1"})
    assert {row["error_code"] for row in rows} == {""}


KEYS = """\
import datetime, json, os, pathlib
pathlib.Path("asked").open("a").write(f"{os.getppid()}\\n")
end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
print(json.dumps({"Version": 1, "AccessKeyId": "AKIA%016d" % os.getpid(), "SecretAccessKey": "made up, of no use",
                  "SessionToken": "made up as well", "Expiration": end.isoformat()}))
"""


def test_each_worker_renews_credentials_of_its_own(
    locust: Locust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile with a credential process, by boto3's own chain; the endpoint refuses each key after its 2 s."""
    (tmp_path / "keys.py").write_text(KEYS)
    (tmp_path / "config").write_text(f"[profile lab]\ncredential_process = {sys.executable} keys.py\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with launch("ttft=20ms,itl=5ms,expire_credentials=2s") as endpoint:
        run = locust.run(
            "--host", endpoint.url, "--llm-model", LLAMA, "--llm-sweep", "4", "--llm-stage-time", "5s",
            "--processes", "2", *master_ports(), locustfile=BEDROCK,
        )  # fmt: skip
    assert run.code == 0, run.err
    rows = run.rows()
    assert {row["worker"] for row in rows} == {"0", "1"}
    assert {row["error_code"] for row in rows} == {""}
    asked = (tmp_path / "asked").read_text().split()
    assert len(set(asked)) == 2  # processes
    assert all(asked.count(process) >= 3 for process in asked)
    assert any("credential process, profile lab, valid for 0 min, renewed" in note for note in run.manifest["notes"])


def test_a_run_without_a_model_says_what_to_do(locust: Locust) -> None:
    run = locust.run(*SIMULATED, "--llm-sweep", "1", "--llm-requests", "2", locustfile=BEDROCK)
    assert run.code == 2
    assert "--llm-model" in run.err
