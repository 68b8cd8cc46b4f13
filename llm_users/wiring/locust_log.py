"""A log filter for Locust's lines about users, which the lines of the stages replace.

In a run with stages, Locust logs each step of the ramp ("Ramping to 1 users", "All users spawned"), while the stages
log their number, their load and their result. The filter removes Locust's lines at level INFO, unless the level of the
log is DEBUG.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

_REPLACED = ("Ramping to ", "All users spawned: ", "Shape worker starting", "Shape test updating to ")
_LOGGER = "locust.runners"


class RampLines(logging.Filter):
    """Removes the lines while ``has_stages`` returns True."""

    def __init__(self, has_stages: Callable[[], bool]) -> None:
        super().__init__()
        self._has_stages = has_stages

    def install(self) -> None:
        """Attach the filter to Locust's logger, instead of the one of an earlier environment."""
        logger = logging.getLogger(_LOGGER)
        for old in [each for each in logger.filters if isinstance(each, RampLines)]:
            logger.removeFilter(old)
        logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        replaced = record.levelno == logging.INFO and str(record.msg).startswith(_REPLACED)
        return not (replaced and self._has_stages()) or logging.getLogger().isEnabledFor(logging.DEBUG)
