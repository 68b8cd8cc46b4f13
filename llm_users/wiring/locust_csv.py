"""Handling of a full disk in Locust's own ``--csv`` files: an error in the log and exit code 3.

Without this module, Locust ends with a traceback after everything else is done, and with another exit code. Its writer
also raises an error when the end of a run closes the files that it is writing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from locust.stats import StatsCSVFileWriter

from llm_users.run_files import LOCUST_EXCEPTIONS_CSV, LOCUST_STATS_CSV

logger = logging.getLogger(__name__)

NOT_WRITTEN = 3
_FILES = (
    "requests_csv_filehandle",
    "stats_history_csv_filehandle",
    "failures_csv_filehandle",
    "exceptions_csv_filehandle",
)


def tolerate_full_disk() -> None:
    """Change how Locust writes its ``--csv`` files. Further calls have no effect."""
    writer: Any = StatsCSVFileWriter
    if getattr(writer, "_llm_tolerates_full_disk", False):
        return
    writer._llm_tolerates_full_disk = True
    writer.stats_writer = _reporting(writer.stats_writer)
    writer.close_files = _close_each


def _reporting(write: Callable[[Any], None]) -> Callable[[Any], None]:
    def stats_writer(self: Any) -> None:
        try:
            write(self)
        except OSError as error:
            _report(self, error)
        except ValueError:
            # When Locust ends, it writes the files a last time and closes them while this greenlet still runs.
            if not any(getattr(self, name).closed for name in _FILES):
                raise

    return stats_writer


def _close_each(self: Any) -> None:
    """Close the files one by one, and report the files that cannot be written."""
    for name in _FILES:
        try:
            getattr(self, name).close()
        except OSError as error:
            _report(self, error)


def _report(writer: Any, error: OSError) -> None:
    if getattr(writer, "_llm_reported", False):
        return
    writer._llm_reported = True
    logger.error(
        "Locust's own files %s%s, ..., %s are incomplete: they cannot be written (%s)",
        writer.base_filepath,
        LOCUST_STATS_CSV,
        LOCUST_EXCEPTIONS_CSV,
        error.strerror or error,
    )
    if not writer.environment.process_exit_code:
        writer.environment.process_exit_code = NOT_WRITTEN
