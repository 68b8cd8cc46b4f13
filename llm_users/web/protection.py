"""The HTTP requests that the web interface accepts: protection against cross-site requests, DNS rebinding, open pages.

Locust's web interface does not check origins and answers every page with ``Access-Control-Allow-Origin: *``. Without
the checks of this module, any web page that a user visits could post a form to ``/swarm`` and have keys, environment
variables and files sent to any host.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from flask import Response, jsonify, request

logger = logging.getLogger(__name__)

SWARM, UPDATE_USER = "locust.swarm", "locust.update_user"
"""Flask's names of the routes that start a test and that change a user class."""

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_CHANGING = ("locust.stop", "locust.reset_stats")
"""Routes that change state. Earlier Locust versions also serve them with GET."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ALLOW_ORIGIN = "Access-Control-Allow-Origin"
_OWN_ENDPOINTS = ("llm_",)
_MOST_REFUSALS_LOGGED = 20

Step = Callable[[], str | None]
"""Runs before a view and can change ``request.form``. Returns the reason for a rejection, or None."""


class Protection:
    """The rules of one web interface. ``origins`` are other origins that may use it (``--llm-web-origin``)."""

    def __init__(self, web_ui: Any, origins: Iterable[str] = ()) -> None:
        self._web_ui = web_ui
        self._origins = [address[1:] for origin in origins if (address := origin_of(origin)) is not None]
        bound_to_loopback = is_loopback(web_ui.host or "")
        self.exposed = not bound_to_loopback and not web_ui.web_login
        """Whether any computer on the network can use the page: no login, and not bound to loopback."""
        self._checks_host = bound_to_loopback and not web_ui.web_login
        self._logged = 0

    def install(self) -> None:
        """Check every request before other code of the extension or of a locustfile runs."""
        app = self._web_ui.app
        app.before_request_funcs.setdefault(None, []).insert(0, self._check)
        # Flask runs the function that was registered first last, so this one runs after the one that adds the header.
        app.after_request_funcs.setdefault(None, []).insert(0, _without_allowed_origin)

    def before(self, endpoint: str, step: Step) -> None:
        """Run a step before a view of Locust, after routing and Locust's login.

        The form shows the reason of a rejection.
        """
        views = self._web_ui.app.view_functions
        view = views.get(endpoint)
        if view is None:  # a route that this version of Locust does not have
            return

        @functools.wraps(view)
        def checked_view(**arguments: Any) -> Any:
            reason = step()
            if reason is not None:
                logger.error("the web interface refused a request: %s", reason)
                return jsonify({"success": False, "message": reason, "host": self._web_ui.environment.host})
            return view(**arguments)

        views[endpoint] = self._web_ui.auth_required_if_enabled(checked_view)

    def _check(self) -> Response | None:
        """Return a response with status 403 if the request is rejected, or None."""
        host = request.headers.get("Host", "")
        address = origin_of(f"//{host}")
        name = address[1] if address is not None else ""
        if self._checks_host and host and not (is_loopback(name) or any(name == other for other, _ in self._origins)):
            return self._refused(
                f"the host name {host!r} is not one of this machine's loopback names. Use http://127.0.0.1, or allow "
                "the name with --llm-web-origin"
            )
        if request.method in _SAFE_METHODS and request.endpoint not in _CHANGING:
            return None
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if site is not None:
            allowed = site in ("same-origin", "none")
        elif origin is not None:
            sender = origin_of(origin)
            # A Host header without a port means the default port of the origin's scheme.
            own = sender is not None and origin_of(f"{sender[0]}://{host}") == sender
            allowed = own or (sender is not None and sender[1:] in self._origins)
        else:
            allowed = True  # scripts send neither header; browsers send at least one of them
        if allowed:
            return None
        return self._refused(
            f"the request comes from another site ({origin or site}). If that site may control this test, allow it "
            "with --llm-web-origin"
        )

    def _refused(self, reason: str) -> Response:
        self._logged += 1
        if self._logged <= _MOST_REFUSALS_LOGGED:
            logger.warning("the web interface refused %s %s: %s", request.method, request.path[:200], reason[:500])
        response = jsonify({"success": False, "message": reason})
        response.status_code = 403
        return response


def is_loopback(host: str) -> bool:
    """Return whether the host is a loopback address or ``localhost``. An empty host (all interfaces) is not."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of a URL, or None if it has no host or its port is not a number."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.scheme, parts.hostname.rstrip(".").lower(), port or _DEFAULT_PORTS.get(parts.scheme)


def _without_allowed_origin(response: Response) -> Response:
    """Remove the header that lets every site read an answer of the extension's own routes."""
    if (request.endpoint or "").startswith(_OWN_ENDPOINTS):
        response.headers.pop(_ALLOW_ORIGIN, None)
    return response
