"""What a run loads: a chat run needs no other SDK, and no process needs the report before the test has ended."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_neither_do_a_master_and_its_workers(locust: Locust) -> None:
    run(locust, "--processes", "1", *master_ports())
    assert not loaded(locust, "MasterRunner") & NOT_NEEDED
    assert not loaded(locust, "WorkerRunner") & {*NOT_NEEDED, "llm_reports"}
