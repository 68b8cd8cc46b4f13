"""A log filter for repeated exceptions in tasks: the first one has a traceback, the following ones are counted.

Locust logs each exception with its traceback. The filter is attached to Locust's own loggers, in every process that has
users.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

EVERY_S = 5.0
"""How often one line reports the number of further identical errors."""

MOST_KINDS = 50
"""Maximum number of different tracebacks. Further ones are counted together."""

_LOGGERS = ("locust.user.task", "locust.user.users")


@dataclass
class _Kind:
    """A kind of error and its number since the last line in the log."""

    unreported: int = 0
    text: str = ""
    reported_at: float = field(default_factory=time.monotonic)

    def report(self) -> str:
        """Return the line with the count, and begin to count again."""
        times = "once" if self.unreported == 1 else f"{self.unreported} times"
        self.unreported, self.reported_at = 0, time.monotonic()
        return f"the same error again, {times}: {self.text}"


class RepeatedErrors(logging.Filter):
    """Passes the first traceback of each kind, and then at most one line per ``EVERY_S`` seconds with a count."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, _Kind] = {}

    def install(self) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        # Locust logs an exception in a task or in ``on_start`` as its message and its traceback.
        if record.msg != "%s\n%s" or not isinstance(record.args, tuple) or len(record.args) != 2:
            return True
        text = str(record.args[1])
        key = "\n".join(line for line in text.splitlines() if line.startswith("  File "))
        if key not in self._kinds:
            if len(self._kinds) < MOST_KINDS:
                self._kinds[key] = _Kind()
                return True
            key = "other"
        kind = self._kinds.setdefault(key, _Kind())
        kind.unreported += 1
        kind.text = f"{text.rstrip().rpartition(chr(10))[2]} (its traceback is above)"
        if time.monotonic() - kind.reported_at < EVERY_S:
            return False
        record.msg, record.args = kind.report(), ()
        return True

    def end(self) -> None:
        """Log the errors at the end of the run that no line has counted yet."""
        for kind in self._kinds.values():
            if kind.unreported:
                logging.getLogger(__name__).error("%s", kind.report())
        self._kinds.clear()
