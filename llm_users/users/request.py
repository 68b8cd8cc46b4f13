"""One request, from its admission to its row. ``Request.run`` is the whole way, in the order of time:

    admission -> connection -> t0 -> chunks -> end -> idle event loop -> last chunks -> times -> tokens -> check -> row
    -> events

The user (``users.llm``) chooses the prompt and knows how its API sends it, the response stream
(``users.response_stream``) knows how to read the answer, and ``transport`` provides the bytes and their arrival stamps.
The row keeps everything that was measured before an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import gevent
from gevent import GreenletExit
from locust.exception import StopUser

from llm_users.load.worker.context import OpenSpan, RunContext
from llm_users.load.worker.output_counts import OutputCounts
from llm_users.load.worker.permits import Permit, UserState
from llm_users.outcome import CLIENT_LIMIT, Outcome
from llm_users.prompts import Prompt, count_all, count_messages, is_text_only
from llm_users.quantile import counts_of
from llm_users.record import RequestRecord
from llm_users.transport import clock
from llm_users.transport.errors import BadResponse, ConnectionLost, DeadlineExceeded, ResponseCut
from llm_users.transport.exchange import Arrivals, Exchange, SdkExchange
from llm_users.users.answer import Answer, Ask
from llm_users.users.bad_events import StreamFailure, is_heartbeat
from llm_users.users.buffering import mark_buffered, mark_held_back, may_be_held_back
from llm_users.users.cancellation import cancellation
from llm_users.users.chunks import AnswerTooLong, Bounds, Chunks, time_chunks
from llm_users.users.deadline import Deadline, stall_limit
from llm_users.users.failures import RequestFailed, excerpt, redact_fields, shows_no_secret, with_model_advice
from llm_users.users.response_stream import ResponseStream
from llm_users.users.token_counts import doubt_usage
from llm_users.users.token_time import time_per_output_token

_NS = 1_000_000_000

FINISH_GRACE_S = 1.0
"""A silence of this length after the finish reason and usage ends an answer, because some servers keep the connection
open."""

USAGE_GRACE_S = 10.0
"""The same if the request asked for usage and it has not arrived. Gateways that count tokens send it seconds later."""

_MANY_PIECES = 4
"""From this number of pieces on, the faster way to process texts pays off."""
_MOST_IN_LOOP = 5000
"""The times of an answer with more chunks are computed in a thread: 5,000 chunks take 2 ms, 100,000 take 40 ms."""

T = TypeVar("T")

SILENT_NOTE = (
    "{model}: the server keeps the connection open after its answers, without [DONE] or an end; a request ends "
    "{seconds:g} s after its last event{why}. end_to_end_latency_s ends at that event, but these seconds are part of "
    "the user's cycle: fewer requests are sent in the same time"
)


class Request:
    """One request of a user. ``record`` is filled from top to bottom and becomes its row."""

    # Slots, because a process can have 10,000 requests that wait: without them, each takes 0.7 kB more.
    __slots__ = (
        "_bounds", "_build", "_end_clock_ns", "_end_stamp_ns", "_error", "_exchange", "_finished",
        "_first_token_fired", "_interruption", "_last_event", "_last_read", "_permit", "_prompt", "_reads_on",
        "_response", "_run_context", "_span", "_tail_until_ns", "_tokens_fired", "_user", "record",
    )  # fmt: skip

    def __init__(self, user: Any, build: Callable[[], Ask]) -> None:
        """Create a request of this ``LLMUser``. ``build`` makes its body after the admission."""
        self._user = user
        self._build: Callable[[], Ask] | None = build
        self._run_context: RunContext = user.run_context
        self.record = RequestRecord()
        self._permit: Permit
        self._exchange: Exchange | SdkExchange
        self._prompt: Prompt | None = None
        self._response: ResponseStream | None = None
        self._span: OpenSpan | None = None
        self._error: BaseException | None = None
        self._interruption: BaseException | None = None  # ends the user too; raised again after the row is written
        self._bounds: Bounds | None = None
        self._finished = False  # the answer was read to its end
        self._reads_on = True  # False after the event that ends the answer, or an error
        self._last_read = 0, 0  # stamps
        self._last_event = 0, 0  # stamps of the last event after the finish reason
        self._tail_until_ns = 0  # how long more events can follow the finish reason; 0: there was none
        self._end_stamp_ns = self._end_clock_ns = 0  # the stamps of the end
        self._first_token_fired = False
        self._tokens_fired = 0

    def run(self) -> Answer:
        """Send the request when it is admitted, and return its answer.

        Raises ``RequestFailed`` if the user has ``raise_errors``, and what ends the user or its task.
        """
        user, run_context, record = self._user, self._run_context, self.record
        self._permit = user.wait_for_permit()
        user.choose_target()
        self._exchange = user.make_exchange()
        self._exchange.not_before = self._wait_until_due
        _identify(record, run_context, type(user), self._permit)
        user.describe(record)
        caller = gevent.getcurrent()
        run_context.callers.add(caller)
        try:
            self._send_and_read()
            if self._interruption is None:
                self._wait_for_idle_loop()
            self._process_rest()
            answer = self._make_row()
        finally:
            user.call_ended()
            run_context.callers.discard(caller)
            self._return_permit()
        if self._interruption is not None:
            raise self._interruption
        if user.raise_errors and not record.ok:
            failed = RequestFailed(record.error_code or "", record.error_message or "")
            raise failed from (self._error if shows_no_secret(self._error) else None)
        return answer

    # t0, chunks, end.

    def _send_and_read(self) -> None:
        """Send the request and read its answer within the deadline.

        Does not raise: how the request ended is in ``_error`` and ``_interruption``.
        """
        user, run_context, record, exchange = self._user, self._run_context, self.record, self._exchange
        options = run_context.options
        try:
            ask = self._build_ask()
            if run_context.tracing is not None:
                self._span = run_context.tracing.begin(record)
                exchange.trace_headers = self._span.trace_headers
            with (
                Deadline(options.timeout_s),
                stall_limit(exchange, options.stall_timeout_s),
                cancellation(options, run_context.worker, record.request_id, exchange),
            ):
                response = self._response = user.open_response(ask, exchange)
                del ask  # its body is not needed while the answer is awaited
                run_context.gate.reached(self._permit)
                if run_context.watch is not None:
                    run_context.watch.began(self, response.events.chunks, exchange.sent_ns, exchange.resume_reader)
                self._read(response)
        except BaseException as raised:
            self._fail(raised)

    def _build_ask(self) -> Ask:
        """Build the request, and fill the columns that describe it."""
        assert self._build is not None
        user, record, ask = self._user, self.record, self._build()
        self._build, self._prompt = None, ask.prompt
        record.api, record.model, record.streamed = ask.api, ask.model, int(ask.streamed)
        target = user.target
        table_name = target.name if target is not None and target.model == ask.model else ask.model
        record.name = user.request_name or table_name
        record.prompt_index = ask.prompt.index if ask.prompt.index >= 0 else None
        record.requested_output_tokens = ask.prompt.max_tokens
        return ask

    def _fail(self, raised: BaseException) -> None:
        if not isinstance(raised, Exception) or isinstance(raised, StopUser):
            self._interruption = raised
        if self._finished:  # an answer that was read to its end has succeeded
            return
        self._error = raised
        if self._exchange.sent_ns and not self._end_clock_ns:
            self._end_clock_ns = clock.now_ns()
        if self._response is not None:
            self._exchange.discard()

    def _wait_until_due(self) -> None:
        """Wait until the request is due. The exchange calls this immediately before t0 and the first byte."""
        run_context = self._run_context
        if isinstance(self._exchange, Exchange):  # otherwise the SDK has not connected yet
            run_context.gate.reached(self._permit)
        if run_context.timer is not None:
            run_context.timer.wait_until(self._permit.intended_ns)

    def _read(self, response: ResponseStream) -> None:
        """Read the answer until nothing more arrives, or until the event that ends it.

        The event loop collects what arrives. It is processed at once up to the first token and after the finish reason,
        otherwise from time to time, and after the end only when the loop is idle (``_process_rest``).
        Raises errors of the transport and of events.
        """
        exchange, user = self._exchange, self._user
        if response.last_event is not None:
            exchange.terminator = response.last_event
        has_listeners = bool(user.environment.events.llm_token._handlers)
        while self._reads_on:
            timeout_s = max(0.0, (self._tail_until_ns - clock.now_ns()) / _NS) if self._tail_until_ns else None
            awaits_first = response.streamed and not self._first_token_fired
            each_read = has_listeners or awaits_first or timeout_s is not None
            try:
                if not exchange.wait(each_read=each_read, timeout_s=timeout_s):
                    self._end_in_silence(response)
            except DeadlineExceeded:
                if timeout_s is None:
                    raise
                self._end_in_silence(response)
            except GreenletExit:
                if timeout_s is not None:
                    self._end_with_last_event()
                    self._finished = True
                raise
            if not (each_read or exchange.is_over):
                self._run_context.endings.wait()  # otherwise, many answers are processed in one iteration of the loop
            if exchange.is_over or not self._reads_on:
                return
            self._process(response, exchange.take())

    def _end_with_last_event(self) -> None:
        """End an answer that has a finish reason: only usage can be missing."""
        self._reads_on = False
        self._end_stamp_ns, self._end_clock_ns = self._last_event

    def _end_in_silence(self, response: ResponseStream) -> None:
        """End an answer with its last event, because the server sends nothing more and keeps the connection open."""
        self._end_with_last_event()
        # These seconds are in no latency, but the user spends them.
        awaited = response.awaits_usage()
        seconds, why = (USAGE_GRACE_S, ", in case usage comes late") if awaited else (FINISH_GRACE_S, "")
        self._run_context.note(SILENT_NOTE.format(model=self.record.model, seconds=seconds, why=why))

    def _process(self, response: ResponseStream, arrivals: Arrivals) -> None:
        """Process the events in what has arrived (the hot path), up to the event that ends the answer.

        Raises ``StreamFailure``, or ``BadResponse`` for invalid or unlimited data.
        """
        events, exchange, bounds, user = response.events, self._exchange, self._bounds, self._user
        if bounds is None:
            bounds = self._bounds = Bounds(events.chunks, user.max_answer_chunks, user.max_answer_characters)
        feed, take = response.decoder.feed, events.take
        pieces, stamp_ns, clock_ns = arrivals.pieces, *self._last_read
        start = response.take_texts(arrivals) if len(pieces) >= _MANY_PIECES and not self._tail_until_ns else 0
        try:
            for stamp_ns, clock_ns, end in arrivals.reads(start):
                if self._tail_until_ns:
                    self._process_tail(response, pieces[start:end], stamp_ns, clock_ns)
                else:
                    for piece in pieces[start:end]:
                        for data in feed(piece):
                            take(data, stamp_ns, clock_ns)
                    if events.finish_reason is not None and events.output_complete:
                        self._begin_tail(response, stamp_ns, clock_ns)
                start = end
                if events.done:
                    self._reads_on = False
                    self._end_stamp_ns, self._end_clock_ns = stamp_ns, clock_ns
                    break
            if exchange.received >= bounds.look_at:
                bounds.look(exchange.received)
        except BaseException:
            self._reads_on = False
            self._end_clock_ns = clock_ns
            raise
        self._last_read = stamp_ns, clock_ns
        exchange.process_at = min(exchange.process_at, bounds.look_at)
        if events.chunks.stamps_ns:
            self._fire_tokens(events.chunks)

    def _begin_tail(self, response: ResponseStream, stamp_ns: int, clock_ns: int) -> None:
        """Note an event after which the output is complete.

        The answer ends with [DONE] or with the stream. If the server keeps the connection open without sending, the
        answer ends with its last event, also when the deadline is reached or the user is stopped.
        """
        self._last_event = stamp_ns, clock_ns
        self._tail_until_ns = clock_ns + _grace_ns(response)

    def _process_tail(self, response: ResponseStream, pieces: Sequence[Any], stamp_ns: int, clock_ns: int) -> None:
        """Process one read after the finish reason. Output in it removes the finish reason."""
        events = response.events
        found = [data for piece in pieces for data in response.decoder.feed(piece)]
        for data in found:
            events.take(data, stamp_ns, clock_ns)
        if not events.output_complete:
            self._tail_until_ns = 0
        elif not all(map(is_heartbeat, found)):
            self._begin_tail(response, stamp_ns, clock_ns)

    def _process_rest(self) -> None:
        """Process what has arrived since the last time, and the end of the body; then release the connection.

        Does not raise: how the request ended is in ``_error`` and ``_interruption``.
        """
        response, exchange = self._response, self._exchange
        try:
            if response is not None and self._error is None:
                self._process_end(response)
                self._finished = True
                if response.events.chunks.stamps_ns:
                    self._fire_tokens(response.events.chunks)
                if not response.events.complete:  # the bytes may belong to another response
                    exchange.discard()
                if self._interruption is None:
                    exchange.drain()
            elif response is not None and self._reads_on:
                self._process_before_error(response)
        except BaseException as raised:
            self._fail(raised)
        finally:
            exchange.release()

    def _process_end(self, response: ResponseStream) -> None:
        """Process the last events, a whole event without its blank line or a part of one, and the failure."""
        events, exchange = response.events, self._exchange
        try:
            if self._reads_on:
                self._process(response, exchange.take())
            if self._reads_on and exchange.failure is not None:
                raise exchange.failure
        except (ConnectionLost, StreamFailure, BadResponse) as error:
            # An error after [DONE] does not count: if it were not in the same read, it would not even be noticed.
            if not (events.complete if isinstance(error, ConnectionLost) else events.done):
                raise
        if not self._end_clock_ns:
            self._end_stamp_ns, self._end_clock_ns = self._last_read
        for data in response.decoder.finish():
            try:
                events.take(data, self._end_stamp_ns, self._end_clock_ns)
            except BadResponse:
                if not events.complete:
                    raise ResponseCut("the stream ended in the middle of an event") from None
        if not response.streamed and self._bounds is not None:
            self._bounds.look(exchange.received)

    def _process_before_error(self, response: ResponseStream) -> None:
        """Process what had arrived before the deadline, the cancellation or the end of the user.

        If it contains the end of the answer, the answer has succeeded. Raises an error that it contains.
        """
        error, end_clock_ns, self._end_clock_ns = self._error, self._end_clock_ns, 0
        self._process(response, self._exchange.take())
        if not self._reads_on:
            self._error, self._finished = None, True
        elif self._tail_until_ns and isinstance(error, (DeadlineExceeded, GreenletExit)):
            self._error, self._finished = None, True
            self._end_with_last_event()
        else:
            self._end_clock_ns = end_clock_ns

    def _fire_tokens(self, chunks: Chunks) -> None:
        """Fire the public events for new chunks."""
        hooks = self._user.environment.events
        request_id = self.record.request_id
        if not self._first_token_fired:
            self._first_token_fired = True
            first_ns = chunks.stamps_ns[0] or chunks.clocks_ns[0]
            ttft_s = (first_ns - self._exchange.sent_ns) / _NS
            hooks.llm_first_token.fire(user=self._user, request_id=request_id, ttft_s=ttft_s)
        if not hooks.llm_token._handlers:
            return
        for index in range(self._tokens_fired, len(chunks.stamps_ns)):
            hooks.llm_token.fire(
                user=self._user,
                request_id=request_id,
                index=index,
                stamp_ns=chunks.stamps_ns[index] or chunks.clocks_ns[index],
                piece=chunks.piece(index),
            )
        self._tokens_fired = len(chunks.stamps_ns)

    def _wait_for_idle_loop(self) -> None:
        """Wait before the row is made: answers that end together would delay the reads of other streams."""
        read_ns = clock.now_ns()
        try:
            self._run_context.endings.wait()
        except BaseException as raised:  # the user is being stopped: its row is written first
            self._interruption = raised
        self._user.user_state.behind_ns = clock.now_ns() - read_ns

    # The row.

    def _make_row(self) -> Answer:
        """Complete the record, write it, and fire the events."""
        user, run_context, record, permit = self._user, self._run_context, self.record, self._permit
        response, note = self._response, run_context.note
        chunks = response.events.chunks if response is not None else Chunks()
        too_long = isinstance(self._error, AnswerTooLong)  # its tokens and gaps are not needed, and would take long
        gaps_ns, stamps_ns = self._fill_times(chunks, with_gaps=not too_long)
        failed = self._fill_outcome()

        # Tokens.
        text, reasoning, choices = self._apply(_texts_of, chunks, too_long)
        if not too_long:
            counts = run_context.output_counts
            if counts is not None or record.output_tokens is None or record.input_tokens is None:
                is_all_text = not chunks.choice_at and not chunks.text_at
                # Not joined: the end of the reasoning and the beginning of the answer are different tokens.
                visible = [text, reasoning] if is_all_text else chunks.outputs
                if counts is not None:
                    self._count_output(counts, visible)
                self._count_missing_tokens(visible)
            doubt_usage(record, chunks, failed=failed, count=self._count, note=note)
        if record.output_tokens is not None and record.end_to_end_latency_s:
            record.request_output_throughput_token_per_s = record.output_tokens / record.end_to_end_latency_s
        if record.output_tokens and record.chunks:
            record.events_per_token = record.chunks / record.output_tokens

        # Whether the answer was streamed, and the time per output token.
        client_delay_s = partial(run_context.client_delay_s, chunks.clocks_ns[0] - _NS if chunks.clocks_ns else 0)
        body_reads = self._exchange.body_reads
        if not failed and response is not None and response.buffered(record, body_reads, client_delay_s):
            mark_buffered(record)
            gaps_ns = []
        else:
            record.tpot_s = time_per_output_token(chunks, record, failed=failed, count=self._count, note=note)
            if not failed and may_be_held_back(record):
                self._apply(mark_held_back, record, chunks, stamps_ns, client_delay_s())

        # The measurement window, the check, the row and the events.
        ok = record.ok
        self._fill_window([] if record.buffered or too_long else stamps_ns, ok=ok)
        redact_fields(record)
        tool_calls = response.events.tool_calls if response is not None and not too_long else []
        answer = Answer(text, record, reasoning, record.finish_reason, tool_calls, choices)
        if ok:
            self._check(answer)
        if permit.measured and ok and gaps_ns:
            self._add_gaps(gaps_ns)
        if self._span is not None:
            self._span.end(record)
        written_ns = stamps_ns if run_context.options.chunk_times else []
        offsets_s = [(stamp_ns - self._exchange.sent_ns) / _NS for stamp_ns in written_ns]
        _publish(user.environment, run_context, answer, offsets_s, user)
        return answer

    def _fill_times(self, chunks: Chunks, *, with_gaps: bool) -> tuple[list[int], list[int]]:
        """Fill the columns for times. Return the chunk gaps in ns and the stamps from which they were computed."""
        exchange, record = self._exchange, self.record
        record.reads, record.reconnects = exchange.reads, exchange.reconnects
        record.retries = exchange.retries
        if exchange.sent_wall_ns:
            record.started_at = exchange.sent_wall_ns / _NS
            record.connect_s = exchange.connect_ns / _NS
        stamps_ns, source = chunks.trusted_stamps_ns(clock_moved=bool(chunks.stamps_ns) and exchange.clock_moved())
        record.chunks = len(stamps_ns)
        gaps_ns = self._apply(time_chunks, record, chunks, stamps_ns, exchange.sent_ns, with_gaps)
        if stamps_ns:
            record.stamp_source = source
        end_ns = self._end_clock_ns
        if source == "kernel" and self._end_stamp_ns:
            end_ns = max(self._end_stamp_ns, stamps_ns[-1])
        elif not record.streamed and end_ns:
            source = "kernel" if self._end_stamp_ns and not exchange.clock_moved() else "user"
            end_ns, record.stamp_source = self._end_stamp_ns if source == "kernel" else end_ns, source
        if exchange.sent_ns and end_ns:
            record.end_to_end_latency_s = (end_ns - exchange.sent_ns) / _NS
        return gaps_ns, stamps_ns

    def _fill_outcome(self) -> bool:
        """Fill the columns for the response, the server's token counts and the error. Return True for an error."""
        record, response, error = self.record, self._response, self._error
        if response is not None:
            error = error or response.verdict()
            record.http_status = response.status
            record.response_id = response.events.response_id or response.request_id
            record.finish_reason = response.events.finish_reason
            response.count_usage(record)
            if record.output_tokens == 0 and not record.chunks and any(response.events.chunks.texts):
                record.output_tokens = record.output_tokens_source = None  # as with chunks: text has tokens
        elif error is not None:
            record.http_status, record.response_id = self._user.refusal_of(error)
        if error is not None:
            record.error_code, record.error_message = self._user.failure_of(error)
            self._advise_about_model()
            if record.error_code == CLIENT_LIMIT:
                self._run_context.note(f"requests failed with client_limit: {record.error_message}".rstrip("."))
        return error is not None

    def _advise_about_model(self) -> None:
        """Compare the model with the list of the server if the server may have refused the model."""
        record, user = self.record, self._user
        message = record.error_message or ""
        if record.http_status not in (400, 404) or "model" not in message.lower():
            return
        list_models = partial(user.listed_models, self._run_context, user.host)
        try:
            advice = self._run_context.model_names.advice(record.model, user.host, list_models)
        except GreenletExit as killed:  # its row is written first
            self._interruption = killed
            return
        if advice is not None:
            record.error_message = with_model_advice(message, advice)

    def _count_output(self, counts: OutputCounts, visible: list[str]) -> None:
        """Count the visible output in addition to the server. The user's wait is in ``queue_s`` of its next request."""
        record = self.record
        if record.output_tokens_source == "usage":
            record.output_tokens_usage = record.output_tokens
        if record.output_tokens_usage is None and not record.chunks and not any(visible):
            return
        began_ns = clock.now_ns()
        with counts.waiting(sum(map(len, visible))) as is_counted:
            if is_counted:
                tokens = self._in_thread(count_all, self._run_context.tokenizer, visible, turns=counts.turns)
                record.output_tokens_counted = tokens
                if counts.divides or record.output_tokens is None:
                    record.output_tokens, record.output_tokens_source = tokens, "tokenizer"
        self._user.user_state.behind_ns += clock.now_ns() - began_ns

    def _count_missing_tokens(self, visible: list[str]) -> None:
        """Count the tokens locally that the server did not count."""
        record = self.record
        if record.output_tokens is None and (record.chunks or any(visible)):
            record.output_tokens = self._in_thread(count_all, self._run_context.tokenizer, visible)
            record.output_tokens_source = "tokenizer"
        prompt = self._prompt
        if record.input_tokens is None and prompt is not None:
            record.input_tokens = prompt.input_tokens
            answered = record.ok or record.chunks > 0  # counting the prompt of a refused request would waste time
            # Only the server can count content that is not text, such as images.
            if prompt.input_tokens is None and prompt.text is not None and answered:
                record.input_tokens = self._count(prompt.text)
            elif prompt.input_tokens is None and prompt.messages and is_text_only(prompt.messages) and record.ok:
                count = partial(count_messages, self._run_context.tokenizer)
                record.input_tokens = self._in_thread(count, prompt.messages)
            if record.input_tokens is not None:
                record.input_tokens_source = "tokenizer"

    def _count(self, text: str) -> int:
        """Return the number of tokens of a text, counted with the local tokenizer."""
        return self._in_thread(self._run_context.tokenizer.count, text)

    def _add_gaps(self, gaps_ns: list[int]) -> None:
        """Add the chunk gaps to the histogram of the model in the stage."""
        histogram = self._run_context.gate.gaps_of_stage(self._permit, self.record.model)
        if len(gaps_ns) <= _MOST_IN_LOOP:
            histogram.add_ns(gaps_ns)
        else:
            histogram.merge(self._apply(counts_of, gaps_ns))

    def _apply(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that processes each chunk: in a thread if they are many, so that the loop goes on."""
        if self.record.chunks <= _MOST_IN_LOOP:
            return function(*arguments)
        return self._in_thread(function, *arguments, turns=self._run_context.long_answers)

    def _in_thread(
        self, function: Callable[..., T], *arguments: Any, turns: AbstractContextManager[Any] | None = None
    ) -> T:
        """Call in a thread. Return the result even if the user is killed in the meantime: its row is written first."""
        try:
            with turns or nullcontext():
                result: T = gevent.get_hub().threadpool.apply(function, arguments)
        except GreenletExit as killed:
            self._interruption = killed
            result = function(*arguments)
        return result

    def _fill_window(self, arrivals_ns: list[int], *, ok: bool) -> None:
        """Report the request to its stage, and fill the columns for the window, the queue and the phase at the end."""
        exchange, record, permit, gate = self._exchange, self.record, self._permit, self._run_context.gate
        # The queue ends at t0, or if there was none, when the exchange began to connect; 0: it did neither.
        start_ns, latency_s = exchange.sent_ns or exchange.connect_started_ns, record.end_to_end_latency_s
        end_ns = start_ns and start_ns + exchange.connect_ns
        if exchange.sent_ns:
            end_ns = exchange.sent_ns + round(latency_s * _NS) if latency_s is not None else 0
        record.count_in_window(gate.account(permit, start_ns, end_ns, arrivals_ns, ok=ok))
        if start_ns:
            record.queue_s = max(0.0, (start_ns - permit.intended_ns + permit.behind_ns) / _NS)
        if record.rate_per_s is not None:
            record.held_s = permit.held_ns / _NS
            record.correct_for_omission()
        record.phase_end, record.stage_end = gate.phase, gate.plan.stage

    def _check(self, answer: Answer) -> None:
        """Call the locustfile's check of the answer. Its exceptions end the task after the row is written."""
        record = self.record
        if self._prompt is None:
            return
        try:
            check = self._user.check_answer(self._prompt, answer)
        except BaseException as raised:  # also if the user is stopped in the meantime
            self._interruption = self._interruption or raised
            return
        if check is not None:
            record.expected_answer, record.answer_excerpt = excerpt(check.expected), excerpt(answer.text)
            record.answer_match = int(check.match)
            record.answer_strict_match = None if check.strict_match is None else int(check.strict_match)

    def _return_permit(self) -> None:
        record, run_context = self.record, self._run_context
        if run_context.watch is not None:
            run_context.watch.ended(self, record)
        code = None if record.outcome in (Outcome.OK, Outcome.CANCELLED) else record.error_code
        run_context.gate.leave(self._permit, self._user.user_state, code, record.error_message)
        if run_context.open_loop is not None:
            run_context.open_loop.over()


def _texts_of(chunks: Chunks, too_long: bool) -> tuple[str, str, list[str]]:
    """Return the answer, its reasoning, and the texts of all choices; of an answer that is too long, its beginning."""
    if too_long:
        return chunks.opening, "", [chunks.opening]
    text = chunks.answer
    return text, chunks.reasoning, chunks.choices if chunks.choice_at else [text]


def _grace_ns(response: ResponseStream) -> int:
    """Return how long a silence may last before it ends an answer whose output is complete."""
    return int((USAGE_GRACE_S if response.awaits_usage() else FINISH_GRACE_S) * _NS)


def record_unsent(
    environment: Any, run_context: RunContext, user_class: Any, permit: Permit, code: str, message: str
) -> None:
    """Write the row of a request of an open loop that was due and was not sent, and fire its events.

    ``user_class`` is the class of the user that would have sent it.
    """
    record = RequestRecord()
    _identify(record, run_context, user_class, permit)
    record.model = user_class.model or run_context.model or ""
    record.name = user_class.request_name or record.model or user_class.__name__
    record.endpoint = user_class.host or environment.host or None
    if permit.prompt is not None:
        record.prompt_index, record.requested_output_tokens = permit.prompt.index, permit.prompt.max_tokens
    record.error_code, record.error_message = code, message
    record.started_at = time.time() + (permit.intended_ns - time.monotonic_ns()) / _NS
    record.phase_end, record.stage_end = run_context.gate.phase, run_context.gate.plan.stage
    _publish(environment, run_context, Answer("", record), [], None)
    run_context.gate.leave(permit, UserState(), code, message)


def _identify(record: RequestRecord, run_context: RunContext, user_class: Any, permit: Permit) -> None:
    """Fill the columns that say which run, user class and stage a request belongs to."""
    record.request_id = run_context.new_request_id()
    record.run_id = run_context.run_id
    record.worker = run_context.worker
    record.user_class = user_class.__name__
    record.framework = run_context.options.framework or user_class.framework
    record.streamed = int(not run_context.options.no_stream)
    record.stage = permit.plan.stage
    record.phase = permit.phase
    record.measured = int(permit.measured)
    load = permit.plan.load
    record.concurrency, record.rate_per_s = load.concurrency, load.rate_per_s


def _publish(environment: Any, run_context: RunContext, answer: Answer, offsets_s: list[float], user: Any) -> None:
    """Hand over the row, and fire the events of a request that is over. ``user`` is None if it was not sent."""
    record, events, stats = answer.record, environment.events, environment.stats
    run_context.keep(record, offsets_s)
    events.llm_request.fire(user=user, record=record)
    if record.outcome.is_unfinished:
        return
    if record.ok:
        if record.ttft_s is not None:
            stats.get(record.name, "TTFT").log(record.ttft_s * 1000, 0)
        if record.tpot_s is not None:
            stats.get(record.name, "TPOT").log(record.tpot_s * 1000, 0)
    exception = None
    if not record.ok:  # Locust's table has one entry for each kind of error
        kind = run_context.error_kinds.entry(record.error_code or "", record.error_message or "")
        exception = RequestFailed(*kind)
    e2e_s = record.connect_s if record.end_to_end_latency_s is None else record.end_to_end_latency_s
    events.request.fire(
        request_type="E2E",
        name=record.name,
        response_time=(e2e_s or 0.0) * 1000,
        response_length=len(answer.text),
        exception=exception,
        context={**(user.context() if user is not None else {}), "record": record},
        start_time=record.started_at,
        url=record.endpoint or "",
    )
