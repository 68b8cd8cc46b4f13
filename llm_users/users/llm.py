"""LLMUser: the base of all User classes. It has the public methods, and the hooks that the class of an API overrides.

``users.request`` sends a request and makes its row. The module uses neither files nor the web.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http.cookiejar import CookieJar
from typing import Any, ClassVar

import gevent
from gevent import GreenletExit
from gevent.pool import Group
from locust import User
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING, LOCUST_STATE_WAITING, TaskSet

from llm_users import extension as _extension  # noqa: F401 - registers options and listeners, once
from llm_users.load.worker.context import RunContext, run_context_of
from llm_users.load.worker.permits import Permit, UserState
from llm_users.options.parsers import Target
from llm_users.prompts import Prompt
from llm_users.record import RequestRecord
from llm_users.transport import endpoint
from llm_users.transport.client_rules import CURRENT_JAR
from llm_users.transport.exchange import Exchange, SdkExchange
from llm_users.transport.httpx import CachedRequest, Head, send
from llm_users.users.answer import Answer, AnswerCheck, Ask
from llm_users.users.chunks import MOST_CHARACTERS, MOST_CHUNKS
from llm_users.users.common_mistakes import MOST_CALLS, NOT_IN_A_WITH, TooManyCalls, missing_attribute
from llm_users.users.failures import RequestFailed, failure_of, status_of
from llm_users.users.request import Request, record_unsent
from llm_users.users.response_stream import ResponseStream


class LLMUser(User):
    """Base of the User classes. The class of an API sets ``apis`` and implements ``open_response``."""

    abstract = True

    model: str | None = None
    """The model of this class. None: ``--llm-model``, or else the only model that the server lists."""

    raise_errors: bool = False
    """True: a failed call raises ``RequestFailed`` instead of returning an answer whose record has the error."""

    request_name: str | None = None
    """The name in Locust's table. None: the name of the model."""

    default_body: ClassVar[dict[str, Any]] = {}
    """Fields for the body of all requests of this class. ``--llm-extra-body`` and a call's keywords replace them."""

    framework: ClassVar[str] = ""

    apis: ClassVar[Mapping[str, str]] = {}
    """The values of ``--llm-api`` that this class supports, and the method for each one. The first is the default."""

    host_variable: ClassVar[str] = "OPENAI_BASE_URL"
    """The environment variable with the endpoint if ``--host`` does not set it."""

    reserves_quota: ClassVar[bool] = False
    """True if the provider reserves the input and the output cap of each request from a quota; stages report it."""

    holds_conversations: ClassVar[bool] = False
    """True if users take the conversations of the run's source instead of its prompts."""

    max_answer_characters: ClassVar[int] = MOST_CHARACTERS
    max_answer_chunks: ClassVar[int] = MOST_CHUNKS
    """Limits on an answer, because memory is limited. An answer that exceeds one ends as ``malformed``."""

    follow_up: bool = False
    """True while requests continue an activity, such as a conversation: they do not wait for another arrival."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.run_context: RunContext = run_context_of(environment)
        # Credentials in a class's own base URL stay in memory, like credentials in --host.
        self.host = endpoint.clean_url(self.host or environment.host or "")
        self._own_host = self.host
        self.target: Target | None = None
        """The target of the present request, if the run has ``--llm-targets``."""
        self.arrival: Permit | None = None
        """In an open loop, the permit of the latest arrival that this user took."""
        self.user_state = UserState()
        """The state of this user at the admission gate."""
        self._cookies = CookieJar() if self.run_context.options.cookies else None
        self._user_id = self.run_context.new_user_id()
        self._waiting: list[Any] = []  # greenlets whose calls wait for a permit
        self._in_flight = 0

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(missing_attribute(type(self).__name__, name), name=name, obj=self)

    # For locustfiles.

    def ask(self, **body: Any) -> Answer:
        """Send the next prompt with the API that ``--llm-api`` names, and return the answer.

        Keywords are added to the request's body. Do not call your task ``ask`` if it calls this method.
        """
        if not self.apis:
            raise NotImplementedError(f"{type(self).__name__}.ask must make one call, for example self.chat()")
        default = next(iter(self.apis))
        call = getattr(self, self.apis.get(self.run_context.options.api or default, default))
        # A call with ``**`` needs 0.7 kB more of the C stack, which gevent keeps while the user waits.
        answer: Answer = call(**body) if body else call()
        return answer

    def make_prompt(self) -> Prompt:
        """Return the prompt for a call without a prompt: the next one of the run. Override it to make your own."""
        return self.user_state.take_prompt() or self.run_context.prompts.next()

    def check_answer(self, prompt: Prompt, answer: Answer) -> AnswerCheck | None:  # noqa: ARG002 - for subclasses
        """Return whether a successful answer is correct, or None if it is not checked. Override it to check answers.

        The result is part of the row.
        """
        return None

    @property
    def seed(self) -> str:
        """The seed for texts and choices of a locustfile: ``--llm-seed`` and the key of the run.

        It is equal on all workers. Another run has another seed, unless ``--llm-repeat-prompts`` or ``--llm-run-key``
        repeats it.
        """
        return f"{self.run_context.options.seed}:{self.run_context.run_key}"

    def next_prompt_index(self) -> int:
        """Return the next index for a prompt of your own. No index is used twice in a run, on any worker."""
        return self.run_context.next_prompt_index()

    def wait_time(self) -> float:
        """Return the pause between tasks in seconds: none. Override it as in any Locust user."""
        return 0.0

    # For Locust.

    def start(self, group: Group) -> Any:
        """Start the user, as in Locust. The gate gets to know the user, so that stages wait for it until it ends."""
        self.run_context.gate.come(self.user_state)
        greenlet = super().start(group)
        greenlet.link(self._on_end)
        return greenlet

    def stop(self, force: bool = False) -> Any:
        """Stop the user, as in Locust. Calls that wait for a permit end, even if the current task may finish."""
        self.user_state.dismissed = True
        killed = super().stop(force)
        if not killed:
            self._drop_waiting_calls()
        return killed

    def task_failed(self, error: BaseException, place: str, *, starting: bool) -> None:
        """Pause after a task raised ``error``, longer each time until a call succeeds. ``starting``: in ``on_start``.

        Raises StopUser if the user cannot continue: it has not started, it sends too many calls, or an open loop can
        start another user.
        """
        call_failed = self.user_state.failed_tasks == 0 and isinstance(error, RequestFailed)  # the gate makes it pause
        text = f"{place} raised {type(error).__name__}: {error}"[:400]
        pause_s = self.run_context.gate.task_failed(self.user_state, text)
        if starting:
            self.on_stop = lambda: None  # type: ignore[method-assign] # Locust calls it for users that have started
            raise StopUser  # otherwise gevent prints another traceback for each user
        loop = self.run_context.open_loop
        if isinstance(error, TooManyCalls) or (
            loop is not None and loop.is_running and self.user_state.failed_tasks > 1
        ):
            self.run_context.note(f"users were ended, because {text}")  # Locust does not log it in this case
            raise StopUser
        if self._state != LOCUST_STATE_STOPPING and not call_failed:
            self._state = LOCUST_STATE_WAITING
            gevent.sleep(pause_s)
            self._show_state()

    def _on_end(self, _greenlet: Any) -> None:
        self.run_context.gate.gone(self.user_state)
        self._drop_waiting_calls()

    def _drop_waiting_calls(self) -> None:
        for waiting in list(self._waiting):
            waiting.kill(block=False)

    # Hooks: what is special about an API, a class or a conversation.

    @classmethod
    def import_sdk(cls) -> None:
        """Import the SDK that requests need, in a process that sends requests, or before its workers are forked."""

    @classmethod
    def key_problem(cls, host: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG003 - for subclasses
        """Return what to set if requests to ``host`` require a key and the environment of this process has none.

        ``headers`` are the headers of ``--llm-header-env``.
        """
        return None

    @classmethod
    def prepare_process(cls, run_context: RunContext, host: str) -> None:
        """Prepare the process for a run, before any user exists: create clients, load what is slow."""

    @classmethod
    def listed_models(cls, run_context: RunContext, host: str) -> list[str]:  # noqa: ARG003 - for subclasses
        """Return the models that the server lists, for a run without ``--llm-model``. Here: none."""
        return []

    @classmethod
    def needs_host(cls) -> bool:
        """Return whether the run must have a host. False for an API that knows its own endpoint."""
        return not cls.host

    def make_exchange(self) -> Exchange | SdkExchange:
        """Return the exchange for the next request."""
        return Exchange(self.run_context.pool) if self.run_context.options.transport == "fast" else SdkExchange()

    def open_response(self, ask: Ask, exchange: Exchange | SdkExchange) -> ResponseStream:
        """Send the request through this exchange, and return its response stream after the headers have arrived."""
        raise NotImplementedError

    def failure_of(self, error: BaseException) -> tuple[str, str]:
        """Return (error_code, error_message) of any exception that a request can raise."""
        return failure_of(error, self.host or "")

    def refusal_of(self, error: BaseException) -> tuple[int | None, str | None]:
        """Return (HTTP status, the server's request id) of an error response; None for unknown values."""
        return status_of(error), getattr(error, "request_id", None)

    def choose_target(self) -> None:
        """Choose the target of the next request, if the run has ``--llm-targets`` and the class has no model."""
        targets = self.run_context.targets
        if targets is not None and type(self).model is None:
            self.target = targets.next()
            self.host = self.target.url or self._own_host

    def describe(self, record: RequestRecord) -> None:
        """Fill columns of the row before the request is built. An override calls this method first."""
        record.user_id = self._user_id
        record.name = self.request_name or type(self).__name__
        record.endpoint = self.host or None

    # For the classes of the APIs.

    def send_request(self, build: Callable[[], Ask], body: Mapping[str, Any]) -> Answer:
        """Send what ``build`` returns when the request is admitted. ``body``: the keywords of the call."""
        if "catch_response" in body:  # a keyword of Locust's HTTP client, which would be sent to the server
            raise TypeError(NOT_IN_A_WITH)
        request = Request(self, build)
        del build  # the request forgets it too, because what it refers to is not needed while the answer is awaited
        return request.run()

    def prompt_of(self, text: str | None, messages: Sequence[dict[str, Any]] | None) -> Prompt:
        """Return a prompt of this text or these messages; without both, the one from ``make_prompt``."""
        if messages is not None:
            return Prompt(-1, None, [dict(message) for message in messages], None, None)
        if text is not None:
            return Prompt(-1, text, None, None, None)  # its tokens are counted locally if the server does not count
        return self.make_prompt()

    def model_of_request(self) -> str:
        """Return the model of the next request. Raises ValueError if there is none."""
        model = type(self).model or (self.target.model if self.target else self.run_context.model)
        if model is None:
            raise ValueError("no model: give --llm-model, or set `model` on the user class")
        return model

    def default_cap(self) -> int:
        """Return the cap on output tokens for prompts without one.

        Anthropic requires a cap in every request; Bedrock reserves quota for the largest possible answer without one.
        """
        return round(self.run_context.options.output_tokens.mean)

    def extra_body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields to add to a body: of the class, of ``--llm-extra-body``, and of the call, in this order."""
        return {**self.default_body, **self.run_context.options.extra_body, **body}

    @property
    def streams(self) -> bool:
        """Whether a request asks for a stream unless its body or call has the field ``stream``: ``--llm-no-stream``."""
        return not self.run_context.options.no_stream

    def send_http(
        self,
        exchange: Exchange | SdkExchange,
        cached: CachedRequest | None,
        encode: Callable[[], bytes | None],
        ask_sdk: Callable[[], Any],
    ) -> Head:
        """Send a request with ``transport.cached_request.send``, and with the user's cookies for ``--llm-cookies``."""
        if self._cookies is not None:
            CURRENT_JAR.set(self._cookies)
        head = send(exchange, cached, encode, ask_sdk)
        if self._cookies is None and "set-cookie" in head.headers:
            self.run_context.note(
                "the server sets cookies, perhaps to keep a client on one replica; they are not sent back, so requests "
                "go where the load balancer sends new clients. --llm-cookies gives each user a cookie jar."
            )
        return head

    # Admission, for ``users.request``.

    def wait_for_permit(self) -> Permit:
        """Wait until the next request may start, and return its permit. Call ``call_ended`` when the request has ended.

        A user that only waits can be stopped at once, like one in ``wait()``.
        """
        caller, gate, loop = gevent.getcurrent(), self.run_context.gate, self.run_context.open_loop
        if self._state == LOCUST_STATE_STOPPING or self.user_state.gone:
            raise StopUser if caller is self._greenlet else GreenletExit
        if len(self._waiting) + self._in_flight >= MOST_CALLS:
            error = TooManyCalls(type(self).__name__)
            if caller is self._greenlet or self._greenlet is None:
                raise error
            self._greenlet.kill(error, block=False)  # the task gets the error, because it ignores the call's result
            raise GreenletExit
        self.user_state.failed_tasks = 0
        self._waiting.append(caller)
        self._show_state()
        try:
            if loop is None or not gate.plan.load.is_open:
                permit = gate.enter(self.user_state)
            elif self.follow_up and self.arrival is not None:
                permit = loop.follow(self.arrival)
            else:
                permit = self.arrival = loop.take(type(self))
                if self.holds_conversations:
                    gate.linger()
            self._in_flight += 1
        finally:
            self._waiting.remove(caller)
            self._show_state()
        if self._in_flight > 1:
            self.run_context.note(
                "users have several calls in flight at once, so more requests are in flight than users run; "
                "concurrency_actual says how many"
            )
        self.user_state.prompt = permit.prompt
        return permit

    def call_ended(self) -> None:
        """Note that a request has ended."""
        self._in_flight -= 1
        self._show_state()

    def _show_state(self) -> None:
        """Show Locust whether it may stop the user at once, or must let a task with a call in flight finish."""
        if self._state in (LOCUST_STATE_RUNNING, LOCUST_STATE_WAITING):
            only_waits = self._waiting and not self._in_flight
            self._state = LOCUST_STATE_WAITING if only_waits else LOCUST_STATE_RUNNING

    @classmethod
    def record_unsent(cls, environment: Any, run_context: RunContext, permit: Permit, code: str, message: str) -> None:
        """Write the row of a request of an open loop that a user of this class could not send."""
        record_unsent(environment, run_context, cls, permit, code, message)


_locust_sleep, _locust_init = TaskSet._sleep, TaskSet.__init__


class _TaskQueue(list[Any]):
    """The queue of a TaskSet, which has one task at most times. A ``deque`` has room for 64 and takes 0.7 kB."""

    __slots__ = ()

    def popleft(self) -> Any:
        return self.pop(0)

    def appendleft(self, task: Any) -> None:
        self.insert(0, task)


def _init_task_set(task_set: TaskSet, parent: User) -> None:
    """Initialize a TaskSet. Those of LLM users get a small queue, because a process can have 10,000 users."""
    _locust_init(task_set, parent)
    if isinstance(task_set.user, LLMUser):
        task_set._task_queue = _TaskQueue()  # type: ignore[assignment]


def _spend_wait_time(task_set: TaskSet, seconds: float) -> None:
    """Pause between two tasks for the computed ``wait_time``. Every TaskSet of Locust calls it.

    An LLM user pauses at the admission gate, where a stage that begins in the meantime finds it present.
    """
    user = task_set.user
    if isinstance(user, LLMUser) and seconds > 0:
        user.run_context.gate.pause(user.user_state, seconds)
    else:
        _locust_sleep(task_set, seconds)


TaskSet.__init__ = _init_task_set  # type: ignore[assignment, method-assign]
TaskSet._sleep = _spend_wait_time  # type: ignore[method-assign]
