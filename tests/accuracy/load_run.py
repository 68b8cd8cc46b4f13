"""One load process against one server with known timing, and what its rows say beside the server's log."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bounds import CHAT, CONVERSE, INVOKE, MESSAGES
from endpoints import Sent, Timing, Truth, running
from machine import Neighbours

from llm_users.quantile import quantile

ROOT = Path(__file__).resolve().parents[2]
_SPARE_S = 60.0

_CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
_LOCUSTFILES = {CONVERSE: "bedrock.py", INVOKE: "bedrock.py", MESSAGES: "messages.py"}
_THEIRS = ("LOCUST_", "OPENAI_", "ANTHROPIC_", "AWS_")
# Requests to Bedrock are signed, as they are in earnest.
_NOBODYS = {
    "AWS_ACCESS_KEY_ID": "simulator",
    "AWS_SECRET_ACCESS_KEY": "simulator",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class RunError(RuntimeError):
    """The run itself failed, so there is nothing to judge."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One line of the table."""

    streams: int
    requests: int
    ramp: str
    timing: Timing
    processes: int = 1
    api: str = CHAT
    sdk: bool = False
    """On boto3's own path, for comparison: never judged."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: errors against the server's own send times, cost, and the circumstances."""

    server: str
    requests: int
    failed: int
    miscounted: int
    ttft_p50_s: float
    ttft_p99_s: float
    span_p99_s: float
    cpu_per_token_s: float
    rate: float
    health: str
    stamp_source: str
    late_p99_s: float
    server_cpu_per_token_s: float
    neighbours: float


def measure(plan: Plan, native: Path | None) -> Outcome:
    """Run the load once and hold its rows against the server's log."""
    with tempfile.TemporaryDirectory(prefix="accuracy-") as name:
        folder = Path(name)
        neighbours = Neighbours()
        with running(native, plan.timing, folder) as endpoint:
            prefix = folder / "run"
            _run_load(plan, endpoint.url, prefix)
            truth = endpoint.truth()
        others = neighbours.cores()
        rows = _read(prefix, "requests")
        stage = _read(prefix, "stages")[0]
        return _outcome(plan, endpoint.kind, rows, stage, truth, others)


def _run_load(plan: Plan, url: str, prefix: Path) -> None:
    locustfile = ROOT / "locustfiles" / _LOCUSTFILES.get(plan.api, "sweep.py")
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless"]
    command += ["--host", url, "--csv", str(prefix), "--only-summary", "--loglevel", "WARNING"]
    command += ["--llm-sweep", str(plan.streams), "--llm-requests", str(plan.requests), "--llm-ramp", plan.ramp]
    command += ["--llm-warmup", "1", "--llm-input-tokens", "100,0", "--llm-output-tokens", f"{plan.timing.tokens},0"]
    if plan.api != CHAT:
        command += ["--llm-api", plan.api, "--llm-model", _CLAUDE]
    if plan.sdk:
        command += ["--llm-transport", "sdk"]
    if plan.processes > 1:
        port = free_port()
        command += ["--processes", str(plan.processes), "--master-bind-port", port, "--master-port", port]
    rounds = 2 + plan.requests / plan.streams
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**{name: value for name, value in os.environ.items() if not name.startswith(_THEIRS)}, **_NOBODYS},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=_SPARE_S + 3 * rounds * plan.timing.answer_s,
        check=False,
    )
    # 1 is Locust's code for failed requests: their rows say more.
    if ended.returncode not in (0, 1):
        raise RunError(f"the load process ended with exit code {ended.returncode}:\n{ended.stderr[-2000:]}")


def free_port() -> str:
    """A port for master and workers to meet at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _read(prefix: Path, what: str) -> list[dict[str, str]]:
    with Path(f"{prefix}_llm_{what}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _outcome(
    plan: Plan, server: str, rows: list[dict[str, str]], stage: dict[str, str], truth: Truth, neighbours: float
) -> Outcome:
    measured = [row for row in rows if row["measured"] == "1"]
    if len(measured) != plan.requests:
        raise RunError(f"{len(measured)} measured rows, but {plan.requests} requests were asked for")
    good = [row for row in measured if not row["error_code"]]
    if not good:
        raise RunError(f"every request failed, the first with: {measured[0]['error_message']}")
    pairs = [(row, _sent(truth, row["response_id"])) for row in good]
    ttft_errors_s = _ordered(_ttft_error_s(row, sent) for row, sent in pairs)
    span_errors_s = _ordered(_span_error_s(row, sent) for row, sent in pairs)
    tokens = str(plan.timing.tokens)
    latencies_s = [float(row["queue_s"]) + float(row["end_to_end_latency_s"]) for row in good]
    window_tokens = float(stage["window_tokens"])
    return Outcome(
        server=server,
        requests=plan.requests,
        failed=len(measured) - len(good),
        miscounted=sum(row["output_tokens"] != tokens or row["chunks"] != tokens for row in good),
        ttft_p50_s=quantile(ttft_errors_s, 0.5),
        ttft_p99_s=quantile(ttft_errors_s, 0.99),
        span_p99_s=quantile(span_errors_s, 0.99),
        cpu_per_token_s=float(stage["client_cpu_s"]) / window_tokens if window_tokens else float("nan"),
        rate=plan.timing.answer_s / (sum(latencies_s) / len(latencies_s)),
        health=stage["health"],
        stamp_source=stage["stamp_source"],
        late_p99_s=truth.late_p99_s,
        server_cpu_per_token_s=truth.cpu_per_token_s,
        neighbours=neighbours,
    )


def _sent(truth: Truth, response_id: str) -> Sent:
    try:
        return truth.sent[response_id]
    except KeyError:
        raise RunError(f"the server's log has no answer {response_id!r}, but the load process has its row") from None


def _ttft_error_s(row: dict[str, str], sent: Sent) -> float:
    """The client's time to first token less the server's time from reading the request to sending its first token."""
    return abs(float(row["ttft_s"]) - (sent.first_ns - sent.received_ns) / 1e9)


def _span_error_s(row: dict[str, str], sent: Sent) -> float:
    """The client's time between first and last token less the server's."""
    return abs(float(row["last_token_s"]) - float(row["ttft_s"]) - (sent.last_ns - sent.first_ns) / 1e9)


def _ordered(values: Iterable[float]) -> list[float]:
    return sorted(values)
