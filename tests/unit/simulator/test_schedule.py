"""Tokens leave when they should, and the log says when they left."""

import json
import os
import signal
import statistics
import threading
import time

import pytest

from llm_users.simulator.launch import launch

from .wire import CHAT, Client, body, request_bytes


def entries(path):
    return {entry["response_id"]: entry for entry in map(json.loads, path.read_text().splitlines())}


def run_many(port, count, **fields):
    """So many streams at once, one thread each; their answers and how long they took."""
    answers = [None] * count

    def one(index):
        with Client(port) as client:
            answers[index] = client.chat(**fields)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all(answers)
    return answers


@pytest.mark.alone
@pytest.mark.parametrize("poller", ["auto", "selectors"])
def test_log_schedule_and_arrival_agree(tmp_path, poller):
    log = tmp_path / "log.jsonl"
    with launch("ttft=80ms,itl=7ms", log=log, options=["--poller", poller]) as sim, Client(sim.port) as client:
        client.chat(max_tokens=1)
        before_ns = time.monotonic_ns()
        answer = client.chat(max_tokens=40)
        totals = sim.stop()
    entry = entries(log)[answer.headers["x-request-id"]]
    assert entry["outcome"] == "completed"
    assert (entry["tokens"], entry["prompt_tokens"], entry["active"]) == (40, 5, 1)
    assert len(entry["sent_ns"]) == 40
    assert (entry["first_ns"], entry["last_ns"]) == (entry["sent_ns"][0], entry["sent_ns"][-1])
    assert 0 <= entry["received_ns"] - before_ns < 20e6
    assert entry["ideal_first_ns"] == entry["received_ns"] + 80_000_000
    late_ns = [sent_ns - entry["ideal_first_ns"] - k * 7_000_000 for k, sent_ns in enumerate(entry["sent_ns"])]
    assert min(late_ns) >= 0
    assert max(late_ns) == entry["late_max_ns"]
    assert statistics.median(late_ns) < 3e6  # absolute schedule: token 39 is no later than token 0
    flight_ns = [stamp_ns - sent_ns for (stamp_ns, _), sent_ns in zip(answer.pieces(), entry["sent_ns"], strict=True)]
    assert min(flight_ns) >= 0
    assert statistics.median(flight_ns) < 3e6
    assert (totals["requests"], totals["completed"], totals["tokens"]) == (2, 2, 41)
    assert totals["late_p50_us"] <= totals["late_p99_us"] <= totals["late_max_us"]


@pytest.mark.alone
def test_received_is_the_arrival_even_when_the_loop_is_busy(tmp_path):
    log = tmp_path / "log.jsonl"
    with launch("ttft=50ms,itl=1ms", log=log) as sim, Client(sim.port) as client:
        client.chat(max_tokens=1)
        os.kill(sim.pid, signal.SIGSTOP)
        time.sleep(0.02)
        sent_ns = time.monotonic_ns()
        client.send("POST", CHAT, body(max_tokens=3))
        time.sleep(0.1)
        os.kill(sim.pid, signal.SIGCONT)
        answer = client.read()
    entry = entries(log)[answer.headers["x-request-id"]]
    if entry["received_by"] != "kernel":
        pytest.skip("this kernel does not stamp")
    assert abs(entry["received_ns"] - sent_ns) < 10e6
    assert entry["late_max_ns"] > 40e6  # the stop is counted as lateness, not hidden


def test_whole_answers_take_as_long(tmp_path):
    log = tmp_path / "log.jsonl"
    with launch("ttft=50ms,itl=10ms", log=log) as sim, Client(sim.port) as client:
        begin_ns = time.monotonic_ns()
        answer = client.chat(stream=False, max_tokens=11)
        took_s = (time.monotonic_ns() - begin_ns) / 1e9
    assert 0.15 <= took_s < 0.25
    entry = entries(log)[answer.json()["id"]]
    assert (entry["tokens"], len(entry["sent_ns"])) == (11, 1)


@pytest.mark.alone
def test_tokens_per_chunk_keeps_the_pace(tmp_path):
    log = tmp_path / "log.jsonl"
    with launch("ttft=20ms,itl=5ms,tokens_per_chunk=4", log=log) as sim, Client(sim.port) as client:
        client.chat(max_tokens=17)
    (entry,) = entries(log).values()
    assert len(entry["sent_ns"]) == 5
    assert (entry["last_ns"] - entry["first_ns"]) / 1e9 == pytest.approx(16 * 0.005, abs=0.01)


@pytest.mark.alone
def test_capacity_stretches_the_gaps(tmp_path):
    log = tmp_path / "log.jsonl"
    with launch("ttft=20ms,itl=5ms,capacity=2", log=log) as sim:
        run_many(sim.port, 2, max_tokens=20)
        run_many(sim.port, 6, max_tokens=20)
        totals = sim.stop()
    assert totals["peak_active"] == 6
    spans_s = [(entry["last_ns"] - entry["first_ns"]) / 1e9 for entry in entries(log).values()]
    assert max(spans_s[:2]) == pytest.approx(0.095, abs=0.02)
    assert statistics.median(spans_s[2:]) == pytest.approx(0.095 * 3, rel=0.2)


