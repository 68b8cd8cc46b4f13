"""Decide which redirects a client follows: only within its own origin, and to origins that the user allows.

Prompts and keys are sent only to the endpoint of the run and to these origins. The module uses httpx2's hooks and does
not depend on an API.
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
    """The response is a redirect that is not followed. ``code`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.code = str(status)
        self.status_code = status


class Redirects:
    """The redirect rules of one client. ``on_request`` and ``on_response`` are hooks of its ``httpx2.Client``."""

    def __init__(self, home: Origin, allowed: Collection[Origin], note: Callable[[str], object]) -> None:
        self._trusted = {home, *allowed}
        if home.scheme == "http" and home.port == DEFAULT_PORTS["http"]:  # an upgrade to https is allowed
            self._trusted.add(Origin("https", home.host, DEFAULT_PORTS["https"]))
        self._note = note
        self._noted = False

    def on_request(self, request: httpx2.Request) -> None:
        """Restore the authorization after a redirect, because httpx2 removes it for another origin."""
        if request.extensions.get(_HOPS):
            authorization = request.extensions.get(_AUTHORIZATION)
            if authorization:
                request.headers["authorization"] = authorization
        elif "authorization" in request.headers:
            request.extensions[_AUTHORIZATION] = request.headers["authorization"]

    def on_response(self, response: httpx2.Response) -> None:
        """Allow a redirect, or raise ``RedirectRefused``."""
        if not response.has_redirect_location:
            return
        request, status = response.request, response.status_code
        target = _target(request.url, response.headers["location"])
        if target is None:
            _refuse(status, "the server redirects to a target that is not an http:// or https:// URL")
        origin, shown = origin_of(str(target)), _shown_url(target)
        if origin not in self._trusted:
            _refuse(
                status,
                f"the server redirects to another origin, {origin}. The prompt and the keys were not sent there. If "
                f"this is intended, allow it with --llm-redirect-to {origin}, or set the final URL with --host",
            )
        if request.method not in ("GET", "HEAD") and status not in _KEEPING_THE_BODY:
            _refuse(
                status,
                f"the server redirects to {shown}, and with the status {status} the request would lose its prompt "
                "(only 307 and 308 keep it). Set the final URL with --host",
            )
        hops = request.extensions[_HOPS] = int(request.extensions.get(_HOPS, 0)) + 1
        if hops > MOST_REDIRECTS:
            _refuse(status, f"the server redirected {hops} times, last to {shown}. Set the final URL with --host")
        if not self._noted and request.method == "POST":
            self._noted = True
            self._note(
                f"requests are redirected from {_shown_url(request.url)} to {shown}; the times of each request include "
                "one more round trip. Set the final URL with --host"
            )


def _refuse(status: int, message: str) -> NoReturn:
    raise RedirectRefused(status, message)


def _target(url: httpx2.URL, location: str) -> httpx2.URL | None:
    """Return the URL of a Location header; None if it is invalid."""
    try:
        target = url.join(location)
    except httpx2.InvalidURL:
        return None
    return target if target.scheme in DEFAULT_PORTS and target.host else None


def _shown_url(url: httpx2.URL) -> str:
    """Return a URL without user info and query, which may contain secrets."""
    return f"{origin_of(str(url))}{url.path}"
