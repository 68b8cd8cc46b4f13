"""What the users of one worker share during a run: options, admission gate, connections, prompts, record output.

Made by the extension at the start of a test, found by users through their environment. Knows no Locust classes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from gevent.event import Event

from llm_users import secrets
from llm_users.load.worker.admission_gate import AdmissionGate
from llm_users.load.worker.round_robin import RoundRobin
from llm_users.options.table import Options
from llm_users.prompts import Conversation, Prompt, Tokenizer
from llm_users.record import RequestRecord
from llm_users.transport import endpoint
from llm_users.transport.cached_request import CachedRequest
from llm_users.transport.idle_queue import IdleQueue
from llm_users.transport.pool import Pool
from llm_users.transport.precise_timer import PreciseTimer


class Watch(Protocol):
    """What is told of requests in flight (``live_metrics``): twice per request, never per chunk."""

    def began(self, key: object, stream: Any, sent_ns: int) -> None:
        """An answer has begun; ``stream`` holds its chunks as they come."""

    def ended(self, key: object, record: RequestRecord) -> None:
        """The request is over."""


class Arrivals(Protocol):
    """The arrivals of one worker in a stage (``ArrivalSchedule``): (number, seconds from the stage's origin)."""

    @property
    def next(self) -> tuple[int, float] | None:
        """The next one, until it is taken; None when there are no more."""

    def take(self) -> tuple[int, float]:
        """Go on to the one after it."""


def _no_arrivals() -> Arrivals:
    raise RuntimeError("the stage is not an open loop")


def _no_conversations() -> Conversation:
    raise RuntimeError("no user class of this run holds conversations (holds_conversations = True makes one)")


@dataclass
class RunContext:
    """One worker in one run."""

    options: Options
    run_id: str
    worker: int
    workers: int
    gate: AdmissionGate
    starts: IdleQueue
    endings: IdleQueue
    """Where an answer that was read waits for a quiet event loop before its row is made."""
    pool: Pool
    tokenizer: Tokenizer
    next_prompt: Callable[[], Prompt]
    on_record: Callable[[RequestRecord, list[float]], None]
    note: Callable[[str], None]
    """Something the manifest and the notes under the tables should say, once."""
    run_key: str = ""
    """What generated texts depend on besides the seed and the index; the same on all workers of the run."""
    model: str | None = None
    clients: dict[Any, Any] = field(default_factory=dict)
    """SDK clients by their settings: one per process, an ``OpenAI()`` costs 67 ms."""
    cached_requests: dict[Any, CachedRequest] = field(default_factory=dict)
    """What each client's requests have in common, by client and path."""
    run_s: float | None = None
    """How long the run will take, where that is known beforehand."""
    withhold_keys: bool = False
    """True when keys and other values of this process's environment must not be sent to the endpoint."""
    watch: Watch | None = None
    """Set when the run is watched live."""
    timer: PreciseTimer | None = None
    """Wakes requests of an open loop when they are due."""
    client_delay_s: Callable[[int], float] = lambda _since_ns: 0.0
    """How late this process's event loop was, at most, from this moment of the monotonic clock on."""
    arrivals: Callable[[], Arrivals] = _no_arrivals
    """This process's arrivals in the present stage of an open loop."""
    prompt_of_arrival: Callable[[int], Prompt] | None = None
    """Set where each arrival has its own prompt, whoever sends it and whether or not it is sent (a trace)."""
    open_loop: Any = None
    """The ``open_loop.OpenLoop`` of the process, once there is one."""
    error_kinds: Any = None
    """The ``users.error_kinds.ErrorKinds`` of the process, once a request has failed."""
    callers: set[Any] = field(default_factory=set)
    """The greenlets that have a request in flight: users, and what a task has spawned."""
    first_prompt: int = 0
    prompt_step: int = 1
    """This process's part of the prompt sequence: ``first_prompt``, and every ``prompt_step`` from there."""
    next_conversation: Callable[[], Conversation] = _no_conversations
    targets: RoundRobin | None = None
    """Set when the run has several models or endpoints."""
    at_end: list[Callable[[], None]] = field(default_factory=list)
    """What is to be done when the run is over."""
    _request_numbers: Any = field(default_factory=itertools.count)
    _user_numbers: Any = field(default_factory=itertools.count)
    _prompt_numbers: Any = field(default_factory=itertools.count)

    def secret(self, variable: str) -> str | None:
        """A key from the environment, remembered for redaction; None without one and when keys are withheld."""
        value = None if self.withhold_keys else os.environ.get(variable)
        if value and value != value.strip():
            value = value.strip()
            self.note(f"{variable} has white space at an end, as from a file with a newline; it is sent without it")
        secrets.remember(value)
        return value or None

    def request_headers(self, own: Mapping[str, str]) -> dict[str, str]:
        """A user class's own headers and those of ``--llm-header-env``. Raises ValueError for a missing variable.

        Values lose white space at their ends; a line break inside one is a ValueError. When keys are withheld, these
        are only the own headers whose names do not look like credentials.
        """
        if self.withhold_keys:
            return {name: value for name, value in own.items() if not secrets.is_secret_query(name)}
        headers = {**own, **endpoint.headers_from_environment(self.options.header_env)}
        for name, value in headers.items():
            headers[name] = value.strip()
            if "\r" in headers[name] or "\n" in headers[name]:
                raise ValueError(f"the value of the header {name} has a line break in it; give it without")
        return headers

    def new_request_id(self) -> str:
        """Unique over all workers of the run."""
        return f"{self.run_id}-{self.worker}-{next(self._request_numbers)}"

    def new_prompt_index(self) -> int:
        """The next place in a locustfile's own seeded sequence of prompts; over all workers none comes twice."""
        return self.first_prompt + self.prompt_step * int(next(self._prompt_numbers))

    def new_user_id(self) -> str:
        return f"{self.worker}-{next(self._user_numbers)}"


_run_contexts: WeakKeyDictionary[Any, RunContext] = WeakKeyDictionary()
_coming: WeakKeyDictionary[Any, Event] = WeakKeyDictionary()


def expect_context(environment: Any) -> None:
    """A test has started and its run context is being made: ``run_context_of`` waits for it."""
    _run_contexts.pop(environment, None)
    _coming[environment] = Event()


def install_context(environment: Any, run_context: RunContext) -> None:
    """Make this the environment's run context."""
    _run_contexts[environment] = run_context
    coming = _coming.pop(environment, None)
    if coming is not None:
        coming.set()


def run_context_of(environment: Any) -> RunContext:
    """The environment's run context. Waits while it is being made; a waiting user is stopped with the test.

    Raises RuntimeError outside of a test.
    """
    coming = _coming.get(environment)
    if coming is not None:
        coming.wait()
    run_context = _run_contexts.get(environment)
    if run_context is None:
        raise RuntimeError(
            "no test is running in this environment. With Locust as a library, call llm_users.attach(environment) "
            "before the runner is created."
        )
    return run_context


def run_context_or_none(environment: Any) -> RunContext | None:
    """The environment's run context, if a test has started."""
    return _run_contexts.get(environment)
