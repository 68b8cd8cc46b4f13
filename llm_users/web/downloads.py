"""Downloads of the page: the rows so far, the stages, and the report of a finished run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Response, make_response
from gevent.lock import BoundedSemaphore

from llm_users.run_files import REPORT_HTML, REPORT_MD, REQUESTS_CSV, STAGES_CSV, SUMMARY_CSV, path_of
from llm_users.web.state import LiveState

_LIVE = {
    "rows.csv": (REQUESTS_CSV, "Rows so far (CSV)"),
    "stages.csv": (STAGES_CSV, "Stages (CSV)"),
}
_FINAL = {
    SUMMARY_CSV: "Every figure (CSV)",
    REPORT_MD: "Report (Markdown)",
    REPORT_HTML: "Report (HTML)",
}
_TYPES = {".csv": "text/csv", ".md": "text/markdown", ".html": "text/html"}
_PIECE_BYTES = 1 << 16


class Downloads:
    """The files of the current run. Another process creates the report, once per run."""

    def __init__(self, state: LiveState) -> None:
        self._state = state
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
        folder = self._report()
        if folder is None or not Path(folder, kind).is_file():
            return make_response(f"There is no report of this run: {self._problem}", 404)
        return _attached(Path(folder, kind), f"{Path(writer.prefix).name}_{kind}", kind)

    def section(self) -> str:
        """Return the LLM section of Locust's own report from the rows so far, or "" if there are none."""
        state = self._state
        writer, options = state.coordinator.writer, state.coordinator.options
        if writer is None or not writer.book.started:
            return ""
        writer.flush()
        answer = state.follower.ask("fragment", prefix=writer.prefix, slo=options.slo, slo_stage=options.slo_stage)
        return str(answer.get("html", ""))

    def close(self) -> None:
        """Delete the report folder."""
        folder = self._report_folder[1]
        self._report_folder = (None, None)
        if folder is not None:
            folder.cleanup()

    _problem = ""

    def _report(self) -> str | None:
        """Return the folder with the report of the finished run, or None if the report failed."""
        state = self._state
        with self._turn:
            if self._report_folder[0] == state.run and self._report_folder[1] is not None:
                return str(self._report_folder[1].name)
            self.close()
            writer, options = state.coordinator.writer, state.coordinator.options
            assert writer is not None
            run, folder = state.run, tempfile.TemporaryDirectory(prefix="llm-report-")
            answer = state.follower.ask(
                "report", prefix=writer.prefix, out=folder.name, slo=options.slo, slo_stage=options.slo_stage
            )
            if "error" in answer:
                self._problem = str(answer["error"])
                folder.cleanup()
                return None
            self._report_folder = (run, folder)
            return folder.name


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
