"""The commands of the Compose file and of the manifests are run: a master, its workers, the endpoint."""

from __future__ import annotations

import csv
import json
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.ports import free_port
from tests.system.deploy.conftest import SHORT, Containers
from tests.system.deploy.manifests import (
    ENDPOINT,
    Process,
    compose_processes,
    job_processes,
    operator_processes,
    operator_v2_processes,
    the,
)

SWEEP = ["--llm-sweep", "1,4", "--llm-requests", "8"]
WORKERS = 2
"""Instead of four, where the number is not what is looked at: each worker's start costs seconds of a core."""
HEADLESS: dict[str, Callable[[], list[Process]]] = {
    "compose": lambda: compose_processes(LLM_HEADLESS="true", LLM_MODEL="simulated"),
    "jobs": job_processes,
    "operator_v2": operator_v2_processes,
}


def rows(folder: Path, name: str = "run") -> list[dict[str, str]]:
    with (folder / f"{name}_llm_requests.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run_llm_run.json").read_text()))


def knock(port: str) -> None:
    """What the readiness probe does: a connection that says nothing."""
    with socket.create_connection(("127.0.0.1", int(port)), 2):
        pass


def await_port(port: str, timeout_s: float = 30) -> None:
    limit = time.monotonic() + timeout_s
    while True:
        try:
            return knock(port)
        except OSError:
            assert time.monotonic() < limit
            time.sleep(0.2)


@pytest.mark.parametrize("name", HEADLESS)
def test_a_headless_deployment_runs_to_its_end(name: str, containers: Containers, simulator: Simulator) -> None:
    master, worker = HEADLESS[name]()
    workers = worker.replicas if name == "jobs" else WORKERS
    containers.start(master, "--host", simulator.url, "--llm-model", "simulated", *SWEEP, *SHORT,
                     "--expect-workers", str(workers))  # fmt: skip
    for number in range(workers):
        containers.start(worker, number=number)
    await_port(containers.port)
    for _ in range(5):
        knock(containers.port)  # and nobody minds
    ended = containers.finish(90)
    assert {name: code for name, (code, _, _) in ended.items()} == dict.fromkeys(ended, 0), ended
    results = containers.folder / "results"
    found = rows(results)
    assert sum(row["measured"] == "1" for row in found) == 16
    assert not [row for row in found if row["error_code"]], "every worker had the key"
    assert {row["worker"] for row in found} == {str(number) for number in range(workers)}
    assert (results / "run_report" / "report.md").is_file()
    options = manifest(results)["options"]
    assert options["llm_sweep"] == "1,4"
    assert not list((containers.folder / "home").rglob("*.csv")), "nothing is written beside the volume"


@pytest.mark.parametrize("name", ["jobs", "operator_v2"])
def test_a_server_without_a_key_needs_no_secret(name: str, containers: Containers) -> None:
    deployment = {"jobs": job_processes, "operator_v2": operator_v2_processes}[name]
    master, worker = deployment(with_secret=False)
    assert "OPENAI_API_KEY" not in worker.environment
    with launch("ttft=5ms,itl=1ms", max_seconds=150) as open_to_all:
        containers.start(master, "--host", open_to_all.url, "--llm-model", "simulated", *SWEEP, *SHORT,
                         "--expect-workers", "1")  # fmt: skip
        containers.start(worker)
        ended = containers.finish(90)
    assert {name: code for name, (code, _, _) in ended.items()} == dict.fromkeys(ended, 0), ended
    assert not [row for row in rows(containers.folder / "results") if row["error_code"]]


def test_the_operators_master_starts_by_itself_and_keeps_its_page(containers: Containers, simulator: Simulator) -> None:
    locustfile = containers.folder / "home" / "locust" / "locustfile.py"
    locustfile.write_text(the("LocustTest", "llm-sweep", "locusttest.yaml")["spec"]["locustfile"]["content"])
    master, worker = operator_processes()
    web = str(free_port())
    containers.start(master, "--host", simulator.url, *SWEEP, *SHORT, "--expect-workers", str(WORKERS),
                     "--web-host", "127.0.0.1", "--web-port", web)  # fmt: skip
    for number in range(WORKERS):
        # This operator hands out no key, and its example asks an endpoint that wants none; the simulated one does.
        containers.start(worker_with_key(worker), number=number)
    written = containers.folder / "tmp" / "run_llm_run.json"
    limit = time.monotonic() + 60
    while not (written.exists() and manifest(written.parent).get("finished_at")):
        assert time.monotonic() < limit
        time.sleep(0.3)
    assert sum(row["measured"] == "1" for row in rows(containers.folder / "tmp")) == 16
    with urllib.request.urlopen(f"http://127.0.0.1:{web}/", timeout=5) as page:
        assert b"llm_sweep" in page.read()
    containers.terminate()
    ended = containers.finish(30)
    assert ended["master0"][0] == 0, ended


def worker_with_key(worker: Process) -> Process:
    return Process(worker.role, worker.arguments, secret_files=["OPENAI_API_KEY"])


def test_composes_variables_reach_the_options() -> None:
    master, _ = compose_processes()
    assert master.environment["LOCUST_HEADLESS"] == "false"
    assert master.environment["LOCUST_HOST"] == ENDPOINT
    with pytest.raises(AssertionError, match="set LLM_HOST to the endpoint"):
        compose_processes(LLM_HOST="")


def test_a_terminated_deployment_drains_and_loses_nothing(containers: Containers) -> None:
    master, worker = job_processes()
    with launch("ttft=20ms,itl=10ms", max_seconds=90) as simulator:
        containers.start(master, "--host", simulator.url, "--llm-model", "simulated", "--llm-sweep", "8",
                         "--llm-requests", "4000", "--llm-input-tokens", "20,5", "--llm-output-tokens", "100,0",
                         "--expect-workers", str(WORKERS))  # fmt: skip
        for number in range(WORKERS):
            containers.start(worker, number=number)
        results = containers.folder / "results"
        limit = time.monotonic() + 60
        while not ((results / "run_llm_requests.csv").exists() and len(rows(results)) > 10):
            assert time.monotonic() < limit
            time.sleep(0.2)
        containers.terminate()
        begun = time.monotonic()
        ended = containers.finish(60)
        took_s = time.monotonic() - begun
    counts = manifest(results)["counts"]
    assert counts["sent"] == counts["received"], (counts, ended)
    assert sum(counts["received"].values()) == len(rows(results))
    assert ended["master0"][0] == 3, "less was measured than was asked for"
    assert took_s < 30
