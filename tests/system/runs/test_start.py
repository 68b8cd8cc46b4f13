"""What a run loads, and how long its start and its end take.

A chat run needs no other SDK, a master needs none, and no process needs the report before the test has ended.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from llm_users.record import COL
from tests.ports import master_ports
from tests.system.locust_runs import Finished, Locust

NOT_NEEDED = {"boto3", "botocore", "pandas", "transformers"}

LOCUSTFILE = """
import json, os, sys

from locust import events, task

from llm_users import OpenAIUser


class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat()


@events.quitting.add_listener
def say(environment, **_kwargs):
    role = type(environment.runner).__name__
    with open(f"{role}.json", "w") as file:
        json.dump(sorted({name.split(".")[0] for name in sys.modules}), file)
"""


def loaded(locust: Locust, role: str) -> set[str]:
    """The packages that a process had loaded at the end of the test, before the report."""
    return set(json.loads((locust.folder / f"{role}.json").read_text()))


def run(locust: Locust, *arguments: str) -> Finished:
    path = Path(locust.folder / "chat.py")
    path.write_text(LOCUSTFILE)
    # 60 requests: with 50 or more, the stage's row says whether it was steady.
    sweep = ("--llm-sweep", "4", "--llm-requests", "60", "--llm-simulator", "ttft=5ms,itl=1ms", *arguments)
    done = locust.run(*sweep, locustfile=str(path))
    assert done.code == 0, done.err
    assert done.rows("stages")[0]["steadiness"]
    return done


def test_a_chat_run_loads_only_what_it_needs(locust: Locust) -> None:
    run(locust)
    packages = loaded(locust, "LocalRunner")
    assert {"openai", "numpy"} <= packages
    assert not packages & NOT_NEEDED


def test_forked_workers_load_only_what_they_need(locust: Locust) -> None:
    run(locust, "--processes", "1", *master_ports())
    assert {"openai", "tokenizers"} <= loaded(locust, "MasterRunner")  # before the fork, for all workers
    assert not loaded(locust, "MasterRunner") & NOT_NEEDED
    assert not loaded(locust, "WorkerRunner") & {*NOT_NEEDED, "llm_reports"}


def test_a_master_loads_neither_sdk_nor_tokenizer(locust: Locust) -> None:
    bind, bind_port, connect, port = master_ports()
    path = locust.folder / "chat.py"
    path.write_text(LOCUSTFILE)
    worker = locust.start("--worker", connect, port, locustfile=str(path), prefix="worker", csv=False)
    run(locust, "--master", bind, bind_port, "--expect-workers", "1")
    assert worker.finish().code == 0
    assert not loaded(locust, "MasterRunner") & {*NOT_NEEDED, "openai", "tokenizers"}
    assert {"openai", "tokenizers"} <= loaded(locust, "WorkerRunner")


def test_a_stage_begins_when_the_one_before_has_ended(locust: Locust) -> None:
    """Locust asks a shape once per second, and each of these stages takes a tenth of that."""
    stages = ("--llm-sweep", "1,2,3,4", "--llm-requests", "4", "--llm-warmup", "0")
    rows = locust.run(*stages, "--llm-simulator", "ttft=5ms,itl=1ms").rows()
    gaps_s = []
    for stage in (2, 3, 4):
        ends = [
            float(row[COL.started_at]) + float(row[COL.end_to_end_latency_s])
            for row in rows
            if int(row[COL.stage]) == stage - 1
        ]
        gaps_s.append(min(float(row[COL.started_at]) for row in rows if int(row[COL.stage]) == stage) - max(ends))
    assert sorted(gaps_s)[1] < 0.5, gaps_s


def test_forked_workers_and_their_master_do_not_wait_for_each_other(locust: Locust) -> None:
    """Locust looks for its workers once per second, and sleeps for 0.5 s whenever its master is told to quit."""
    said = run(locust, "--processes", "2", *master_ports()).err
    assert seconds_between(said, "reported as ready. 2 workers connected", "Shape test starting") < 0.5
    assert seconds_between(said, "The last worker quit", "Shape test completed") < 0.5
    assert seconds_between(said, "Shape test completed", "Shutting down") < 0.5


def seconds_between(log: str, first: str, then: str) -> float:
    """The time from one line of the log to the last line with another text."""
    lines = [line for line in log.splitlines() if line.startswith("[")]
    began = next(line for line in lines if first in line)
    ended = [line for line in lines if then in line][-1]
    return (time_of(ended) - time_of(began)).total_seconds()


def time_of(line: str) -> datetime:
    return datetime.strptime(line[1:24], "%Y-%m-%d %H:%M:%S,%f")
