"""The objects that the users of one worker share during a run: options, admission gate, connections, prompts, records.

The extension creates the context at the start of a test, and users get it through their environment. The module does
not depend on Locust classes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from gevent.event import Event
from gevent.lock import Semaphore

from llm_users import secrets
from llm_users.collect.error_kinds import ErrorKinds
from llm_users.load.worker.admission_gate import AdmissionGate
from llm_users.load.worker.live_metrics import LiveReporter
from llm_users.load.worker.model_names import ModelNames
from llm_users.load.worker.open_loop import OpenLoop
from llm_users.load.worker.output_counts import OutputCounts
from llm_users.load.worker.prompt_queue import ConversationQueue, PromptQueue
from llm_users.load.worker.round_robin import RoundRobin
from llm_users.options.parsers import Target
from llm_users.options.table import Options
from llm_users.prompts import Conversation, Prompt, Tokenizer
from llm_users.record import RequestRecord
from llm_users.transport import endpoint
from llm_users.transport.httpx import CachedRequest, HeadSigner
from llm_users.transport.idle_queue import IdleQueue
from llm_users.transport.pool import Pool
from llm_users.transport.precise_timer import PreciseTimer


class OpenSpan(Protocol):
    """The span of a request in flight."""

    trace_headers: tuple[tuple[str, str], ...]
    """Names and values of the headers that pass the trace to the server."""

    def end(self, record: RequestRecord) -> None:
        """End the span with the times and results of the row."""


class Tracing(Protocol):
    """Records one span for each request of this process."""

    def begin(self, record: RequestRecord) -> OpenSpan:
        """Begin the span of a request whose API, model and endpoint are in the record."""

    def end_run(self, note: Callable[[str], None]) -> None:
        """Send all spans of the run, within a few seconds. ``note`` takes a text about lost spans."""


@dataclass
class RunContext:
    """The context of one worker in one run."""

    options: Options
    run_id: str
    worker: int
    workers: int
    gate: AdmissionGate
    starts: IdleQueue
    endings: IdleQueue
    """Queue in which a request waits for an idle event loop before it decodes what has arrived, or creates its row."""
    pool: Pool
    tokenizer: Tokenizer
    prompts: PromptQueue[Prompt]
    keep: Callable[[RequestRecord, list[float]], None]
    """Takes the record of a request that is over, and the offsets of its chunks for ``--llm-chunk-times``."""
    note: Callable[[str], None]
    """Adds a text, once, to the manifest and to the notes under the tables, and to the log as a warning."""
    inform: Callable[[str], None]
    """Like ``note``, for a text that does not question the run: the log has it at the level INFO."""
    run_key: str = ""
    """Determines generated texts together with the seed and the index. It is equal on all workers of the run."""
    model: str | None = None
    clients: dict[Any, Any] = field(default_factory=dict)
    """SDK clients by their settings: one per process, because an ``OpenAI()`` costs 67 ms."""
    run_s: float | None = None
    """The length of the run, if it is known in advance."""
    withhold_keys: bool = False
    """Whether keys and other values of this process's environment must not be sent to the endpoint."""
    watch: LiveReporter | None = None
    """Set if a live page shows the run."""
    timer: PreciseTimer | None = None
    """Wakes requests of an open loop when they are due."""
    client_delay_s: Callable[[int], float] = lambda _since_ns: 0.0
    """Returns the maximum delay of this process's event loop since a moment of the monotonic clock."""
    conversations: ConversationQueue | None = None
    """Set if a user class of the run holds conversations."""
    open_loop: OpenLoop | None = None
    """Set if arrivals determine when requests start."""
    output_counts: OutputCounts | None = None
    """Set if the output tokens of all answers are counted."""
    tracing: Tracing | None = None
    """Set if requests have spans (``--otel``)."""
    error_kinds: ErrorKinds = field(default_factory=ErrorKinds)
    model_names: ModelNames = field(default_factory=ModelNames)
    long_answers: Semaphore = field(default_factory=Semaphore)
    """Lets one thread at a time compute the row of a long answer: several would keep the interpreter from the loop."""
    callers: set[Any] = field(default_factory=set)
    """The greenlets with a request in flight: users, and greenlets that a task has spawned."""
    first_prompt: int = 0
    prompt_step: int = 1
    """This process's part of the prompt sequence: ``first_prompt``, and every ``prompt_step``-th after it."""
    targets: RoundRobin[Target] | None = None
    """Set if the run has several models or endpoints."""
    at_end: list[Callable[[], None]] = field(default_factory=list)
    """Functions to call when the run is over."""
    _cached_requests: dict[tuple[Any, str], CachedRequest] = field(default_factory=dict)
    _request_numbers: Any = field(default_factory=itertools.count)
    _user_numbers: Any = field(default_factory=itertools.count)
    _prompt_numbers: Any = field(default_factory=itertools.count)

    def client(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return the process's client with these settings. ``make`` creates it on the first call."""
        if key not in self.clients:
            self.clients[key] = make()
        return self.clients[key]

    def cached_request(self, client: Any, path: str, signer: HeadSigner | None = None) -> CachedRequest:
        """Return the cached request of a client for a path. ``signer`` signs it for each body."""
        cached = self._cached_requests.get((client, path))
        if cached is None:
            cached = self._cached_requests[client, path] = CachedRequest(signer)
        return cached

    def client_of_class(
        self, user_class: type, host: str, own_headers: Mapping[str, str], make: Callable[[str, dict[str, str]], Any]
    ) -> Any:
        """Return the process's client of a user class with these headers for a base URL.

        ``make`` creates it on the first call, from the clean URL and all headers.
        """
        # Variables of --llm-header-env can change, so their values are read for each request.
        known = None if self.options.header_env else (user_class, host, *own_headers.items())
        if known is not None and (client := self.clients.get(known)) is not None:
            return client
        url, headers = endpoint.clean_url(host), self.request_headers(own_headers)
        client = self.client((user_class.__name__, url, tuple(sorted(headers.items()))), lambda: make(url, headers))
        if known is not None:
            self.clients[known] = client
        return client

    def secret(self, variable: str) -> str | None:
        """Return a key from the environment and remember it for redaction. None if missing or withheld."""
        value = None if self.withhold_keys else os.environ.get(variable)
        if value and value != value.strip():
            value = value.strip()
            self.note(
                f"{variable} starts or ends with white space, for example a newline from a file; it is sent without it"
            )
        secrets.remember(value)
        return value or None

    def request_headers(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return a user class's own headers and those of ``--llm-header`` and ``--llm-header-env``, without white space
        at the ends of values.

        Raises ValueError for a missing variable and for a line break inside a value. When keys are withheld, the result
        contains only own headers whose names do not look like credentials.
        """
        own = {**own, **dict(self.options.header)}
        if self.withhold_keys:
            return {name: value for name, value in own.items() if not secrets.is_secret_query(name)}
        headers = {**own, **endpoint.headers_from_environment(self.options.header_env)}
        for name, value in headers.items():
            headers[name] = value.strip()
            if "\r" in headers[name] or "\n" in headers[name]:
                raise ValueError(f"the value of the header {name} contains a line break; remove it")
        return headers

    def new_request_id(self) -> str:
        """Return an id that is unique over all workers of the run."""
        return f"{self.run_id}-{self.worker}-{next(self._request_numbers)}"

    def next_conversation(self) -> Conversation:
        """Return the next conversation of the run."""
        if self.conversations is None:
            raise RuntimeError(
                "no user class of this run holds conversations (set holds_conversations = True in the class)"
            )
        return self.conversations.next()

    def next_prompt_index(self) -> int:
        """Return the next index in a locustfile's own seeded sequence of prompts, unique over all workers."""
        return self.first_prompt + self.prompt_step * int(next(self._prompt_numbers))

    def new_user_id(self) -> str:
        return f"{self.worker}-{next(self._user_numbers)}"


_run_contexts: WeakKeyDictionary[Any, RunContext] = WeakKeyDictionary()
_expected: WeakKeyDictionary[Any, Event] = WeakKeyDictionary()


def expect_context(environment: Any) -> None:
    """Make ``run_context_of`` wait for a new run context, because a test has started."""
    _run_contexts.pop(environment, None)
    _expected[environment] = Event()


def install_context(environment: Any, run_context: RunContext) -> None:
    """Set the environment's run context."""
    _run_contexts[environment] = run_context
    expected = _expected.pop(environment, None)
    if expected is not None:
        expected.set()


def run_context_of(environment: Any) -> RunContext:
    """Return the environment's run context. Waits while it is being created; the end of the test stops waiting users.

    Raises RuntimeError outside of a test.
    """
    expected = _expected.get(environment)
    if expected is not None:
        expected.wait()
    run_context = _run_contexts.get(environment)
    if run_context is None:
        raise RuntimeError(
            "no test is running in this environment. With Locust as a library, call llm_users.attach(environment) "
            "before the runner is created."
        )
    return run_context
