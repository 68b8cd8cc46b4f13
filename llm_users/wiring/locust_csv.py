"""Locust's own files of ``--csv`` on a disk that is full: an error in the log and exit code 3.

Without this, Locust ends with a traceback after everything else is done, and with another exit code. Its writer also
ends with one when the end of a run closes the files under it.
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
    """Change how Locust writes its files of ``--csv``; calling it again changes nothing."""
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
            # Locust closes the files at its end while this goes on, after it has written them a last time.
            if not any(getattr(self, name).closed for name in _FILES):
                raise

    return stats_writer


def _close_each(self: Any) -> None:
    """What cannot be written any more is given up, file by file."""
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
