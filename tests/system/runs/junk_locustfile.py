"""A worker that, besides its work, sends its master what no worker would."""

from __future__ import annotations

from typing import Any

from locust import events, task
from locust.runners import WorkerRunner

from llm_users import OpenAIUser
from llm_users.load.protocol.messages import MESSAGES, Rows, WorkerMessage

JUNK: list[Any] = [
    None, 7, "text", [], {}, {"worker": "first"}, {"worker": -1, "stage": 1, "waiting": 1},
    {"worker": 0, "stage": 1, "waiting": 2**60}, {"worker": 0, "sent": True},
    {"stage": 1, "worker": 0, "gap_counts": {"a": 1}}, {"text": 1}, {"reason": None},
    {"rows": 3}, {"rows": {"a": 1}}, {"rows": [None]}, {"rows": [[["short"], []]]}, {"rows": [[[None] * 999, []]]},
]  # fmt: skip
KINDS = tuple(message.kind for message in MESSAGES if issubclass(message, WorkerMessage))


class Asker(OpenAIUser):
    @task
    def ask(self) -> None:
        self.chat()


@events.test_start.add_listener
def send_junk(environment: Any, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        for kind in KINDS:
            for data in JUNK:
                environment.runner.send_message(kind, data)


@events.report_to_master.add_listener
def add_junk(client_id: str, data: dict[str, Any], **_: Any) -> None:
    data.setdefault(Rows.kind, ["no row", [[], []], [["a"] * 55, [float("nan")]]])