def test_jitter_is_seeded_and_keeps_the_mean(tmp_path):
    gaps = []
    for run, seed in enumerate((1, 1, 2)):
        log = tmp_path / f"{run}.jsonl"
        with launch(f"ttft=10ms,itl=1ms,jitter=0.3,seed={seed}", log=log) as sim, Client(sim.port) as client:
            client.chat(max_tokens=300)
        (entry,) = entries(log).values()
        sent_ns = entry["sent_ns"]
        gaps.append((entry["ideal_first_ns"] - entry["received_ns"], entry["last_ns"] - entry["first_ns"], sent_ns))
    assert gaps[0][0] == gaps[1][0] != gaps[2][0]  # what was due is the same to the nanosecond
    spans_s = [span_ns / 1e9 for _, span_ns, _ in gaps]
    assert spans_s[0] == pytest.approx(spans_s[1], abs=0.02)
    assert statistics.mean(spans_s) == pytest.approx(0.3, rel=0.15)
    steps_s = [(b - a) / 1e9 for a, b in zip(gaps[0][2], gaps[0][2][1:], strict=False)]
    assert statistics.pstdev(steps_s) > 0.0001


def test_a_client_that_hangs_up(tmp_path):
    log = tmp_path / "log.jsonl"
    with launch("ttft=10ms,itl=10ms", log=log) as sim:
        with Client(sim.port) as other:
            other.send("POST", CHAT, body(max_tokens=30))
            with Client(sim.port) as gone:
                gone.send("POST", CHAT, body(max_tokens=5000))
                time.sleep(0.1)
            assert len(other.read().text().split()) == 30
            stats = other.ask("GET", "/v1/stats").json()
            assert (stats["active"], stats["aborted"], stats["connections"]) == (0, 1, 1)
        totals = sim.stop()
    assert (totals["completed"], totals["aborted"]) == (1, 1)
    outcomes = {entry["outcome"]: entry for entry in entries(log).values()}
    assert 2 <= outcomes["aborted"]["tokens"] < 30
    assert outcomes["aborted"]["tokens"] == len(outcomes["aborted"]["sent_ns"])
    assert outcomes["completed"]["tokens"] == 30


def test_errors_are_logged(tmp_path):
    log = tmp_path / "log.jsonl"
    with launch("error=503:1", log=log) as sim, Client(sim.port) as client:
        answer = client.chat()
        assert sim.stop()["errors"] == 1
    entry = entries(log)[answer.headers["x-request-id"]]
    assert (entry["outcome"], entry["status"], entry["tokens"], entry["first_ns"]) == ("error", 503, 0, None)


def test_a_client_that_does_not_read_delays_nobody(tmp_path):
    log = tmp_path / "log.jsonl"
    with launch("ttft=1ms,itl=0,tokens_per_chunk=5000", log=log) as sim:
        with Client(sim.port) as lazy, Client(sim.port) as other:
            lazy.send("POST", CHAT, body(max_tokens=1_000_000))
            time.sleep(0.5)
            begin_s = time.monotonic()
            assert other.chat(max_tokens=1).status == 200
            assert time.monotonic() - begin_s < 1
            answer = lazy.read()
            assert len(answer.text().split()) == 1_000_000
        sim.stop()
    assert max(entry["held"] for entry in entries(log).values()) > 0


@pytest.mark.alone
def test_requests_are_read_while_tokens_flood(tmp_path):
    """Streams that are due at every instant must not keep a new request waiting."""
    with launch("ttft=1ms,itl=1us") as sim:
        flood = [Client(sim.port) for _ in range(8)]
        for client in flood:
            client.send("POST", CHAT, body(max_tokens=1_000_000))
        with Client(sim.port) as other:
            begin_s = time.monotonic()
            assert other.ask("GET", "/health").status == 200
            assert time.monotonic() - begin_s < 1
        for client in flood:
            client.sock.close()


@pytest.mark.alone
def test_many_streams_at_once(tmp_path):
    """200 requests in one instant, all on time: the reading of one does not hold up the tokens of another."""
    log = tmp_path / "log.jsonl"
    with launch("ttft=100ms,itl=20ms", log=log) as sim:
        clients = [Client(sim.port) for _ in range(200)]
        for client in clients:
            client.sock.sendall(request_bytes("POST", CHAT, body(max_tokens=10)))
        assert all(len(client.read().text().split()) == 10 for client in clients)
        for client in clients:
            client.sock.close()
        totals = sim.stop()
    assert (totals["completed"], totals["tokens"], totals["peak_active"]) == (200, 2000, 200)
    assert totals["late_p99_us"] < 20_000
    assert totals["cpu_us_per_token"] < 120  # a whole request for each ten tokens is in it
