"""The sampler against scripted servers: what a failure costs, and what it says."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

import llm_users.extension  # noqa: F401 - Locust patches the interpreter before anything opens a socket
from llm_users.server_metrics.endpoint import MetricsEndpoint
from llm_users.server_metrics.sampler import ServerMetrics
from llm_users.transport.pool import Pool
from tests.wire_server import HOLD, Script, Wire, pause, send


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as running:
        yield running


def text(tokens: int, running: int = 1) -> Script:
    body = f"vllm:num_requests_running {running}\nvllm:generation_tokens_total {tokens}\n".encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    return [send(head + body)]


BROKEN: Script = [send(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")]


class Run:
    """A run whose stages take as long as the sampler needs for ``samples`` readings."""

    def __init__(self, wire: Wire, *scripts: Script, interval_s: float = 0.5) -> None:
        self.notes: list[str] = []
        self.url = f"{wire.serve(*scripts).root}/metrics"
        self.metrics = ServerMetrics(
            [MetricsEndpoint(self.url, Pool(2.0))], asked=True, note=self.notes.append, interval_s=interval_s
        )

    def stage(self, number: int, samples: int = 0) -> dict[str, float | None]:
        self.metrics.stage_starts(number)
        seen = len(self.metrics.samples_since(0))
        while len(self.metrics.samples_since(0)) < seen + samples:
            gevent.sleep(0.01)
        rows = self.metrics.stage_ends(number, "r")
        return {row.metric: row.mean if row.kind == "gauge" else row.increase for row in rows}


def test_stages_follow_each_other(wire: Wire) -> None:
    run = Run(wire, text(100), text(150, 3), text(200), text(250, 7), text(320))
    assert run.stage(1, samples=1) == {"requests_running": 3, "generation_tokens": 100}
    assert run.stage(2, samples=1) == {"requests_running": 7, "generation_tokens": 120}
    run.metrics.stop()
    assert run.notes == []
    (latest,) = run.metrics.latest()
    assert (latest.server, latest.engine, latest.values["requests_running"]) == (run.url, "vllm", 7)
    assert 0 < latest.values["generation_tokens"] < 250  # 100 tokens between two samples that are 0.5 s apart or more
    assert [sample.number for sample in run.metrics.samples_since(1)] == [2]


def test_a_failed_reading_at_the_end_of_a_stage_is_noted_and_the_stage_after_it_has_no_figures(wire: Wire) -> None:
    run = Run(wire, text(100), BROKEN, text(300), text(400), interval_s=60)
    assert run.stage(1) == {}
    assert run.notes == [f"stage 1 has no figures of the server: {run.url} answers with status 500"]
    assert run.stage(2) == {}
    assert run.stage(3) == {"generation_tokens": 100}
    run.metrics.stop()


def test_after_three_failures_in_a_row_the_server_is_not_asked_again(wire: Wire) -> None:
    run = Run(wire, text(100), BROKEN, interval_s=0.1)
    gevent.sleep(1.5)
    assert run.stage(1) == {}
    run.metrics.stop()
    (note,) = run.notes
    assert note.startswith(f"the server's metrics are no longer read: {run.url} answers with status 500")


def test_a_restart_of_the_server_is_noted(wire: Wire) -> None:
    run = Run(wire, text(100), text(150, 2), text(20))
    assert run.stage(1, samples=1) == {"requests_running": 2}
    run.metrics.stop()
    assert run.notes == [
        f"stage 1 has no figures of the server: {run.url} was restarted, or several servers answer there"
    ]


def test_a_silent_server_delays_the_end_of_a_stage_by_two_seconds_at_most(wire: Wire) -> None:
    run = Run(wire, text(100), [HOLD], interval_s=60)
    run.metrics.stage_starts(1)
    with gevent.Timeout(3.0):
        assert run.metrics.stage_ends(1, "r") == []
    run.metrics.stop()


def test_a_restart_between_two_stages_is_noted_once(wire: Wire) -> None:
    def started(tokens: int, at_s: int) -> Script:
        body = f"process_start_time_seconds {at_s}.25\nvllm:generation_tokens_total {tokens}\n".encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        return [send(head + body)]

    run = Run(wire, started(5, 1), started(50, 1), started(400, 2), started(500, 3), started(700, 3), interval_s=60)
    assert run.stage(1) == {"generation_tokens": 45}
    assert run.stage(2) == {}
    assert run.stage(3) == {}
    assert run.stage(4) == {"generation_tokens": 200}
    run.metrics.stop()
    assert run.notes == [
        f"stage 2 has no figures of the server: {run.url} was restarted, or several servers answer there"
    ]


def test_gauges_of_the_idle_server_after_the_last_request_do_not_count(wire: Wire) -> None:
    def late(running: int) -> Script:
        return [pause(0.3), *text(200, running)]

    run = Run(wire, text(100), text(150, 3), late(0), text(200), interval_s=0.2)
    run.metrics.stage_starts(1)
    while not run.metrics.latest():
        gevent.sleep(0.01)
    gevent.sleep(0.3)  # the second sample has been requested, and its answer comes after the end of the stage
    rows = {row.metric: row for row in run.metrics.stage_ends(1, "r")}
    run.metrics.stop()
    running = rows["requests_running"]
    assert (running.mean, running.minimum, running.scrapes) == (3, 3, 1)


def test_a_slow_server_does_not_delay_the_samples_of_another(wire: Wire) -> None:
    slow, quick = (
        MetricsEndpoint(f"{wire.serve(*scripts).root}/metrics", Pool(2.0))
        for scripts in ((text(1), [HOLD]), (text(1), text(2)))
    )
    metrics = ServerMetrics([slow, quick], asked=True, note=lambda _text: None, interval_s=0.1)
    gevent.sleep(1.5)
    metrics.stop()
    assert len(metrics.samples_since(0)) >= 8
    assert {sample.server for sample in metrics.samples_since(0)} == {quick.url}


def test_an_answer_that_has_lost_its_metrics_is_a_failure(wire: Wire) -> None:
    body = b"# TYPE other_total counter\nother_total 1\n"
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    run = Run(wire, text(100), [send(head + body)], interval_s=60)
    assert run.stage(1) == {}
    run.metrics.stop()
    assert run.notes == [f"stage 1 has no figures of the server: {run.url} answers without metrics of vllm"]
