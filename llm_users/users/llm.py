"""LLMUser: asks, times, hands over the record. What is special about an API is in its subclasses.

Never touches files or the web.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
from llm_users.load.worker.open_loop import OpenLoop
from llm_users.load.worker.permits import Permit, UserState
from llm_users.options.parsers import Target
from llm_users.outcome import CLIENT_LIMIT
from llm_users.prompts import Prompt, count_messages, is_text_only
from llm_users.record import RequestRecord
from llm_users.transport import endpoint
from llm_users.transport.client_rules import CURRENT_JAR
from llm_users.transport.exchange import Exchange, SdkExchange
from llm_users.transport.httpx import CachedRequest, Head, send
from llm_users.users.answer import Answer, AnswerCheck, Ask
from llm_users.users.bounds import MOST_CHARACTERS, MOST_CHUNKS, AnswerTooLong
from llm_users.users.buffering import mark_buffered, mark_held_back
from llm_users.users.chunks import Chunks, time_tokens
from llm_users.users.common_mistakes import (
    MOST_CALLS,
    TooManyCalls,
    check_keywords,
    missing_attribute,
)
from llm_users.users.error_kinds import ErrorKinds
from llm_users.users.failures import (
    RequestFailed,
    excerpt,
    failure_of,
    redact_fields,
    shows_no_secret,
    status_of,
)
from llm_users.users.request import Call
from llm_users.users.response_reader import Reader, ResponseStream
from llm_users.users.token_time import time_per_output_token
from llm_users.users.usage_doubt import doubt_usage

_NS = 1_000_000_000


class LLMUser(User):
    """Base of the User classes. Subclasses implement ``_open``, ``_decoder`` and ``_count_usage``."""

    abstract = True

    model: str | None = None
    """The model to ask; None: ``--llm-model``, else the only one that the server lists."""

    raise_errors: bool = False
    """True: a failed call raises ``RequestFailed`` instead of returning an answer whose record has the error."""

    request_name: str | None = None
    """Name in Locust's table; None: the model's."""

    framework: ClassVar[str] = ""

    host_variable: ClassVar[str] = "OPENAI_BASE_URL"
    """Environment variable that names the endpoint when --host does not."""

    reserves_quota: ClassVar[bool] = False
    """True where a request reserves input and output cap of the provider's quota: each stage says how much."""

    holds_conversations: ClassVar[bool] = False
    """True where users ask the conversations of the run's source and not its prompts."""

    max_answer_characters: ClassVar[int] = MOST_CHARACTERS
    max_answer_chunks: ClassVar[int] = MOST_CHUNKS
    """An answer that goes beyond one of these is given up as ``malformed``, so that memory stays bounded."""

    follow_up: bool = False
    """True while what is asked belongs to something that has begun, so that it waits for no further arrival."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.run_context: RunContext = run_context_of(environment)
        # Credentials in a class's own base URL stay in memory, like those of --host.
        self.host = endpoint.clean_url(self.host or environment.host or "")
        self._own_host = self.host
        self._target: Target | None = None
        self._arrival: Permit | None = None
        self._user_state = UserState()
        self._cookies = CookieJar() if self.run_context.options.cookies else None
        self._user_id = self.run_context.new_user_id()
        self._waiting: set[Any] = set()  # greenlets whose call waits for its turn
        self._in_flight = 0

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(missing_attribute(type(self).__name__, name), name=name, obj=self)

    def start(self, group: Group) -> Any:
        """As in Locust. The gate learns when the user comes and leaves, so no stage waits for one that has left."""
        self.run_context.gate.come(self._user_state)
        greenlet = super().start(group)
        greenlet.link(self._on_end)
        return greenlet

    def stop(self, force: bool = False) -> Any:
        """As in Locust. A user that ends after its present task does not wait for the turn of further calls."""
        self._user_state.dismissed = True
        killed = super().stop(force)
        if not killed:
            self._drop_waiting_calls()
        return killed

    def task_failed(self, error: BaseException, place: str, *, starting: bool) -> None:
        """A task has raised: pause, longer each time until a call succeeds. ``starting``: it was ``on_start``.

        Raises StopUser where the user cannot go on: it has not started, floods, or an open loop has a fresh user.
        """
        asked = self._user_state.failed_tasks == 0 and isinstance(error, RequestFailed)  # the gate makes it pause
        text = f"{place} raised {type(error).__name__}: {error}"[:400]
        pause_s = self.run_context.gate.task_failed(self._user_state, text)
        if starting:
            self.on_stop = _nothing  # type: ignore[method-assign] # Locust calls it for users that have started
            raise StopUser  # else gevent prints one more traceback for each user
        if isinstance(error, TooManyCalls) or (
            self.run_context.open_loop is not None and self._user_state.failed_tasks > 1
        ):
            self.run_context.note(f"users were ended, because {text}")  # Locust does not log it then
            raise StopUser
        if self._state != LOCUST_STATE_STOPPING and not asked:
            self._state = LOCUST_STATE_WAITING
            gevent.sleep(pause_s)
            self._show_state()

    def _on_end(self, _greenlet: Any) -> None:
        self.run_context.gate.gone(self._user_state)
        self._drop_waiting_calls()

    def _drop_waiting_calls(self) -> None:
        for waiting in list(self._waiting):
            waiting.kill(block=False)

    @classmethod
    def prepare_process(cls, run_context: RunContext, host: str) -> None:
        """Called once per process and test, before any user exists: make clients, load what is slow."""

    @classmethod
    def needs_host(cls) -> bool:
        """False for an API that knows its own endpoint; else a run without one is refused."""
        return not cls.host

    def wait_time(self) -> float:
        """No pause between requests: the closed loop of a concurrency sweep. Override as in any Locust user."""
        return 0.0

    def _pause(self, seconds: float) -> None:
        """Spend the ``wait_time`` at the gate: a stage that begins meanwhile finds the user present."""
        self.run_context.gate.pause(self._user_state, seconds)

    def make_prompt(self) -> Prompt:
        """What a call without a prompt asks: the next one of the run's source. Override it to make your own."""
        return self._user_state.take_prompt() or self.run_context.next_prompt()

    def check_answer(self, prompt: Prompt, answer: Answer) -> AnswerCheck | None:  # noqa: ARG002 - for subclasses
        """Whether a successful answer is right; None: not checked. Called before the row leaves, which then says so."""
        return None

    # What every API asks with.

    def _prompt(self, text: str | None, messages: Sequence[dict[str, Any]] | None) -> Prompt:
        if messages is not None:
            return Prompt(-1, None, [dict(message) for message in messages], None, None)
        if text is not None:
            return Prompt(-1, text, None, None, None)  # `_count_missing` counts it if the server does not
        return self.make_prompt()

    def _model(self) -> str:
        model = type(self).model or (self._target.model if self._target else self.run_context.model)
        if model is None:
            raise ValueError("no model: give --llm-model, or set `model` on the user class")
        return model

    def _default_cap(self) -> int:
        """The cap on output tokens for an API that wants one in every request (Anthropic), or else reserves quota for
        the largest possible answer (Bedrock)."""
        return round(self.run_context.options.output_tokens.mean)

    # What the subclasses say about their API.

    def _open(self, ask: Ask, exchange: Exchange | SdkExchange) -> ResponseStream:
        raise NotImplementedError

    def _make_exchange(self) -> Exchange | SdkExchange:
        """What the next request goes through."""
        return Exchange(self.run_context.pool) if self.run_context.options.transport == "fast" else SdkExchange()

    def _send(
        self,
        exchange: Exchange | SdkExchange,
        cached: CachedRequest | None,
        encode: Callable[[], bytes | None],
        ask_sdk: Callable[[], Any],
    ) -> Head:
        """Send a request over HTTP, with this user's cookies where ``--llm-cookies`` wants them."""
        CURRENT_JAR.set(self._cookies)
        head = send(exchange, cached, encode, ask_sdk)
        if self._cookies is None and "set-cookie" in head.headers:
            self.run_context.note(
                "the server sets cookies, perhaps to keep a client on one replica; they are not sent back, so requests "
                "go where the load balancer sends new clients. --llm-cookies gives each user a cookie jar."
            )
        return head

    def _failure_of(self, error: BaseException) -> tuple[str, str]:
        """(error_code, error_message) of anything that a request can raise."""
        return failure_of(error, self.host or "")

    def _refusal_of(self, error: BaseException) -> tuple[int | None, str | None]:
        """(HTTP status, the server's id) of an answer that was an error."""
        return status_of(error), getattr(error, "request_id", None)

    # The one way of every request.

    def _ask(self, make: Callable[[], Ask], keywords: Mapping[str, Any] | None = None) -> Answer:
        """Wait for the turn, ask, time, hand over the record. ``keywords``: what the task gave for the body."""
        check_keywords(keywords or {})
        permit = self._enter()
        self._aim()
        call = self._new_call(permit)
        caller = gevent.getcurrent()
        self.run_context.callers.add(caller)
        try:
            call.run(partial(self._describe, call.record, make), self._open)
            if call.interruption is None:
                call.step_aside()
            answer = self._finish(call)
        finally:
            self._in_flight -= 1
            self._show_state()
            self.run_context.callers.discard(caller)
            call.leave()
        record = answer.record
        if call.interruption is not None:
            raise call.interruption
        if self.raise_errors and not record.ok:
            failed = RequestFailed(record.error_code or "", record.error_message or "")
            raise failed from (call.error if shows_no_secret(call.error) else None)
        return answer

    def _new_call(self, permit: Permit) -> Call:
        record, exchange = RequestRecord(), self._make_exchange()
        self._identify(record, permit)
        return Call(self.run_context, self._user_state, permit, record, exchange, Reader(self, record, exchange))

    def _enter(self) -> Permit:
        """Wait at the gate. A waiting user can be stopped at once, like one in ``wait()``."""
        caller = gevent.getcurrent()
        if self._state == LOCUST_STATE_STOPPING or self._user_state.gone:
            raise StopUser if caller is self._greenlet else GreenletExit
        if len(self._waiting) + self._in_flight >= MOST_CALLS:
            self._refuse_call(caller)
        self._user_state.failed_tasks = 0
        self._waiting.add(caller)
        self._show_state()
        try:
            permit = self._take_turn() if self._is_open_loop else self.run_context.gate.enter(self._user_state)
            self._in_flight += 1
        finally:
            self._waiting.discard(caller)
            self._show_state()
        if self._in_flight > 1:
            self.run_context.note(
                "users have several calls in flight at once, so more requests are in flight than users run; "
                "concurrency_actual says how many"
            )
        self._user_state.prompt = permit.prompt
        return permit

    def _refuse_call(self, caller: Any) -> None:
        """Raise in the user's task: the call itself was spawned by one that looks at no result."""
        error = TooManyCalls(type(self).__name__)
        if caller is self._greenlet or self._greenlet is None:
            raise error
        self._greenlet.kill(error, block=False)
        raise GreenletExit

    def _show_state(self) -> None:
        """Locust may stop a user at once that only waits, and lets one with a call in flight finish its task."""
        if self._state in (LOCUST_STATE_RUNNING, LOCUST_STATE_WAITING):
            only_waits = self._waiting and not self._in_flight
            self._state = LOCUST_STATE_WAITING if only_waits else LOCUST_STATE_RUNNING

    @property
    def _is_open_loop(self) -> bool:
        return self.run_context.gate.plan.load.is_open

    def _take_turn(self) -> Permit:
        """In an open loop an arrival begins something; what follows from it does not wait for another one."""
        if self.run_context.open_loop is None:
            self.run_context.open_loop = OpenLoop(self.run_context, self)
        loop: OpenLoop = self.run_context.open_loop
        if self.follow_up and self._arrival is not None:
            return loop.follow(self._arrival)
        permit = self._arrival = loop.take(self)
        if self.holds_conversations:
            self.run_context.gate.linger()
        return permit

    def never_sent(self, permit: Permit, code: str, message: str) -> None:
        """The row of a request of an open loop that was meant to be sent and could not be."""
        run_context, record = self.run_context, RequestRecord()
        self._identify(record, permit)
        record.model = type(self).model or run_context.model or ""
        if permit.prompt is not None:
            record.prompt_index, record.requested_output_tokens = permit.prompt.index, permit.prompt.max_tokens
        record.name = self.request_name or record.model or record.name
        record.error_code, record.error_message = code, message
        record.started_at = time.time() + (permit.intended_ns - time.monotonic_ns()) / _NS
        record.phase_end, record.stage_end = run_context.gate.phase, run_context.gate.plan.stage
        self._report(record, Answer("", record), [])
        run_context.gate.leave(permit, UserState(), code, message)

    def _aim(self) -> None:
        """Where the next request goes, when ``--llm-targets`` has several; a class with its own model is asked that."""
        targets = self.run_context.targets
        if targets is not None and type(self).model is None:
            self._target = targets.next()
            self.host = self._target.url or self._own_host

    def _identify(self, record: RequestRecord, permit: Permit) -> None:
        """The columns that are known before the request is made."""
        run_context = self.run_context
        record.request_id = run_context.new_request_id()
        record.run_id = run_context.run_id
        record.worker = run_context.worker
        record.user_id = self._user_id
        record.user_class = type(self).__name__
        record.name = self.request_name or type(self).__name__
        record.framework = run_context.options.framework or self.framework
        record.endpoint = self.host or None
        record.stage = permit.plan.stage
        record.phase = permit.phase
        record.measured = int(permit.measured)
        load = permit.plan.load
        record.concurrency, record.rate_per_s = load.concurrency, load.rate_per_s

    def _describe(self, record: RequestRecord, make: Callable[[], Ask]) -> Ask:
        """Make what is asked and fill the columns that say so."""
        ask = make()
        record.api = ask.api
        record.model = ask.model
        target = self._target
        record.name = self.request_name or (target.name if target and target.model == ask.model else ask.model)
        record.prompt_index = ask.prompt.index if ask.prompt.index >= 0 else None
        record.requested_output_tokens = ask.prompt.max_tokens
        return ask

    def _finish(self, call: Call) -> Answer:
        """Complete the record and hand it over; whatever was measured up to an error is kept."""
        run_context, gate = self.run_context, self.run_context.gate
        record, response, reader, error = call.record, call.response, call.reader, call.error
        chunks = response.events.chunks if response is not None else Chunks()
        too_long = isinstance(error, AnswerTooLong)  # its tokens and gaps are not needed then, and they take long
        gaps_s, stamps_ns = reader.fill_timing(chunks, with_gaps=not too_long)
        if response is not None:
            error = error or response.verdict()
            record.http_status = response.status
            record.response_id = response.events.response_id or response.request_id
            record.finish_reason = response.events.finish_reason
            response.count_usage(record)
        elif error is not None:
            record.http_status, record.response_id = self._refusal_of(error)
        if error is not None:
            record.error_code, record.error_message = self._failure_of(error)
            if record.error_code == CLIENT_LIMIT:
                run_context.note(f"requests failed with client_limit: {record.error_message}".rstrip("."))
        count = partial(self._count_before_row, call, run_context.tokenizer.count)
        text, reasoning = (chunks.opening, "") if too_long else (chunks.answer, chunks.reasoning)
        if not too_long:
            is_all_text = not chunks.choice_at and not chunks.text_at
            self._count_missing(call, text + reasoning if is_all_text else chunks.everything)
            doubt_usage(record, chunks, failed=error is not None, count=count, note=run_context.note)
        time_tokens(record)
        if error is None and self._came_at_once(call, chunks):
            mark_buffered(record)
            gaps_s = []
        else:
            record.tpot_s = time_per_output_token(
                chunks, record, failed=error is not None, count=count, note=run_context.note
            )
            if error is None:
                mark_held_back(record, chunks, stamps_ns, partial(self._client_delay_s, chunks))
        permit = call.permit
        arrivals_ns = [] if record.buffered or too_long else stamps_ns
        record.count_in_window(gate.account(permit, reader.start_ns, reader.end_ns, arrivals_ns, ok=record.ok))
        if reader.start_ns:
            record.queue_s = max(0.0, (reader.start_ns - permit.intended_ns + permit.behind_ns) / _NS)
        if record.rate_per_s is not None:
            record.held_s = permit.held_ns / _NS
            record.correct_for_omission()
        record.phase_end, record.stage_end = gate.phase, gate.plan.stage
        redact_fields(record)
        tool_calls = response.events.tool_calls if response is not None and not too_long else []
        choices = [text] if too_long else chunks.choices
        answer = Answer(text, record, reasoning, record.finish_reason, tool_calls, choices)
        self._check(call, answer)
        if permit.measured and record.ok:
            gate.add_gap_counts(permit, gaps_s)
        written_ns = stamps_ns if run_context.options.chunk_times else []
        self._report(record, answer, [(stamp_ns - reader.sent_ns) / _NS for stamp_ns in written_ns])
        return answer

    def _came_at_once(self, call: Call, chunks: Chunks) -> bool:
        """Whether a complete answer was not streamed although a stream was asked for."""
        delay_s = partial(self._client_delay_s, chunks)
        return call.response is not None and call.response.buffered(call.record, call.reader.body_reads, delay_s)

    def _client_delay_s(self, chunks: Chunks) -> float:
        """How late the event loop was, at most, since one second before the first chunk was read."""
        return self.run_context.client_delay_s(chunks.clocks_ns[0] - _NS if chunks.clocks_ns else 0)

    def _check(self, call: Call, answer: Answer) -> None:
        """Have the locustfile check the answer. What it raises ends its task, after the row is written."""
        record = answer.record
        if not record.ok or call.ask is None:
            return
        try:
            check = self.check_answer(call.ask.prompt, answer)
        except BaseException as raised:  # also of a user that is stopped meanwhile: the row comes first
            call.interruption = call.interruption or raised
            return
        if check is not None:
            record.expected_answer, record.answer_excerpt = excerpt(check.expected), excerpt(answer.text)
            record.answer_match = int(check.match)
            record.answer_strict_match = None if check.strict_match is None else int(check.strict_match)

    def _count_missing(self, call: Call, text: str) -> None:
        """Token counts that the server did not give come from the local tokenizer."""
        record = call.record
        if record.output_tokens is None and record.chunks + len(text) > 0:
            record.output_tokens = self._count_before_row(call, self.run_context.tokenizer.count, text)
            record.output_tokens_source = "tokenizer"
        if record.input_tokens is None and call.ask is not None:
            prompt = call.ask.prompt
            record.input_tokens = prompt.input_tokens
            answered = record.ok or record.chunks > 0  # a refusal is not worth the time that counting its prompt takes
            # What is not text, an image, only the server can count.
            if prompt.input_tokens is None and prompt.text is not None and answered:
                record.input_tokens = self._count_before_row(call, self.run_context.tokenizer.count, prompt.text)
            elif prompt.input_tokens is None and prompt.messages and is_text_only(prompt.messages) and record.ok:
                count = partial(count_messages, self.run_context.tokenizer)
                record.input_tokens = self._count_before_row(call, count, prompt.messages)
            if record.input_tokens is not None:
                record.input_tokens_source = "tokenizer"

    def _count_before_row(self, call: Call, count: Callable[[Any], int], what: Any) -> int:
        """Count in a thread, but come back with the figure even when this user is killed meanwhile."""
        try:
            return int(gevent.get_hub().threadpool.apply(count, (what,)))
        except GreenletExit as killed:  # between the end of the answer and its row: the row comes first
            call.interruption = killed
            return count(what)

    def _report(self, record: RequestRecord, answer: Answer, offsets_s: list[float]) -> None:
        run_context = self.run_context
        events = self.environment.events
        run_context.on_record(record, offsets_s)
        events.llm_request.fire(user=self, record=record)
        if record.outcome.is_unfinished:
            return
        stats = self.environment.stats
        if record.ok:
            if record.ttft_s is not None:
                stats.get(record.name, "TTFT").log(record.ttft_s * 1000, 0)
            if record.tpot_s is not None:
                stats.get(record.name, "TPOT").log(record.tpot_s * 1000, 0)
        e2e_s = record.connect_s if record.end_to_end_latency_s is None else record.end_to_end_latency_s
        events.request.fire(
            request_type="E2E",
            name=record.name,
            response_time=(e2e_s or 0.0) * 1000,
            response_length=len(answer.text),
            exception=None if record.ok else self._table_error(record),
            context={**self.context(), "record": record},
            start_time=record.started_at,
            url=self.host,
        )

    def _table_error(self, record: RequestRecord) -> RequestFailed:
        """The error of a request as Locust's tables show it: one entry for each kind of error."""
        run_context = self.run_context
        if run_context.error_kinds is None:
            run_context.error_kinds = ErrorKinds()
        return RequestFailed(*run_context.error_kinds.entry(record.error_code or "", record.error_message or ""))


def _nothing() -> None:
    """In the place of an ``on_stop`` that is not to be called."""


_locust_sleep = TaskSet._sleep


def _spend_wait_time(task_set: TaskSet, seconds: float) -> None:
    """Every TaskSet of Locust pauses with this between two tasks; it has computed the ``wait_time`` before."""
    user = task_set.user
    if isinstance(user, LLMUser) and seconds > 0:
        user._pause(seconds)
    else:
        _locust_sleep(task_set, seconds)


TaskSet._sleep = _spend_wait_time  # type: ignore[method-assign]
