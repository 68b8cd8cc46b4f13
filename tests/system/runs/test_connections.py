"""Connections in whole runs: what is the endpoint's fault, what is the load machine's, and what was sent twice."""

from __future__ import annotations

import re
import socket
from collections import Counter
from pathlib import Path

import pytest
import trustme

from llm_users.simulator.launch import Simulator, launch
from tests.ports import free_port
from tests.stream_bytes import chat_events, stream
from tests.system.locust_runs import Locust
from tests.wire_server import CLOSE, Wire

FEW_DESCRIPTORS = """
import os, resource
most = {most}
resource.setrlimit(resource.RLIMIT_NOFILE, (most, {hard}))
from llm_users.locustfiles.sweep import *
"""
HANDSHAKE_S = 0.3


def test_connecting_is_not_the_clients_lateness(locust: Locust, tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with Wire() as wire:
        port = wire.serve(stream(chat_events("a", "b")), tls=pem, handshake_s=HANDSHAKE_S)
        done = locust.run("--host", port.url, "--llm-model", "m", "--llm-sweep", "10", "--llm-requests", "110",
                          "--llm-new-connections", "--llm-insecure",
                          "--llm-server-metrics", "off")  # fmt: skip
        assert port.connections == 120
    assert done.code == 0, done.err
    rows = done.rows()
    assert len(rows) == 120
    for row in rows:
        assert float(row["connect_s"]) >= HANDSHAKE_S
        assert float(row["ttft_s"]) < HANDSHAKE_S
        assert float(row["queue_s"]) >= HANDSHAKE_S  # intended start to t0, connecting included
    (stage,) = done.rows("stages")
    assert float(stage["queue_p99_s"]) < HANDSHAKE_S / 2
    assert "requests started" not in done.err  # the reason that a late client is given


def test_too_few_descriptors_are_the_load_machines_limit(locust: Locust) -> None:
    locustfile = locust.folder / "few.py"
    locustfile.write_text(FEW_DESCRIPTORS.format(most=64, hard="most"))
    with launch("ttft=300ms,itl=5ms", max_seconds=120) as simulator:
        done = locust.run("--host", simulator.url, "--llm-sweep", "60", "--llm-requests", "180",
                          locustfile=str(locustfile))  # fmt: skip
    rows = done.rows()
    codes = Counter(row["error_code"] for row in rows)
    assert set(codes) == {"", "client_limit"}  # none is called the endpoint's, and the stage is not given up
    assert len(rows) == 180 + 60
    assert all("ulimit -n" in row["error_message"] for row in rows if row["error_code"])
    (stage,) = done.rows("stages")
    measured = [row for row in rows if row["measured"] == "1"]
    assert len(measured) == 180
    limited = sum(row["error_code"] == "client_limit" for row in measured)
    assert (stage["requests_client_limited"], stage["health"]) == (str(limited), "saturated")
    assert any("client_limit" in note and "ulimit -n" in note for note in done.manifest["notes"])
    assert re.search(r"the client was saturated \(\d+ requests found no free file descriptor", done.err)
    assert done.code == 1


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_limit(locust: Locust) -> None:
    locustfile = locust.folder / "low.py"
    locustfile.write_text(FEW_DESCRIPTORS.format(most=64, hard=300))  # Locust raises it to 10,000 or not at all
    with launch("ttft=300ms,itl=5ms", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-sweep", "150", "--llm-requests", "150", "--llm-warmup", "0",
                          "--llm-ramp", "0", locustfile=str(locustfile))  # fmt: skip
    assert Counter(row["error_code"] for row in done.rows()) == {"": 150}, done.err


def test_a_worker_that_cannot_connect_leaves_its_share_to_the_others(locust: Locust, simulator: Simulator) -> None:
    lame = locust.folder / "lame.py"
    # As many as are open now, and those that are kept for other purposes: none is left for connections.
    lame.write_text(FEW_DESCRIPTORS.format(most="len(os.listdir('/proc/self/fd')) + 24", hard="most"))
    port = str(free_port())
    master = locust.start("--host", simulator.url, "--llm-model", "m", "--llm-sweep", "40", "--llm-requests", "200",
                          "--llm-warmup", "0", "--master", "--expect-workers", "2",
                          "--master-bind-port", port)  # fmt: skip
    workers = [locust.start("--worker", "--master-port", port, prefix="well"),
               locust.start("--worker", "--master-port", port, prefix="lame", locustfile=str(lame))]  # fmt: skip
    done = master.finish(90)
    for worker in workers:
        worker.finish(20)
    rows = [row for row in done.rows() if row["measured"] == "1"]
    codes = Counter(row["error_code"] for row in rows)
    assert len(rows) == 200
    assert 20 <= codes["client_limit"] <= 40  # after 20 the worker ends its part; others were on their way
    assert codes[""] == 200 - codes["client_limit"]
    assert any("could not connect in stage 1" in note for note in done.manifest["notes"])
    assert "its first requests all failed to connect" not in done.err


@pytest.mark.slow
def test_a_stage_whose_first_requests_fail_goes_on_when_others_have_a_connection(locust: Locust) -> None:
    locustfile = locust.folder / "few.py"
    locustfile.write_text(FEW_DESCRIPTORS.format(most=56, hard="most"))
    with launch("ttft=1s,itl=5ms", max_seconds=120) as simulator:  # 20 have failed long before one has succeeded
        done = locust.run("--host", simulator.url, "--llm-sweep", "60", "--llm-requests", "120", "--llm-warmup", "0",
                          locustfile=str(locustfile))  # fmt: skip
    rows = done.rows()
    assert len(rows) == 120
    assert any(not row["error_code"] for row in rows)
    assert "its first requests all failed to connect" not in done.err


@pytest.mark.slow
def test_a_stage_in_which_nothing_can_be_reached_is_given_up(locust: Locust) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    done = locust.run("--host", nobody, "--llm-model", "m", "--llm-sweep", "4", "--llm-requests", "500")
    assert "the run ends: the endpoint cannot be used" in done.err
    assert len(done.rows()) < 40


@pytest.mark.parametrize("objective", ["errors<0.5"])
def test_what_was_sent_twice_is_counted_everywhere(locust: Locust, objective: str) -> None:
    answer = stream(chat_events("a", "b"))
    with Wire() as wire:
        # Every third request on a kept connection dies at once; what is sent again gets the next script.
        port = wire.serve(*[answer, [CLOSE]] * 10, answer)
        done = locust.run("--host", port.url, "--llm-model", "m", "--llm-sweep", "1", "--llm-requests", "30",
                          "--llm-warmup", "0", "--llm-slo", objective, "--llm-server-metrics", "off")  # fmt: skip
        served = len(port.requests())
    rows = done.rows()
    resent = sum(int(row["reconnects"]) for row in rows)
    assert len(rows) == 30
    assert (resent, served) == (10, 40), "each of the ten connections that died"
    assert not any(row["error_code"] for row in rows)
    (stage,) = done.rows("stages")
    assert stage["requests_resent"] == "10"
    assert any("were sent again on a new connection" in note for note in done.manifest["notes"])
    gate = done.out[done.out.index("## Gate") :]
    assert f"{stage['requests_resent']} of 30 requests were sent again" in " ".join(gate.split())
