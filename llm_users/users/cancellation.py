"""Cancel a fraction of requests a given time after they are sent (``--llm-cancel``).

The seed and the request number select the requests. The module uses the exchange's t0 and the clock; it does not
handle the outcome of the request.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from llm_users.options.table import Options
from llm_users.outcome import CANCELLED
from llm_users.prompts.draws import stream
from llm_users.transport.errors import TransportError
from llm_users.transport.exchange import Exchange, SdkExchange
from llm_users.users.request_timer import RequestTimer

_NO_CANCELLATION = nullcontext()


class RequestCancelled(TransportError):
    """The client cancelled the request."""

    code = CANCELLED


class Cancellation(RequestTimer):
    """Raise ``RequestCancelled`` in the ``with`` block ``timeout_s`` seconds after t0."""

    def error(self) -> RequestCancelled:
        return RequestCancelled(f"the client cancelled the request after {self.timeout_s:g} s (--llm-cancel)")


def cancellation(
    options: Options, worker: int, request_id: str, exchange: Exchange | SdkExchange
) -> AbstractContextManager[None]:
    """Return the cancellation of this request, which does nothing for requests that ``--llm-cancel`` does not select.

    The selection depends only on the seed, the worker and the number of the request.
    """
    if options.cancel is None:
        return _NO_CANCELLATION
    share, after_s = options.cancel
    number = request_id.rpartition("-")[2]
    chosen = stream(options.seed, "cancel", worker, number).random() < share
    return Cancellation(exchange, after_s) if chosen else _NO_CANCELLATION
