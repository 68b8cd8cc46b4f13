"""The names of the files of a run. Only this module contains them.

Every name begins with the prefix of the run, which is what ``--csv PREFIX`` gives or ``default_prefix()``::

    PREFIX_llm_requests.csv       one row for each request
    PREFIX_llm_stages.csv         one row for each stage
    PREFIX_llm_gaps.csv           histograms of the gaps between chunks, one for each stage
    PREFIX_llm_offsets.csv        the arrival time of every chunk
    PREFIX_llm_conversations.csv  one row for each conversation
    PREFIX_llm_server.csv         the server's own metrics, one row for each stage, server and metric
    PREFIX_llm_run.json           the manifest
    PREFIX_llm_gate.xml           the verdict of the SLO gate as JUnit XML
    PREFIX_llm_find.csv           the stages of a load search
    PREFIX_report/                the report: report.md, report.html, summary.csv and more
    PREFIX_llm_run.lock           the lock of the prefix, during the run
    PREFIX_llm_spool/             the shards of the workers of this machine, during the run

A shard is a rows file with a part of the rows: the rows of one worker, or the rows that could not be written into the
rows file. Its name begins with the id of the run instead of the prefix.

The module imports only the standard library, so both the load side and the report side can use it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

REQUESTS_CSV = "_llm_requests.csv"
STAGES_CSV = "_llm_stages.csv"
GAPS_CSV = "_llm_gaps.csv"
OFFSETS_CSV = "_llm_offsets.csv"
CONVERSATIONS_CSV = "_llm_conversations.csv"
SERVER_METRICS_CSV = "_llm_server.csv"
MANIFEST_JSON = "_llm_run.json"
GATE_XML = "_llm_gate.xml"
LOAD_SEARCH_CSV = "_llm_find.csv"
REPORT_FOLDER = "_report"
RUN_SUFFIXES = (
    REQUESTS_CSV,
    STAGES_CSV,
    GAPS_CSV,
    OFFSETS_CSV,
    CONVERSATIONS_CSV,
    SERVER_METRICS_CSV,
    MANIFEST_JSON,
    GATE_XML,
    LOAD_SEARCH_CSV,
    REPORT_FOLDER,
)
"""The files that a run leaves. They do not include the spool folder: workers of an earlier run may still write into it,
and the manifest names its files."""

RUN_FILES_PATTERN = "_llm_*"
"""A shell pattern for the files of this package."""

LOCK_FILE = "_llm_run.lock"
SPOOL_FOLDER = "_llm_spool"
SHARD_CSV = "_llm_shard.csv"
PART_SUFFIX = ".part"
"""The suffix of a file that is not complete yet."""
GZIP_SUFFIX = ".gz"
"""The suffix of a file that a user has compressed."""

LOCUST_STATS_CSV = "_stats.csv"
LOCUST_EXCEPTIONS_CSV = "_exceptions.csv"
LOCUST_SUFFIXES = (LOCUST_STATS_CSV, "_stats_history.csv", "_failures.csv", LOCUST_EXCEPTIONS_CSV)
"""The files of Locust's own ``--csv``. Locust truncates these files when it starts."""

REPORT_MD = "report.md"
REPORT_HTML = "report.html"
SUMMARY_CSV = "summary.csv"

FALLBACK_ROWS_FOLDER = "locust-llm-rows-"
"""The prefix of the name of a temporary folder with rows that could not be written beside the prefix of the run."""
FALLBACK_SPOOL_FOLDER = "locust-llm-spool-"
"""The prefix of the name of a temporary folder with the shard of a worker on another machine."""


def default_prefix() -> str:
    """Return the prefix of a run that is started now without ``--csv``: ``out/2026-01-31_12-00-00/run``."""
    return time.strftime("out/%Y-%m-%d_%H-%M-%S/run")


def absolute(prefix: str) -> str:
    """Return the prefix as a path that stays valid when the working directory changes."""
    folder, name = os.path.split(prefix)
    return f"{Path(folder).absolute()}/{name}"


def from_here(prefix: str, whole: str) -> str:
    """Return the prefix as it was given, or the absolute prefix when the working directory has changed."""
    return prefix if absolute(prefix) == whole else whole


def path_of(prefix: str | Path, suffix: str) -> Path:
    """Return the path of a file of a run: ``path_of("out/run", STAGES_CSV)`` is ``out/run_llm_stages.csv``."""
    return Path(f"{prefix}{suffix}")


def shard_name(run_id: str, worker: int) -> str:
    """Return the name of the shard in which a worker keeps its rows."""
    return f"{run_id}_{worker}{SHARD_CSV}"


def fallback_name(run_id: str) -> str:
    """Return the prefix, within a fallback folder, of files that could not be written beside the prefix of the run."""
    return f"{run_id}_rows"


def mark_name(run_id: str) -> str:
    """Return the name of the file by which workers recognize the spool folder of their run."""
    return f"{run_id}.run"


def start_counts_prefix(run_id: str, worker: int) -> str:
    """Return the prefix of the name of the shared memory in which a worker counts the requests that it starts."""
    return f"locust-llm-{run_id}-{worker}-"
