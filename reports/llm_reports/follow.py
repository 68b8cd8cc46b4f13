"""Figures of a run in progress, for a live display. Runs as a separate process that answers on stdin and stdout.

pandas takes a second to load and rows take time to read. Neither may happen in a process that measures or serves. The
process reads one JSON object per line, writes one per line, and exits when its input ends.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from llm_reports.errors import InputError
from llm_users.record import COL

if TYPE_CHECKING:
    from llm_reports.metrics.groups import Group

_FIGURES = ("median", "mean", "min", "max", "p25", "p75", "p95", "p99")


def load(_query: dict[str, Any]) -> dict[str, Any]:
    """Import the modules in advance that later queries need."""
    import llm_reports.report  # noqa: F401 - also imports pandas and the other modules

    return {}


def stage(query: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one finished stage, as in the tables, from a byte range of the rows file."""
    from llm_reports.input.rows import read_requests, read_stages
    from llm_reports.metrics.groups import groups
    from llm_reports.run import Run

    source, number = Path(query["rows"]), int(query[COL.stage])
    with tempfile.TemporaryDirectory(prefix="llm-stage-") as folder:
        part = Path(folder) / source.name
        with source.open("rb") as file, part.open("wb") as copy:
            copy.write(file.readline())
            file.seek(max(file.tell(), int(query["from"])))
            copy.write(file.read(max(0, int(query["to"]) - file.tell())))
        requests, _ = read_requests(part)
    stages, _ = read_stages(Path(query["stages"]))
    run = Run(
        source.stem, source, requests[requests[COL.stage] == number], stages[stages[COL.stage] == number], foreign=False
    )
    return {"stages": [_row(group, len(stage_groups)) for stage_groups in [groups([run])] for group in stage_groups]}


def report(query: dict[str, Any]) -> dict[str, Any]:
    """Write the report of a run to a folder and return its files."""
    from llm_reports.content import Questions
    from llm_reports.input.loader import load as load_run
    from llm_reports.report import report_runs
    from llm_reports.slo.objectives import parse_objectives

    objectives = parse_objectives(query["slo"]) if query.get("slo") else None
    questions = Questions(objectives, query.get("slo_stage") or "all")
    result = report_runs([load_run(query["prefix"])], out=Path(query["out"]), formats=("md", "csv", "html"),
                       questions=questions)  # fmt: skip
    return {"files": [str(path) for path in result.files]}


def fragment(query: dict[str, Any]) -> dict[str, Any]:
    """Return the section for another page as HTML."""
    from llm_reports.html.fragment import fragment_of

    return {"html": fragment_of(query["prefix"], slo=query.get("slo"), stage=query.get("slo_stage") or "all")}


_COMMANDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "load": load,
    COL.stage: stage,
    "report": report,
    "fragment": fragment,
}


def main(queries: TextIO = sys.stdin, answers: TextIO = sys.stdout) -> None:
    """Answer the queries of an input until it ends."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)  # processes that measure on this machine have priority
    for line in queries:
        request = json.loads(line)
        try:
            answer = _COMMANDS[request["do"]](request)
        except InputError as error:
            answer = {"error": str(error)}
        except Exception as error:  # an error in one query must not prevent the next
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer, allow_nan=False) + "\n")
        answers.flush()


def _row(group: Group, group_count: int) -> dict[str, Any]:
    from llm_reports.metrics.groups import (
        CORRECTED_LATENCY,
        CORRECTED_TTFT,
        LATENCY,
        OUTPUT_THROUGHPUT,
        TPOT,
        TTFT,
    )

    counts, stages = group.counts, group.run.stages
    metrics = {"ttft": TTFT, "throughput": OUTPUT_THROUGHPUT, "tpot": TPOT, "e2e": LATENCY}
    metrics |= {"corrected_ttft": CORRECTED_TTFT, "corrected_e2e": CORRECTED_LATENCY}
    return {
        COL.stage: group.stage,
        COL.concurrency: group.concurrency,
        COL.rate_per_s: group.load.rate_per_s,
        COL.framework: group.framework,
        COL.model: group.model,
        "finished": True,
        "exact": True,
        COL.health: group.health or None,
        COL.steadiness: group.steadiness or None,
        "requests": counts.measured,
        "ok": counts.ok,
        "failed": counts.failed,
        "throttled": counts.throttled,
        "aborted": counts.aborted,
        "cancelled": counts.cancelled,
        **{
            name: {figure: _known(getattr(summary, figure)) for figure in _FIGURES}
            for name, metric in metrics.items()
            for summary in [group.summary(metric)]
        },
        # For a stage that several models share, only the total is known.
        **{
            name: _known(float(stages[name].iloc[0])) if group_count == 1 and len(stages) else None
            for name in (COL.output_throughput_token_per_s, COL.request_throughput_per_s)
        },
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    main()
