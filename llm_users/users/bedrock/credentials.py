"""Hold and renew AWS credentials during a run. A greenlet renews them in the background, so signing never waits.

The module uses the public methods of botocore's credentials; it does not depend on clients, users or regions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import gevent
from botocore.credentials import Credentials, ReadOnlyCredentials

from llm_users import secrets

logger = logging.getLogger(__name__)

BEARER_VARIABLE = "AWS_BEARER_TOKEN_BEDROCK"

RENEW_BEFORE_S = 895.0
"""botocore renews credentials only in their last 900 s (its advisory window); an earlier request has no effect."""

_MIN_CHECK_S = 1.0  # the shortest and the longest interval between two checks
_MAX_CHECK_S = 60.0
_FOREVER_S = 10 * 365 * 86400.0

# botocore's names of credential sources.
_SOURCES = {
    "env": "access key from the environment",
    "shared-credentials-file": "access key from the credentials file",
    "config-file": "access key from the config file",
    "assume-role": "assumed role",
    "assume-role-with-web-identity": "role assumed with a web identity",
    "sso": "single sign-on",
    "login": "console login",
    "custom-process": "credential process",
    "container-role": "role of the container",
    "iam-role": "role of the EC2 instance",
    "explicit": "explicit credentials",
}


def seconds_left(credentials: Any) -> float | None:
    """Return how long these credentials are valid, in s; None if their expiry is unknown."""
    needed: Callable[[float], bool] | None = getattr(credentials, "refresh_needed", None)
    if needed is None or not needed(_FOREVER_S):
        return None
    low, high = 0.0, _FOREVER_S
    while high - low > 0.01:  # the public interface only tells whether less than a given time is left
        middle = (low + high) / 2
        low, high = (low, middle) if needed(middle) else (middle, high)
    return low


class HeldCredentials(Credentials):  # type: ignore[misc]
    """The credentials for signing: a snapshot of the source, so that no request waits for a renewal."""

    def __init__(self, source: Any) -> None:
        frozen = source.get_frozen_credentials()
        super().__init__(frozen.access_key, frozen.secret_key, frozen.token, method=source.method)
        self.source = source
        self._frozen = frozen
        self.lifetime_s = seconds_left(source)
        _remember(frozen)

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return self._frozen

    def renew(self) -> bool:
        """Read the source, which renews the credentials if they are due. Return True if they have changed."""
        frozen = self.source.get_frozen_credentials()
        changed = bool(frozen != self._frozen)
        if changed:
            _remember(frozen)
            self.access_key, self.secret_key, self.token = frozen.access_key, frozen.secret_key, frozen.token
            self._frozen = frozen
            self.lifetime_s = seconds_left(self.source)
        return changed

    def due_s(self) -> float | None:
        """Return the time to the next renewal in s; None if no renewal is needed.

        A renewal is due when less than ``RENEW_BEFORE_S`` and less than half of the lifetime remain.
        """
        left_s = seconds_left(self.source)
        if left_s is None or self.lifetime_s is None:
            return None
        return max(0.0, left_s - min(RENEW_BEFORE_S, self.lifetime_s / 2))


def keep_fresh(held: HeldCredentials, note: Callable[[str], None]) -> Callable[[], None]:
    """Renew the credentials in the background. Return a function that stops the renewal."""
    if held.lifetime_s is None:
        return lambda: None

    def renew_when_due() -> None:
        failures = 0
        while (due_s := held.due_s()) is not None:
            pause_s = min(_MIN_CHECK_S, (held.lifetime_s or 0) / 4) * 2**failures
            gevent.sleep(min(max(due_s, pause_s), _MAX_CHECK_S))
            if due_s > _MAX_CHECK_S:  # the wall clock may change or the machine may sleep: check again
                continue
            try:
                held.renew()
                failures = 0
            except Exception as error:
                failures += 1
                note(f"AWS credentials could not be renewed ({type(error).__name__}): {secrets.redact(str(error))}")

    greenlet = gevent.spawn(renew_when_due)
    return lambda: greenlet.kill(block=False)


def describe(credentials: Any, profile: str | None) -> str:
    """Return the kind of the credentials in use, without the credentials themselves."""
    method = str(credentials.method)
    text = _SOURCES.get(method, method)
    if profile and method != "env":
        text += f", profile {profile}"
    if method == "env" and os.environ.get("AWS_SESSION_TOKEN"):
        text += ", temporary"
    return text


def _remember(frozen: ReadOnlyCredentials) -> None:
    """Register all parts of the credentials for redaction."""
    for part in (frozen.access_key, frozen.secret_key, frozen.token):
        secrets.remember(part)
