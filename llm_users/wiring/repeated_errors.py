"""Locust logs each exception of a task with its whole traceback. Of the same error it is printed once, then counted.

The filter is on Locust's own loggers, in every process that has users.
"""

from __future__ import annotations

import logging
import time

EVERY_S = 5.0
"""How often one line says how many more of the same error there were."""

MOST_KINDS = 50
"""Tracebacks that are told apart; further ones count together."""

_LOGGERS = ("locust.user.task", "locust.user.users")


class _Kind:
    """One kind of error: how often it came since it was last mentioned."""

    def __init__(self) -> None:
        self.unsaid = 0
        self.text = ""
        self.said_at = time.monotonic()


class RepeatedErrors(logging.Filter):
    """Passes the first traceback of each kind, and then one line per ``EVERY_S`` seconds with a count."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, _Kind] = {}

    def install(self) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        text = _traceback(record)
        if text is None:
            return True
        place = "\n".join(line for line in text.splitlines() if line.startswith("  File "))
        if place not in self._kinds:
            if len(self._kinds) < MOST_KINDS:
                self._kinds[place] = _Kind()
                return True
            place = "other"
            self._kinds.setdefault(place, _Kind())
        kind = self._kinds[place]
        kind.unsaid += 1
        kind.text = f"{text.rstrip().rpartition(chr(10))[2]} (its traceback is above)"
        if time.monotonic() - kind.said_at < EVERY_S:
            return False
        record.msg, record.args = _count(kind), ()
        return True

    def end(self) -> None:
        """The run is over: say how many there were that no line has counted yet."""
        for kind in self._kinds.values():
            if kind.unsaid:
                logging.getLogger(__name__).error("%s", _count(kind))
        self._kinds.clear()


def _count(kind: _Kind) -> str:
    times = "once" if kind.unsaid == 1 else f"{kind.unsaid} times"
    kind.unsaid, kind.said_at = 0, time.monotonic()
    return f"the same error again, {times}: {kind.text}"


def _traceback(record: logging.LogRecord) -> str | None:
    """The traceback that Locust logs for an exception in a task or in ``on_start``; None in any other line."""
    if record.msg != "%s\n%s" or not isinstance(record.args, tuple) or len(record.args) != 2:
        return None
    return str(record.args[1])
