"""Downloads of the page: the rows so far, the stages, and the report of a finished run.

Another process creates the report and the section of Locust's report: pandas takes a second to load and rows take time
to read, which must not happen in a process that measures or serves.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from flask import Response, make_response
from gevent.lock import BoundedSemaphore
from gevent.subprocess import PIPE, Popen

from llm_users.run_files import REPORT_HTML, REPORT_MD, REQUESTS_CSV, STAGES_CSV, SUMMARY_CSV, path_of
from llm_users.web.state import LiveState

logger = logging.getLogger(__name__)

_LIVE = {"rows.csv": (REQUESTS_CSV, "Rows so far (CSV)"), "stages.csv": (STAGES_CSV, "Stages (CSV)")}
_FINAL = {SUMMARY_CSV: "Every figure (CSV)", REPORT_MD: "Report (Markdown)", REPORT_HTML: "Report (HTML)"}
REPORT_PROGRAM = """
import pathlib, sys, llm_reports
prefix, slo, stage, out = sys.argv[1:]
objectives = llm_reports.parse_objectives(slo) if slo else None
questions = llm_reports.Questions(objectives, stage)
llm_reports.report_run(prefix, out=pathlib.Path(out), formats=("md", "csv", "html"), questions=questions)
"""
SECTION_PROGRAM = """
import sys
from llm_reports.html.fragment import fragment_of
prefix, slo, stage = sys.argv[1:]
sys.stdout.buffer.write(fragment_of(prefix, slo=slo, stage=stage).encode())
"""
_TYPES = {".csv": "text/csv", ".md": "text/markdown", ".html": "text/html"}
_PIECE_BYTES = 1 << 16


class ReportProcess:
    """Runs programs of the report side in a child process at low priority, one at a time."""

    def __init__(self) -> None:
        self._child: Any = None
        self._is_over = False

    def run(self, program: str, *arguments: str) -> bytes:
        """Return what the program prints. The caller's greenlet waits. Raises OSError with the reason of a failure."""
        if self._is_over:
            raise OSError("this process is ending")
        # Use the package that this process finds, not a package of the same name in the current folder.
        spec = importlib.util.find_spec("llm_reports")
        if spec is None or spec.origin is None:
            raise OSError("the package llm_reports is not installed")
        home = str(Path(spec.origin).resolve().parents[1])
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        # In its own process group, so that Ctrl-C does not reach the child.
        self._child = child = Popen(
            [sys.executable, "-P", "-c", program, *arguments], stdout=PIPE, stderr=PIPE, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path}, preexec_fn=partial(os.nice, 10),
        )  # fmt: skip
        printed, errors = child.communicate()
        self._child = None
        if child.returncode:
            lines = errors.decode(errors="replace").splitlines() or [f"exit code {child.returncode}"]
            raise OSError(lines[-1].removeprefix("llm_reports.errors.InputError: "))
        return bytes(printed)

    def stop(self) -> None:
        """End the child. Further programs fail."""
        self._is_over = True
        if self._child is not None:
            self._child.terminate()


class Downloads:
    """The files of the current run. The report is created once per run."""

    def __init__(self, state: LiveState) -> None:
        self._state = state
        self._process = ReportProcess()
        self._turn = BoundedSemaphore(1)
        self._report_folder: tuple[str | None, Any] = (None, None)  # (run, folder)

    def offered(self) -> list[dict[str, str]]:
        """Return the files that are available now, with labels."""
        if self._state.run is None:
            return []
        offers = [{"kind": kind, "label": label} for kind, (_, label) in _LIVE.items()]
        if self._state.finished:
            offers += [{"kind": kind, "label": label} for kind, label in _FINAL.items()]
        return offers

    def response(self, kind: str) -> Response:
        """Return the file, or a response with status 404 and the reason."""
        writer = self._state.coordinator.writer
        if kind not in _LIVE and kind not in _FINAL:
            return make_response(f"Unknown download. The downloads are: {', '.join((*_LIVE, *_FINAL))}.", 404)
        if writer is None or self._state.run is None:
            return make_response("No test has been started yet, so there is nothing to download.", 404)
        if kind in _LIVE:
            writer.flush()
            path = path_of(writer.prefix, _LIVE[kind][0])
            return _attached(path, path.name, kind)
        if not self._state.finished:
            return make_response("The report is available when the test is over; the test is still running.", 404)
        try:
            folder = self._report(writer.prefix)
        except OSError as error:
            return make_response(f"There is no report of this run: {error}", 404)
        return _attached(Path(folder, kind), f"{Path(writer.prefix).name}_{kind}", kind)

    def section(self) -> str:
        """Return the LLM section of Locust's own report from the rows so far, or "" if there are none."""
        writer, options = self._state.coordinator.writer, self._state.coordinator.options
        if writer is None or not writer.book.started:
            return ""
        writer.flush()
        with self._turn:
            try:
                return self._process.run(SECTION_PROGRAM, writer.prefix, options.slo or "", options.slo_stage).decode()
            except OSError as error:
                logger.error("Locust's report has no LLM section: %s", error)
                return ""

    def close(self) -> None:
        """End the child process and delete the report folder."""
        self._process.stop()
        self._forget_report()

    def _report(self, prefix: str) -> str:
        """Return the folder with the report of the finished run. Raises OSError if the report fails."""
        run, options = self._state.run, self._state.coordinator.options
        with self._turn:
            if self._report_folder[0] != run:
                self._forget_report()
                folder = tempfile.TemporaryDirectory(prefix="llm-report-")
                try:
                    self._process.run(REPORT_PROGRAM, prefix, options.slo or "", options.slo_stage, folder.name)
                except OSError:
                    folder.cleanup()
                    raise
                self._report_folder = (run, folder)
            return str(self._report_folder[1].name)

    def _forget_report(self) -> None:
        folder = self._report_folder[1]
        self._report_folder = (None, None)
        if folder is not None:
            folder.cleanup()


def _attached(path: Path, name: str, kind: str) -> Response:
    """Return a response with the present content of the file, without data that is appended during the transfer."""
    try:
        size = path.stat().st_size
    except OSError as error:
        return make_response(f"The file cannot be read: {error.strerror}.", 404)
    response = Response(_pieces(path, size), mimetype=_TYPES[Path(kind).suffix])
    response.headers["Content-Length"] = str(size)
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _pieces(path: Path, left: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while left > 0 and (piece := file.read(min(_PIECE_BYTES, left))):
            left -= len(piece)
            yield piece
