"""Many processes: the same counts, every row accounted for."""

from __future__ import annotations

from collections import Counter

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.ports import free_port, master_ports
from tests.system.locust_runs import Locust


def test_counts_and_prompts_are_exact_over_processes(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "1,5,2", "--llm-requests", "13", "--processes", "3",
                      *master_ports(), timeout_s=90)  # fmt: skip
    assert done.code == 0, done.err
    rows = done.rows()
    by_stage = Counter((row["stage"], row["phase"]) for row in rows)
    assert by_stage == {
        ("1", "warmup"): 1, ("1", "measure"): 13,
        ("2", "warmup"): 5, ("2", "measure"): 13,
        ("3", "warmup"): 2, ("3", "measure"): 13,
    }  # fmt: skip
    indices = [int(row["prompt_index"]) for row in rows]
    assert len(set(indices)) == len(indices)
    assert all(int(row["prompt_index"]) % 3 == int(row["worker"]) for row in rows)
    assert len({row["request_id"] for row in rows}) == len(rows)
    counts = done.manifest["counts"]
    assert counts["sent"] == counts["received"]
    assert sum(counts["received"].values()) == len(rows)
    assert [stage["requests_measured"] for stage in done.rows("stages")] == ["13"] * 3


def test_master_and_workers_started_apart(locust: Locust, simulator: Simulator) -> None:
    port = str(free_port())
    master = locust.start("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "10", "--master",
                          "--expect-workers", "2", "--master-bind-port", port)  # fmt: skip
    workers = [locust.start("--worker", "--master-port", port, prefix=f"worker{number}") for number in range(2)]
    done = master.finish(60)
    assert done.code == 0, done.err
    assert sum(row["measured"] == "1" for row in done.rows()) == 10
    assert {row["worker"] for row in done.rows()} == {"0", "1"}
    for worker in workers:
        assert worker.finish(20).code == 0


def test_a_free_run_over_processes_is_one_stage(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "-u", "4", "-r", "4", "-t", "4s", "--processes", "2",
                      *master_ports())  # fmt: skip
    assert done.code == 0, done.err
    (stage,) = done.rows("stages")
    assert stage["concurrency"] == "4"
    assert int(stage["requests_measured"]) > 20


@pytest.mark.slow  # tests/system/crash loses one too
def test_a_worker_that_is_killed_is_noted_and_the_sweep_goes_on(locust: Locust) -> None:
    with launch("ttft=20ms,itl=10ms", max_seconds=90) as simulator:
        port = str(free_port())
        master = locust.start("--host", simulator.url, "--llm-sweep", "4,2", "--llm-requests", "60", "--master",
                              "--expect-workers", "2", "--master-bind-port", port,
                              "--llm-output-tokens", "30,0")  # fmt: skip
        workers = [locust.start("--worker", "--master-port", port, prefix=f"worker{number}") for number in range(2)]
        master.await_rows(8)
        workers[0].process.kill()
        done = master.finish(60)
    assert done.code == 3, done.err
    assert any("was lost in stage 1" in note for note in done.manifest["notes"])
    stages = done.rows("stages")
    assert [stage["stage"] for stage in stages] == ["1", "2"]
    assert int(stages[0]["requests_measured"]) < 60
    assert int(stages[1]["requests_measured"]) == 60


@pytest.mark.slow
def test_workers_that_are_ready_before_their_master_take_part(locust: Locust, simulator: Simulator) -> None:
    (locust.folder / "slow_master.py").write_text(
        "import gevent\n"
        "from locust import events, task\n"
        "from locust.runners import MasterRunner\n"
        "@events.init.add_listener\n"
        "def take_time(environment, **kwargs):\n"
        "    if isinstance(environment.runner, MasterRunner):\n"
        "        gevent.sleep(3)\n"
        "from llm_users import OpenAIUser\n"
        "class Chat(OpenAIUser):\n"
        "    @task\n"
        "    def ask(self):\n"
        "        self.chat()\n"
    )
    done = locust.run("--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "6", "--processes", "2",
                      *master_ports(), locustfile="slow_master.py")  # fmt: skip
    assert done.code == 0, done.err
    assert {row["worker"] for row in done.rows()} == {"0", "1"}
    assert "without locust-llm" not in done.err
