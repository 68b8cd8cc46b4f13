"""The server's own metrics in a run: they agree with what the server logged, and no server disturbs a run."""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
import time
import urllib.request
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.ports import free_port, master_ports
from tests.stream_bytes import reply
from tests.system.locust_runs import Finished, Locust
from tests.wire_server import HOLD, Wire, send

SPEC = "ttft=30ms,itl=4ms,jitter=0.2"
LOAD = ("--llm-sweep", "1,4", "--llm-requests", "30")


def metrics_of(done: Finished) -> dict[tuple[int, str], dict[str, float]]:
    """The rows of the file of server metrics by stage and metric, without empty cells."""
    rows = {}
    for row in done.rows("server"):
        numbers = {name: float(text) for name, text in row.items() if name not in _TEXTS and text}
        rows[int(row["stage"]), row["metric"]] = numbers
    return rows


_TEXTS = {"run_id", "stage", "server", "engine", "metric", "kind"}


def logged_by_stage(done: Finished, log: Path) -> dict[int, list[dict[str, Any]]]:
    """The simulator's log of each stage: the response ids tell to which row an entry belongs."""
    stages = {row["response_id"]: int(row["stage"]) for row in done.rows()}
    entries = defaultdict(list)
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        entries[stages[entry["response_id"]]].append(entry)
    return entries


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_the_figures_of_a_stage_are_those_of_the_servers_log(
    locust: Locust, tmp_path: Path, processes: tuple[str, ...]
) -> None:
    log = tmp_path / "log.jsonl"
    more = (*processes, *master_ports()) if processes else ()
    with launch(f"{SPEC},metrics=vllm", log=log, max_seconds=120) as simulator:
        done = locust.run("--host", simulator.url, *LOAD, *more, timeout_s=90)
    assert done.code == 0, done.err
    metrics = metrics_of(done)
    for stage, entries in logged_by_stage(done, log).items():
        assert len(entries) == 30 + (1, 4)[stage - 1]  # the server counts warm-up requests too
        ttft_s = [(entry["first_ns"] - entry["received_ns"]) / 1e9 for entry in entries]
        latency_s = [(entry["last_ns"] - entry["received_ns"]) / 1e9 for entry in entries]
        gaps_s = [
            (later - earlier) / 1e9
            for entry in entries
            for earlier, later in zip(entry["sent_ns"], entry["sent_ns"][1:], strict=False)
        ]
        for name, values in (("ttft_s", ttft_s), ("e2e_s", latency_s), ("itl_s", gaps_s)):
            found = metrics[stage, name]
            assert found["increase"] == len(values)
            assert found["mean"] == pytest.approx(statistics.fmean(values), rel=1e-6)
            median = sorted(values)[(len(values) + 1) // 2 - 1]
            assert found["p50_low"] <= median <= found["p50_high"]
        assert metrics[stage, "prompt_tokens"]["increase"] == sum(entry["prompt_tokens"] for entry in entries)
        tokens = sum(entry["tokens"] for entry in entries)
        assert metrics[stage, "generation_tokens"]["increase"] == tokens
        assert metrics[stage, "requests_finished"]["increase"] == len(entries)
        rows = [row for row in done.rows() if row["stage"] == str(stage)]
        span_s = max(float(r["started_at"]) + float(r["end_to_end_latency_s"]) for r in rows) - min(
            float(r["started_at"]) for r in rows
        )
        assert metrics[stage, "generation_tokens"]["per_s"] == pytest.approx(tokens / span_s, rel=0.25)
    assert list(done.manifest["server_metrics"].values()) == ["vllm"]
    assert not any("metrics" in note for note in done.manifest["notes"])


def test_gauges_follow_the_load(locust: Locust) -> None:
    with launch("ttft=100ms,itl=20ms,capacity=16,metrics=vllm", max_seconds=120) as simulator:
        done = locust.run(
            "--host", simulator.url, "--llm-sweep", "4", "--llm-stage-time", "6s", "--llm-output-tokens", "200,0"
        )
    running = metrics_of(done)[1, "requests_running"]
    # 4 users whose answers last 4 s: the gauge is below 4 only in the moments between two answers.
    assert running["maximum"] == 4
    assert running["scrapes"] >= 6
    assert running["mean"] >= 3
    assert metrics_of(done)[1, "kv_cache_usage"]["maximum"] == 4 / 16


def test_counts_that_differ_from_the_servers_get_a_note(locust: Locust) -> None:
    with launch(f"{SPEC},metrics=vllm,usage_factor=0.8", max_seconds=120) as simulator:
        done = locust.run("--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "30")
    counted = sum(int(row["output_tokens"]) for row in done.rows())
    sent = metrics_of(done)[1, "generation_tokens"]["increase"]
    assert counted < 0.9 * sent
    (note,) = [note for note in done.manifest["notes"] if "the server's metrics count" in note]
    share = (sent - counted) / counted
    assert f"{sent:.0f} output tokens instead of {counted} ({share:+.1%})" in note


def test_requests_of_other_clients_get_a_note(locust: Locust) -> None:
    with launch(f"{SPEC},metrics=vllm", max_seconds=120) as simulator:
        other = threading.Thread(target=_ask_for, args=(simulator, 6.0))
        other.start()
        done = locust.run("--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "60")
        other.join()
    finished = metrics_of(done)[1, "requests_finished"]["increase"]
    assert finished > len(done.rows())
    (note,) = [note for note in done.manifest["notes"] if "other clients" in note]
    assert f"finished {finished:.0f} requests and the rows have {len(done.rows())}" in note


def _ask_for(simulator: Simulator, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    body = {"model": "simulated", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 4}
    while time.monotonic() < end_s:
        request = urllib.request.Request(
            f"{simulator.url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).read()


def test_a_server_without_metrics_changes_nothing(locust: Locust) -> None:
    with launch(SPEC, max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, *LOAD)
    assert done.code == 0
    assert not Path(f"{done.prefix}_llm_server.csv").exists()
    assert "metrics" not in " ".join(done.manifest["notes"])


def test_off_asks_nothing(locust: Locust) -> None:
    with Wire() as wire, launch(SPEC, max_seconds=60) as simulator:
        port = wire.serve(reply("200 OK", {}))
        asked = locust.run("--host", simulator.url, *LOAD, "--llm-server-metrics", f"{port.root}/metrics")
        assert [request.target for request in port.requests()] == ["/metrics"]
        locust.run("--host", simulator.url, *LOAD, "--llm-server-metrics", "off", prefix="off")
        assert len(port.requests()) == 1
    (note,) = [note for note in asked.manifest["notes"] if "metrics" in note]
    assert note.startswith(f"the server's metrics are not read: {port.root}/metrics answers with the content type")


def test_metrics_are_read_without_keys_by_the_master_alone(locust: Locust) -> None:
    with Wire() as wire, launch(f"{SPEC},api_key=correct-horse-battery", max_seconds=90) as simulator:
        port = wire.serve(_metrics_reply(b"vllm:num_requests_running 3\n"))
        bind = str(free_port())
        environment = {"OPENAI_API_KEY": "correct-horse-battery"}
        master = locust.start(
            "--host", simulator.url, *LOAD, "--master", "--expect-workers", "2", "--master-bind-port", bind,
            "--llm-server-metrics", f"{port.root}/metrics", env=environment,
        )  # fmt: skip
        for number in range(2):
            locust.start("--worker", "--master-port", bind, prefix=f"worker{number}", env=environment)
        done = master.finish(60)
        requests = port.requests()
    assert done.code == 0, done.err
    assert {row["mean"] for row in done.rows("server")} == {"3"}
    assert port.url not in done.err
    assert all(request.target == "/metrics" for request in requests)
    assert not any({"authorization", "cookie", "x-api-key"} & request.headers.keys() for request in requests)
    rows = done.rows()
    seconds = max(float(row["started_at"]) for row in rows) - min(float(row["started_at"]) for row in rows)
    assert len(requests) <= 2 * seconds + 12  # one reader: once a second, and around the stages


def _metrics_reply(text: bytes) -> list[Any]:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(text)}\r\n\r\n"
    return [send(head.encode() + text)]


def test_a_server_that_stops_answering_gets_one_note_and_the_run_goes_on(locust: Locust) -> None:
    with Wire() as wire, launch(SPEC, max_seconds=90) as simulator:
        port = wire.serve(_metrics_reply(b"vllm:num_requests_running 3\n"), [HOLD])
        done = locust.run(
            "--host", simulator.url, "--llm-sweep", "2", "--llm-stage-time", "9s",
            "--llm-server-metrics", f"{port.root}/metrics",
        )  # fmt: skip
    assert done.code == 0, done.err
    (note,) = [note for note in done.manifest["notes"] if "metrics" in note]
    assert f"{port.root}/metrics did not answer within 2 s; the run continues" in note
    assert len(done.rows("stages")) == 1


def test_a_run_that_is_ended_while_the_server_is_read_keeps_the_stage(locust: Locust) -> None:
    with (
        launch(f"{SPEC},metrics=vllm", max_seconds=60) as simulator,
        SlowCopy(metrics_url(simulator), 1.5) as copy,
    ):
        running = locust.start("--host", simulator.url, *LOAD, "--llm-server-metrics", copy.url)
        running.await_rows(31)
        time.sleep(0.3)  # stage 1 is over, and its last reading takes 1.5 s
        running.interrupt()
        done = running.finish()
    assert done.code == 3
    (stage,) = done.rows("stages")
    assert (stage["stage"], stage["requests_measured"]) == ("1", "30")
    assert metrics_of(done)[1, "requests_finished"]["increase"] == 31


def test_requests_that_unread_servers_answered_get_one_note(locust: Locust) -> None:
    with launch(f"{SPEC},metrics=vllm", max_seconds=60) as read, launch(SPEC, max_seconds=60) as other:
        targets = f"simulated@{read.url},simulated@{other.url}"
        done = locust.run(
            "--host", read.url, "--llm-targets", targets, *LOAD, "--llm-server-metrics", metrics_url(read)
        )
    rows = done.rows()
    of_server = sum(row["endpoint"] == read.url for row in rows if row["stage"] == "1")
    of_stage = sum(row["stage"] == "1" for row in rows)
    assert 0 < of_server < of_stage
    (note,) = [note for note in done.manifest["notes"] if "the server" in note]
    assert f"stage 1: the server finished {of_server} requests and the rows have {of_stage} successful ones" in note


STEPS = """
from locust import LoadTestShape, task
from llm_users import OpenAIUser

class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat("Name a river.", max_tokens=8)

class Steps(LoadTestShape):
    def tick(self):
        time_s = self.get_run_time()
        return (2, 2) if time_s < 4 else (5, 5) if time_s < 8 else None
"""


def test_no_request_is_lost_or_counted_twice_when_the_number_of_users_changes(locust: Locust, tmp_path: Path) -> None:
    locustfile = tmp_path / "steps_locustfile.py"
    locustfile.write_text(STEPS)
    with launch("ttft=30ms,itl=4ms,metrics=vllm", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-model", "simulated", locustfile=str(locustfile))
        served = simulator.stop()
    metrics, rows = metrics_of(done), done.rows()
    assert {row["stage"] for row in rows} == {"1", "2"}
    finished = [metrics[stage, "requests_finished"]["increase"] for stage in (1, 2)]
    assert sum(finished) == served["completed"] + served.get("aborted", 0)
    for stage, count in zip("12", finished, strict=True):  # requests in flight at the change count for either stage
        assert abs(count - sum(row["stage"] == stage for row in rows)) <= 10
    assert not [note for note in done.manifest["notes"] if "the server" in note]


def test_rates_of_a_run_without_a_sweep_count_from_its_first_request(locust: Locust) -> None:
    with launch("ttft=30ms,itl=4ms,metrics=vllm", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "-u", "3", "-r", "1", "-t", "6s")
    rows = done.rows()
    assert sum(row["phase"] == "ramp" for row in rows) > 20  # the first two users send requests before the third starts
    starts = [float(row["started_at"]) for row in rows]
    span_s = max(float(row["started_at"]) + float(row["end_to_end_latency_s"] or 0) for row in rows) - min(starts)
    per_s = sum(int(row["output_tokens"]) for row in rows) / span_s
    assert metrics_of(done)[1, "generation_tokens"]["per_s"] == pytest.approx(per_s, rel=0.1)


def metrics_url(simulator: Simulator) -> str:
    return f"{simulator.url.removesuffix('/v1')}/metrics"


class SlowCopy:
    """A server that copies the metrics of another one, each time after a delay."""

    def __init__(self, source: str, delay_s: float) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(delay_s)
                with contextlib.suppress(OSError):
                    body = urllib.request.urlopen(source, timeout=5).read()
                    self.send_response(200)
                    self.send_header("content-type", "text/plain")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"

    def __enter__(self) -> SlowCopy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
