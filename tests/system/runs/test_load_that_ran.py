"""The load that rows, stages and notes report is the load that ran, not the one that was asked for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.ports import master_ports
from tests.system.locust_runs import Finished, Locust

CHAT = """
from locust import LoadTestShape, User, constant, task
from locust.exception import StopUser
from llm_users import OpenAIUser
import itertools

numbers = itertools.count()

class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat("Name a river.", max_tokens=8)
"""
OTHER = """
class Other(User):
    fixed_count = 2
    wait_time = constant(0.5)

    @task
    def work(self):
        pass
"""
SOME_FAIL = """
class Chat(Chat):
    def on_start(self):
        if next(numbers) % 2:
            raise RuntimeError("login failed")
"""
SOME_LEAVE = """
class Chat(Chat):
    def on_start(self):
        self.leaves = next(numbers) % 2

    @task
    def ask(self):
        super().ask()
        super().ask()
        if self.leaves:
            raise StopUser
"""
STEPS = """
class Steps(LoadTestShape):
    def tick(self):
        time_s = self.get_run_time()
        return (2, 2) if time_s < 4 else (5, 5) if time_s < 60 else None
"""


def written(folder: Path, *parts: str) -> str:
    path = folder / "chat_locustfile.py"
    path.write_text("".join(parts))
    return str(path)


def labels(run: Finished) -> dict[tuple[str, str], int]:
    """How many measured rows each stage has with each number of users."""
    return dict(Counter((row["stage"], row["concurrency"]) for row in run.rows() if row["measured"] == "1"))


def users_seen(run: Finished, stage: str) -> int:
    """Different users that sent measured requests."""
    return len({row["user_id"] for row in run.rows() if row["stage"] == stage and row["measured"] == "1"})


def test_users_of_other_classes_are_left_out(locust: Locust, simulator: Simulator, tmp_path: Path) -> None:
    run = locust.run("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "20",
                     locustfile=written(tmp_path, CHAT, OTHER))  # fmt: skip
    assert run.code == 0, run.err
    assert labels(run) == {("1", "2"): 20}
    (stage,) = run.rows("stages")
    assert (stage["concurrency"], stage["concurrency_asked"]) == ("2", "2")
    assert any("2 of 4 users are of classes that do not send LLM requests" in note for note in run.manifest["notes"])
    assert "were not ready" not in run.err, "nobody waits for users that send no LLM requests"


def test_a_stage_has_the_users_that_came(locust: Locust, simulator: Simulator, tmp_path: Path) -> None:
    run = locust.run("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "20",
                     locustfile=written(tmp_path, CHAT, SOME_FAIL))  # fmt: skip
    assert run.code == 3, run.err
    assert labels(run) == {("1", "2"): 20}
    assert users_seen(run, "1") == 2
    (stage,) = run.rows("stages")
    assert (stage["concurrency"], stage["concurrency_asked"]) == ("2", "4")
    assert any(
        "only 2 of 4 users were ready: the others failed or left before their first request" in note
        for note in run.manifest["notes"]
    )
    assert "within" not in " ".join(run.manifest["notes"]), "it is clear at once that no more users come"
    assert "The load was below the requested load" in run.out
    assert "no stage ran with the requested number of users; see the warnings of the stages" in run.err
    assert run.err.count("2 of 4 users") == 1, "the last line does not repeat the warning"


def test_users_that_end_during_a_stage_are_missing_in_it(locust: Locust, simulator: Simulator, tmp_path: Path) -> None:
    run = locust.run("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "60",
                     locustfile=written(tmp_path, CHAT, SOME_LEAVE))  # fmt: skip
    (stage,) = run.rows("stages")
    assert (stage["concurrency"], stage["requests_measured"]) == ("4", "60")
    # Two users stay, and two are there until their last answer has ended: after one measured request each.
    measured = [row for row in run.rows() if row["measured"] == "1"]
    last = {row["user_id"]: float(row["started_at"]) + float(row["end_to_end_latency_s"]) for row in measured}
    began, lasted_s = float(stage["measure_started_at"]), float(stage["measure_s"])
    present_s = sum(min(ended - began, lasted_s) for ended in last.values())
    assert len(last) == 4
    assert float(stage["users_actual"]) == pytest.approx(present_s / lasted_s, rel=0.02)
    assert (stage["users_ended"], stage["concurrency_asked"]) == ("2", "4")
    assert any("of 4 users ran: users ended during the stage" in note for note in run.manifest["notes"])
    assert run.code == 3


def test_each_number_of_users_of_a_shape_is_a_stage(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "simulator.jsonl"
    with launch("ttft=200ms,itl=5ms", log=log, max_seconds=90) as simulator:
        run = locust.run("--host", simulator.url, "--llm-model", "simulated", "--llm-requests", "100",
                         locustfile=written(tmp_path, CHAT, STEPS))  # fmt: skip
    assert run.code == 0, run.err
    rows = run.rows()
    served = [line for line in log.read_text().splitlines() if '"chatcmpl' in line]
    assert len(served) == len(rows)
    found = labels(run)
    assert set(found) == {("1", "2"), ("2", "5")}
    assert sum(found.values()) == 100, "--llm-requests counts over the stages of the run"
    assert (users_seen(run, "1"), users_seen(run, "2")) == (2, 5)
    stages = run.rows("stages")
    for stage in stages:
        mine = [row for row in rows if row["stage"] == stage["stage"]]
        measured = found[stage["stage"], stage["concurrency"]]
        assert int(stage["requests_measured"]) == int(stage["requests_ok"]) == measured
        assert (stage["concurrency_asked"], stage["users_ended"]) == (stage["concurrency"], "0")
        assert int(stage["requests_started"]) == len(mine)
        assert float(stage["window_tokens"]) == pytest.approx(sum(float(row["window_tokens"] or 0) for row in mine))
        assert float(stage["concurrency_actual"]) == pytest.approx(int(stage["concurrency"]), rel=0.2)
    first_measured = min(float(row["started_at"]) for row in rows if row["stage"] == "2" and row["measured"] == "1")
    ended = [float(row["started_at"]) + float(row["end_to_end_latency_s"]) for row in rows if row["stage"] == "1"]
    assert max(ended) <= first_measured + 0.005, "no request of the first stage is in the window of the second one"


def test_a_sweep_beside_a_shape_is_refused(locust: Locust, simulator: Simulator, tmp_path: Path) -> None:
    run = locust.run("--host", simulator.url, "--llm-sweep", "2", locustfile=written(tmp_path, CHAT, STEPS))
    assert run.code == 2
    assert "the locustfile has a LoadTestShape (Steps)" in run.err


@pytest.mark.slow
def test_each_number_of_users_of_a_shape_is_a_stage_over_processes(locust: Locust, tmp_path: Path) -> None:
    with launch("ttft=200ms,itl=5ms", max_seconds=90) as simulator:
        run = locust.run("--host", simulator.url, "--llm-model", "simulated", "--llm-requests", "100", "--processes",
                         "2", *master_ports(), locustfile=written(tmp_path, CHAT, STEPS), timeout_s=90)  # fmt: skip
        served = simulator.stop()
    assert run.code == 0, run.err
    assert served["completed"] == len(run.rows())
    assert set(labels(run)) <= {("1", "2"), ("2", "5")}
    assert sum(labels(run).values()) == 100
    assert users_seen(run, "2") == 5


@pytest.mark.slow
def test_a_user_in_a_long_pause_is_present(locust: Locust, simulator: Simulator, tmp_path: Path) -> None:
    """The pause is longer than the time that a stage waits for its users."""
    pausing = "class Chat(Chat):\n    wait_time = constant(17)\n"
    run = locust.run("--host", simulator.url, "--llm-sweep", "2,3", "--llm-requests", "3", "--llm-warmup", "0",
                     locustfile=written(tmp_path, CHAT, pausing), timeout_s=120)  # fmt: skip
    assert run.code == 0, run.err
    assert labels(run) == {("1", "2"): 3, ("2", "3"): 3}
    assert "were not ready" not in run.err
    assert json.dumps(run.manifest["notes"]).count("of 3 users ran") == 0
