"""Starting from Locust's own web form: options as edited there, a second start, the stop button."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.ports import free_port, master_ports
from tests.system.locust_runs import Locust, Running
from tests.tracebacks import tracebacks

pytestmark = pytest.mark.slow

SLOW_BEGINNING = """
import gevent
from locust import events, task
from llm_users import OpenAIUser
from llm_users.extension import wiring_of

class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat("Name a river.", max_tokens=4)

@events.init.add_listener
def on_init(environment, **_kwargs):
    role = wiring_of(environment).coordinating
    if role is None:  # on a worker
        return
    coordinator, make = role.coordinator, role.coordinator._make_writer

    def make_slowly(*arguments):
        gevent.sleep(1.5)
        return make(*arguments)

    coordinator._make_writer = make_slowly
"""


class Web:
    """Locust's web interface, as a browser's form uses it."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def post(self, path: str, **form: str) -> dict[str, Any]:
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(self.base + path, data=data, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.base + path, timeout=10) as response:
            return json.load(response)

    def state(self) -> str:
        return str(self.get("/stats/requests")["state"])

    def start_again(self, started: Callable[[], bool], **form: str) -> None:
        """Press start until it has an effect: Locust says success, and does nothing, while the last shape winds up."""

        def pressed() -> bool:
            self.post("/swarm", **form)
            time.sleep(1)
            return started()

        _await(pressed, "a new start that moves the old files aside")

    def await_workers(self, count: int) -> None:
        """Until so many workers can take a test."""
        _await(
            lambda: [w["state"] for w in self.get("/stats/requests").get("workers", [])].count("ready") == count,
            "workers",
        )


