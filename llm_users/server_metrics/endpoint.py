"""One server's ``/metrics``: a plain GET over a kept connection, bounded in time and size.

The request carries no key, no cookie and no credentials. Redirects are errors: another server's metrics would be wrong.
"""

from __future__ import annotations

import contextlib
import ssl
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

import gevent

from llm_users.secrets import redact_start

TIMEOUT_S = 2.0
"""How long one answer may take."""

MOST_BYTES = 4 * 1024 * 1024
"""How much of an answer is read. vLLM's metrics have about 50 kB."""

_TEXT_TYPES = ("text/plain", "application/openmetrics-text")
_PIECE_BYTES = 64 * 1024
_HEADERS = {
    "Accept": "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5",
    "User-Agent": "locust-llm",
}


class NoMetrics(Exception):
    """The endpoint gave no metrics. The message says what it did: ``answers with status 404``."""


class _TooLate(Exception):
    """The time of a request is over."""


class MetricsEndpoint:
    """The metrics of one server. ``url`` is the whole URL; ``context`` is for https."""

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        self.url = url
        parts = urlsplit(url)
        self._path = f"{parts.path or '/metrics'}{f'?{parts.query}' if parts.query else ''}"
        host = parts.hostname or ""
        self._connection: HTTPConnection = (
            HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=context)
            if parts.scheme == "https"
            else HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
        )

    def get(self) -> tuple[bytes, str]:
        """Return the text and its content type. Raises ``NoMetrics``."""
        is_kept = self._connection.sock is not None
        try:
            with gevent.Timeout(TIMEOUT_S, _TooLate):
                try:
                    return self._answer()
                except (ConnectionError, HTTPException):
                    if not is_kept:
                        raise
                    self.close()  # the server has closed the kept connection
                    return self._answer()
        except (_TooLate, TimeoutError):
            self.close()
            raise NoMetrics(f"did not answer within {TIMEOUT_S:g} s") from None
        except (HTTPException, ValueError) as error:
            self.close()
            raise NoMetrics(
                f"does not answer in HTTP ({redact_start(str(error), 80) or type(error).__name__})"
            ) from None
        except OSError as error:
            self.close()
            reason = error.strerror or str(error) or type(error).__name__
            raise NoMetrics(f"cannot be reached ({redact_start(reason, 100)})") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection. The next request opens another one."""
        with contextlib.suppress(OSError):
            self._connection.close()

    def _answer(self) -> tuple[bytes, str]:
        self._connection.request("GET", self._path, headers=_HEADERS)
        response = self._connection.getresponse()
        kind = response.headers.get("content-type", "")
        problem = _problem(response, kind.partition(";")[0].strip().lower())
        if problem:
            self.close()
            raise NoMetrics(problem)
        pieces, size = [], 0
        while piece := response.read(_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > MOST_BYTES:
                self.close()
                raise NoMetrics(f"answers with more than {MOST_BYTES // 2**20} MiB")
        if response.length:
            self.close()
            raise NoMetrics("answers with a body that ends too early")
        return b"".join(pieces), kind


def _problem(response: HTTPResponse, kind: str) -> str:
    """Return what kind of answer it is if it has no metrics, or ""."""
    if 300 <= response.status < 400:
        where = redact_start(response.headers.get("location", ""), 100)
        return f"answers with status {response.status}, a redirect to {where or 'nowhere'}"
    if response.status != 200:
        return f"answers with status {response.status}"
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        return f"answers with the content encoding {redact_start(response.headers['content-encoding'], 40)}"
    if kind and kind not in _TEXT_TYPES:
        return f"answers with the content type {redact_start(kind, 80)} instead of text/plain"
    return ""
