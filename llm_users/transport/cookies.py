"""Cookie jars for HTTP clients that all users of a process share: a jar without cookies, or one jar per user.

Load balancers use a cookie to keep a client on one replica. One jar for all users of a process would send the whole
load to one replica.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from typing import Any

CURRENT_JAR: ContextVar[CookieJar | None] = ContextVar("cookies of the user that sends in this greenlet", default=None)


def no_cookies() -> CookieJar:
    """Return a jar that accepts no cookies."""
    return CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))


class UserCookies(CookieJar):
    """The jar of a shared client. It delegates to the jar of the user that sends the request (``CURRENT_JAR``)."""

    def __iter__(self) -> Iterator[Cookie]:
        jar = CURRENT_JAR.get()
        return iter(()) if jar is None else iter(jar)

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Store the cookies of a response in the user's jar."""
        jar = CURRENT_JAR.get()
        if jar is not None:
            jar.extract_cookies(response, request)

    def add_cookie_header(self, request: Any) -> None:
        """Add the cookies of the user's jar to a request."""
        jar = CURRENT_JAR.get()
        if jar is not None:
            jar.add_cookie_header(request)
