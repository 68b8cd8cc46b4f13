"""Which redirects a client follows: those within its own origin, and those to origins that the user has allowed.

A prompt and keys are sent only to the endpoint that the run names. Knows httpx2's hooks and no API.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NoReturn

import httpx2

from llm_users.transport.connection import DEFAULT_PORTS, Origin, origin_of
from llm_users.transport.errors import TransportError

MOST_REDIRECTS = 5

_KEEPING_THE_BODY = (307, 308)
_HOPS, _AUTHORIZATION = "llm_redirects", "llm_authorization"


class RedirectRefused(TransportError):
    """The answer is a redirect that is not followed; ``code`` is its status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.code = str(status)
        self.status_code = status


class Redirects:
    """The rules for one client; ``on_request`` and ``on_response`` are hooks of its ``httpx2.Client``."""

    def __init__(self, home: Origin, allowed: Collection[Origin], note: Callable[[str], object]) -> None:
        self._trusted = {home, *allowed}
        if home.scheme == "http" and home.port == DEFAULT_PORTS["http"]:  # an upgrade
            self._trusted.add(Origin("https", home.host, DEFAULT_PORTS["https"]))
        self._note = note
        self._noted = False

    def on_request(self, request: httpx2.Request) -> None:
        """Keep the authorization on the whole way: httpx2 takes it out of a request to another origin."""
        if request.extensions.get(_HOPS):
            authorization = request.extensions.get(_AUTHORIZATION)
            if authorization:
                request.headers["authorization"] = authorization
        elif "authorization" in request.headers:
            request.extensions[_AUTHORIZATION] = request.headers["authorization"]

    def on_response(self, response: httpx2.Response) -> None:
        """Let a redirect be followed or raise ``RedirectRefused``."""
        if not response.has_redirect_location:
            return
        request, status = response.request, response.status_code
        target = _target(request.url, response.headers["location"])
        if target is None:
            _refuse(status, "the server redirects to something that is not an http:// or https:// URL")
        origin, shown = origin_of(str(target)), _shown(target)
        if origin not in self._trusted:
            _refuse(
                status,
                f"the server redirects to another origin, {origin}. The prompt and the keys were not sent there. If it "
                f"is right, allow it with --llm-redirect-to {origin}, or give the final URL as --host",
            )
        if request.method not in ("GET", "HEAD") and status not in _KEEPING_THE_BODY:
            _refuse(
                status,
                f"the server redirects to {shown}, and with the status {status} the request would lose its prompt "
                "(only 307 and 308 keep it). Give the final URL as --host",
            )
        hops = request.extensions[_HOPS] = int(request.extensions.get(_HOPS, 0)) + 1
        if hops > MOST_REDIRECTS:
            _refuse(status, f"the server redirected {hops} times, at last to {shown}. Give the final URL as --host")
        if not self._noted and request.method == "POST":
            self._noted = True
            self._note(
                f"requests are redirected from {_shown(request.url)} to {shown}; each takes one more round trip, which "
                "is in its times. Give the final URL as --host"
            )


def _refuse(status: int, message: str) -> NoReturn:
    raise RedirectRefused(status, message)


def _target(url: httpx2.URL, location: str) -> httpx2.URL | None:
    """Where a Location leads; None when it cannot be used."""
    try:
        target = url.join(location)
    except httpx2.InvalidURL:
        return None
    return target if target.scheme in DEFAULT_PORTS and target.host else None


def _shown(url: httpx2.URL) -> str:
    """A URL without its user info and query, which may hold secrets."""
    return f"{origin_of(str(url))}{url.path}"
