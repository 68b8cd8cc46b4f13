"""A Locust environment used as a library, whose users do what a test hands them: one call after the other."""

from __future__ import annotations

import argparse
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.queue import Queue
from locust import runners, task
from locust.env import Environment

import llm_users
from llm_users import OpenAIUser, RequestRecord
from llm_users.extension import wiring_of
from llm_users.users.answer import Answer

# For a debug message, Locust looks up the sources of all callers of stop(): 0.1 s in a process with thousands of
# modules, for each of some hundred rigs. It does without them when this fails.
vars(runners)["inspect"] = None

Job = Callable[[Any], Any]

NOWHERE = "http://127.0.0.1:9/v1"
_BOUND_S = 20.0


@dataclass
class Seen:
    """What the public events said."""

    records: list[RequestRecord] = field(default_factory=list)
    locust_requests: list[dict[str, Any]] = field(default_factory=list)
    first_tokens: list[tuple[str, float]] = field(default_factory=list)


class Rig:
    """A running test. ``call`` has one of its users do something and returns what that gave."""

    def __init__(
        self,
        folder: Path,
        *,
        users: int = 1,
        attributes: dict[str, Any] | None = None,
        user_class: Any = OpenAIUser,
        **options: Any,
    ) -> None:
        self.jobs: Queue[tuple[Job, AsyncResult[Any]]] = Queue()
        self.seen = Seen()
        self.notes: list[str] = []
        """What was logged while this rig lived: notes for the manifest are logged too."""
        rig = self

        class Puppet(user_class):  # type: ignore[misc]
            @task
            def work(self) -> None:
                job, result = rig.jobs.get()
                try:
                    result.set(job(self))
                except BaseException as error:
                    result.set_exception(error)
                    if not isinstance(error, Exception):
                        raise

        for name, value in (attributes or {}).items():
            setattr(Puppet, name, value)
        options = {
            "llm_model": "tiny",
            "llm_keep_going": True,
            "llm_server_metrics": "off",  # the first request that a server gets is the user's
            "csv_prefix": str(folder / "run"),
            **options,
        }
        host = options.pop("host", NOWHERE)
        self.environment = Environment(
            user_classes=[Puppet],
            host=host,
            stop_timeout=options.get("stop_timeout"),
            parsed_options=argparse.Namespace(host=host, **options),
        )
        llm_users.attach(self.environment)
        events: Any = self.environment.events
        events.llm_request.add_listener(lambda user, record: self.seen.records.append(record))
        events.llm_first_token.add_listener(
            lambda user, request_id, ttft_s: self.seen.first_tokens.append((request_id, ttft_s))
        )
        events.request.add_listener(lambda **request: self.seen.locust_requests.append(request))
        self._ear = _Ear(self.notes)
        logging.getLogger("llm_users").addHandler(self._ear)
        # A run begins with a full garbage collection. Its process is pytest here, with a million objects of all that
        # was imported: up to a second for each of some hundred rigs. Frozen objects are left out of a collection.
        gc.freeze()
        self.runner = self.environment.create_local_runner()
        self.runner.start(users, spawn_rate=100)

    def send(self, job: Job) -> AsyncResult[Any]:
        """Have a user do this; returns at once."""
        result: AsyncResult[Any] = AsyncResult()
        self.jobs.put((job, result))
        return result

    def call(self, job: Job) -> Any:
        return self.send(job).get(timeout=_BOUND_S)

    def ask(self, url: str, prompt: str | None = "hello", **more: Any) -> Answer:
        """One chat completion of this endpoint."""
        answer: Answer = self.call(at(url, lambda user: user.chat(prompt, **more)))
        return answer

    def refused(self) -> str:
        """Why the run was refused, once it was."""
        wiring = wiring_of(self.environment)
        assert wiring is not None
        assert wiring.coordinating is not None
        coordinator = wiring.coordinating.coordinator
        return str(eventually(lambda: coordinator.refused))

    def stop(self) -> None:
        self.environment.stop_timeout = 0
        self.runner.quit()
        logging.getLogger("llm_users").removeHandler(self._ear)


class _Ear(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(record.getMessage())


def at(url: str, job: Job) -> Job:
    """The job, done by a user of this endpoint."""

    def move(user: Any) -> Any:
        user.host = url
        return job(user)

    return move


def eventually(condition: Callable[[], Any], within_s: float = 5.0) -> Any:
    """Wait until this is true; returns it."""
    end_s = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < end_s, "it never came true"
        gevent.sleep(0.005)
    return value
