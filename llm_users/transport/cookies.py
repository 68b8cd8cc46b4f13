"""Cookies of HTTP clients that a whole process shares: none, or one jar per simulated user.

Load balancers keep a client on one replica by a cookie. One jar for all users of a process would send the whole load
to one replica.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from typing import Any

CURRENT_JAR: ContextVar[CookieJar | None] = ContextVar("cookies of the user that sends in this greenlet", default=None)


def no_cookies() -> CookieJar:
    """A jar that takes no cookie."""
    return CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))


class UserCookies(CookieJar):
    """The jar of a shared client that stands for the jar of the user who sends (``CURRENT_JAR``)."""

    def __iter__(self) -> Iterator[Cookie]:
        jar = CURRENT_JAR.get()
        return iter(()) if jar is None else iter(jar)

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Put the cookies of a response into the user's jar."""
        jar = CURRENT_JAR.get()
        if jar is not None:
            jar.extract_cookies(response, request)

    def add_cookie_header(self, request: Any) -> None:
        """Give a request the cookies of the user's jar."""
        jar = CURRENT_JAR.get()
        if jar is not None:
            jar.add_cookie_header(request)
