"""One request on its way: sent within its deadline, read, and its permit given back, however it ends.

The user (``users.llm``) decides what to ask and what an answer means.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import gevent
from locust.exception import StopUser

from llm_users.load.worker.context import RunContext
from llm_users.load.worker.permits import Permit, UserState
from llm_users.outcome import Outcome
from llm_users.record import RequestRecord
from llm_users.transport.clock import now_ns
from llm_users.transport.errors import DeadlineExceeded
from llm_users.transport.exchange import Exchange, SdkExchange
from llm_users.users.answer import Ask
from llm_users.users.cancellation import Cancellation, is_chosen
from llm_users.users.response_reader import Reader, ResponseStream


class Call:
    """One request on its way: what it asked, what came back, how it ended.

    ``record`` is filled while the request runs; ``reader`` reads the answer that comes through ``exchange``.
    """

    def __init__(
        self,
        run_context: RunContext,
        user_state: UserState,
        permit: Permit,
        record: RequestRecord,
        exchange: Exchange | SdkExchange,
        reader: Reader,
    ) -> None:
        self._run_context = run_context
        self._user_state = user_state
        self.permit = permit
        self.record = record
        self.exchange = exchange
        self.reader = reader
        self.ask: Ask | None = None
        self.response: ResponseStream | None = None
        self.error: BaseException | None = None
        self.interruption: BaseException | None = None
        """What ends the user, not only the request: raised again when the row is written."""
        self.exchange.not_before = self._before_sending

    def run(
        self, make: Callable[[], Ask], open_response: Callable[[Ask, Exchange | SdkExchange], ResponseStream]
    ) -> None:
        """Send and read. Never raises: how it ended is in ``error`` and ``interruption``."""
        run_context = self._run_context
        timeout_s = run_context.options.timeout_s
        late = DeadlineExceeded(f"no complete answer within {timeout_s:g} s (--llm-timeout)")
        try:
            self.ask = make()
            with gevent.Timeout(timeout_s, late), self._cancellation():
                self.response = open_response(self.ask, self.exchange)
                run_context.gate.reached(self.permit)
                if run_context.watch is not None:
                    run_context.watch.began(self, self.response.events.chunks, self.reader.sent_ns)
                self.reader.read(self.response)
        except BaseException as raised:
            if not isinstance(raised, Exception) or isinstance(raised, StopUser):
                self.interruption = raised
            if not self.reader.finished:  # an answer that was read to its end has succeeded
                self.error = raised
                self.reader.failed()
                if self.response is not None:
                    self.exchange.discard()
        finally:
            self.exchange.release()

    def _before_sending(self) -> None:
        """The first byte is about to go out: wait until it is due."""
        run_context = self._run_context
        if isinstance(self.exchange, Exchange):  # else the SDK has yet to connect
            run_context.gate.reached(self.permit)
        if run_context.timer is not None:
            run_context.timer.wait_until(self.permit.intended_ns)

    def step_aside(self) -> None:
        """Reading goes before finishing: answers that end at one moment would keep the others' tokens waiting."""
        read_ns = now_ns()
        try:
            self._run_context.endings.wait()
        except BaseException as raised:  # of a user that is stopped meanwhile: the row comes first
            self.interruption = raised
        self._user_state.behind_ns = now_ns() - read_ns

    def _cancellation(self) -> AbstractContextManager[None]:
        """Bounds the request where it is one of those that ``--llm-cancel`` gives up."""
        run_context = self._run_context
        if run_context.options.cancel is None:
            return nullcontext()
        share, after_s = run_context.options.cancel
        chosen = is_chosen(run_context.options.seed, run_context.worker, self.record.request_id, share)
        return Cancellation(self.exchange, after_s) if chosen else nullcontext()

    def leave(self) -> None:
        """Give the permit back."""
        record, run_context = self.record, self._run_context
        if run_context.watch is not None:
            run_context.watch.ended(self, record)
        code = None if record.outcome in (Outcome.OK, Outcome.CANCELLED) else record.error_code
        run_context.gate.leave(self.permit, self._user_state, code, record.error_message)
        if run_context.open_loop is not None:
            run_context.open_loop.over()