def _await(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{what} did not happen within {timeout_s} s")


def _opened(locust: Locust, processes: int, **how: str) -> tuple[Running, Web]:
    """Locust with its web interface, as many workers as asked for ready."""
    port = str(free_port())
    more = ("--processes", str(processes), *master_ports()) if processes else ()
    running = locust.start("--web-port", port, "--web-host", "127.0.0.1", *more, headless=False, **how)
    web = Web(int(port))
    _await(lambda: web.state() == "ready", "the web interface")
    web.await_workers(processes)
    return running, web


@pytest.mark.parametrize("processes", [0, 2])
def test_two_sweeps_from_the_form_leave_two_sets_of_files(locust: Locust, simulator: Simulator, processes: int) -> None:
    running, web = _opened(locust, processes)
    form = {"user_count": "1", "spawn_rate": "1", "host": simulator.url, "llm_requests": "4"}
    assert web.post("/swarm", **form, llm_sweep="1,2")["success"]
    _await(lambda: len(running.finished_rows("stages")) == 2 and web.state() in ("stopped", "ready"), "the first sweep")
    web.await_workers(processes)
    web.start_again(lambda: running.prefix.with_name("run.1_llm_requests.csv").exists(), **form, llm_sweep="3")
    _await(
        lambda: len(running.finished_rows("stages")) == 1 and web.state() in ("stopped", "ready"), "the second sweep"
    )
    assert [row["stage"] for row in running.finished_rows("requests")].count("1") == 3 + 4
    web.await_workers(processes)
    form["llm_requests"] = "100000"
    web.start_again(lambda: running.prefix.with_name("run.2_llm_requests.csv").exists(), **form, llm_sweep="2")
    _await(lambda: len(running.finished_rows("requests")) > 3, "the third sweep")
    web.post("/stop")
    _await(lambda: web.state() in ("stopped", "ready"), "stopping")
    time.sleep(0.5)  # the last answer must be out: the signal would be raised in the middle of sending it
    running.interrupt()
    done = running.finish(30)
    rows = done.rows()
    assert sum(done.manifest["counts"]["sent"].values()) == len(rows)
    assert tracebacks(done.err) == [], done.err
    earlier = [Path(f"{running.prefix}.{number}_llm_run.json").read_text() for number in (1, 2)]
    assert len({done.manifest["run_key"], *(json.loads(text)["run_key"] for text in earlier)}) == 3


@pytest.mark.parametrize("processes", [0, 2])
def test_users_that_are_taken_away_in_the_middle_finish_their_requests(locust: Locust, processes: int) -> None:
    with launch("ttft=100ms,itl=10ms,tokens=40", max_seconds=90) as simulator:
        running, web = _opened(locust, processes)
        form = {"spawn_rate": "10", "host": simulator.url, "llm_requests": "100000"}
        assert web.post("/swarm", **form, user_count="6")["success"]
        _await(lambda: web.get("/stats/requests")["user_count"] == 6, "six users")
        _await(lambda: len(running.finished_rows("requests")) > 12, "two rounds of requests")
        assert web.post("/swarm", **form, user_count="2")["success"]
        _await(lambda: web.get("/stats/requests")["user_count"] == 2, "two users")
        progress = web.get("/llm/state.json")["progress"]
        assert (progress["stage"], progress["stages"], progress["concurrency"]) == (2, 2, 2)
        before = len(running.finished_rows("requests"))
        _await(lambda: len(running.finished_rows("requests")) > before + 6, "requests of those that are left")
        web.post("/stop")
        _await(lambda: web.state() in ("stopped", "ready"), "stopping")
        time.sleep(0.5)  # the last answer must be out: the signal would be raised in the middle of sending it
        running.interrupt()
        done = running.finish(30)
        served = simulator.stop()
    rows = done.rows()
    assert served["aborted"] == 0
    assert {row["error_code"] for row in rows} == {""}
    assert len(rows) == served["completed"] == sum(done.manifest["counts"]["sent"].values())
    measured = {(row["stage"], row["concurrency"]) for row in rows if row["measured"] == "1"}
    assert measured == {("1", "6"), ("2", "2")}, "each number of users is a stage"
    assert tracebacks(done.err) == [], done.err


@pytest.mark.parametrize("processes", [0, 2])
def test_a_run_that_is_being_begun_can_be_started_anew_and_stopped(
    locust: Locust, simulator: Simulator, processes: int, tmp_path: Path
) -> None:
    path = tmp_path / "slow_beginning.py"
    path.write_text(SLOW_BEGINNING)
    running, web = _opened(locust, processes, locustfile=str(path))
    form = {"spawn_rate": "10", "host": simulator.url}
    assert web.post("/swarm", **form, user_count="2")["success"]
    time.sleep(0.7)
    web.post("/stop")
    _await(lambda: web.state() in ("stopped", "ready"), "stopping")
    web.await_workers(processes)
    assert web.post("/swarm", **form, user_count="2")["success"]
    time.sleep(0.7)
    assert web.post("/swarm", **form, user_count="3")["success"]
    _await(lambda: web.get("/stats/requests")["user_count"] == 3, "three users")
    _await(lambda: len(running.finished_rows("requests")) > 12, "requests")
    refused = web.post("/swarm", **form, user_count="1", llm_sweep="2", llm_requests="4")
    assert not refused["success"]
    assert "stop it before" in refused["message"]
    web.post("/stop")
    _await(lambda: web.state() in ("stopped", "ready"), "stopping")
    time.sleep(0.5)  # the last answer must be out: the signal would be raised in the middle of sending it
    running.interrupt()
    done = running.finish(30)
    assert {row["concurrency"] for row in done.rows() if row["measured"] == "1"} == {"3"}
    assert tracebacks(done.err) == [], done.err


def test_an_open_loop_from_the_form_and_a_sweep_after_it(locust: Locust, simulator: Simulator) -> None:
    running, web = _opened(locust, 0)
    form = {"user_count": "1", "spawn_rate": "1", "host": simulator.url, "llm_requests": "20"}
    assert web.post("/swarm", **form, llm_sweep="", llm_rate="40,80")["success"]
    _await(lambda: len(running.finished_rows("stages")) == 2 and web.state() in ("stopped", "ready"), "the open loop")
    assert {row["rate_per_s"] for row in running.finished_rows("stages")} == {"40", "80"}
    assert web.post("/swarm", **form, llm_sweep="2", llm_rate="")["success"]
    _await(lambda: [row["rate_per_s"] for row in running.finished_rows("stages")] == [""], "the sweep")
    _await(lambda: web.state() in ("stopped", "ready"), "the sweep's end")
    time.sleep(0.5)
    running.interrupt()
    done = running.finish(30)
    assert [row["concurrency"] for row in done.rows("stages")] == ["2"]
    assert tracebacks(done.err) == [], done.err


def test_a_search_for_the_limit_starts_from_the_form(locust: Locust, simulator: Simulator) -> None:
    running, web = _opened(locust, 0)
    form = {"user_count": "1", "spawn_rate": "1", "host": simulator.url, "llm_requests": "72", "llm_ramp": "0.1s"}
    assert web.post("/swarm", **form, llm_find="e2e_p95<2", llm_sweep="8,12", llm_stage_time="1s")["success"]
    found = running.prefix.with_name("run_llm_find.csv")
    _await(lambda: found.exists() and web.state() in ("stopped", "ready"), "the search")
    time.sleep(0.5)  # the last answer must be out: the signal would be raised in the middle of sending it
    running.interrupt()
    done = running.finish(30)
    assert done.manifest["find"]["estimate"] == 12
    assert "at least 12 users" in done.out


def test_a_start_beyond_the_budget_or_without_a_disk_is_refused_in_the_form(
    locust: Locust, simulator: Simulator, tmp_path: Path
) -> None:
    """Before the start: 100 requests of 100 input and 100 output tokens cost 0.02 USD, and the budget is 0.01 USD."""
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"currency": "USD", "models": {"m": {"input": 1.0, "output": 1.0}}}))
    running, web = _opened(locust, 0)
    form = {"user_count": "1", "spawn_rate": "1", "host": simulator.url, "llm_model": "m", "llm_sweep": "1",
            "llm_input_tokens": "100,0", "llm_output_tokens": "100,0", "llm_warmup": "0",
            "llm_prices": str(prices), "llm_budget": "0.01"}  # fmt: skip
    refused = web.post("/swarm", **form, llm_requests="100")
    assert not refused["success"]
    assert "--llm-budget 0.01: stage 1 would cost about 0.0200 USD" in refused["message"]
    assert web.state() == "ready"

    folder = running.prefix.parent
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("a file in place of the folder")
    refused = web.post("/swarm", **form, llm_requests="10")
    assert not refused["success"]
    assert "a file exists at the path of the folder" in refused["message"]
    folder.unlink()
    folder.with_name("elsewhere").rename(folder)

    assert web.post("/swarm", **form, llm_requests="10")["success"]
    _await(lambda: len(running.finished_rows("stages")) == 1, "the run within the budget")
    running.interrupt()
    running.finish(30)
