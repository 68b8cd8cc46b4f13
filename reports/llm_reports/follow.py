"""Figures of a run while it still goes on, for whoever shows it: a process of its own that answers on stdin and stdout.

pandas takes a second to load and rows take time to read; none of that may happen in a process that measures or serves.
One JSON object a line in, one a line out; the process ends with its input.
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

if TYPE_CHECKING:
    from llm_reports.metrics.groups import Group

_FIGURES = ("median", "mean", "min", "max", "p25", "p75", "p95", "p99")


def load(_asked: dict[str, Any]) -> dict[str, Any]:
    """Load what will be needed, before it is."""
    import llm_reports.formats  # noqa: F401 - pandas and the rest come with it

    return {}


def stage(asked: dict[str, Any]) -> dict[str, Any]:
    """One finished stage: the rows of it between two places of the rows file, in the figures of the tables."""
    from llm_reports.input.rows import read_requests, read_stages
    from llm_reports.metrics.groups import groups
    from llm_reports.run import Run

    source, number = Path(asked["rows"]), int(asked["stage"])
    with tempfile.TemporaryDirectory(prefix="llm-stage-") as folder:
        part = Path(folder) / source.name
        with source.open("rb") as file, part.open("wb") as copy:
            copy.write(file.readline())
            file.seek(max(file.tell(), int(asked["from"])))
            copy.write(file.read(max(0, int(asked["to"]) - file.tell())))
        requests, _ = read_requests(part)
    stages, _ = read_stages(Path(asked["stages"]))
    run = Run(
        source.stem, source, requests[requests["stage"] == number], stages[stages["stage"] == number], foreign=False
    )
    return {"stages": [_row(group, len(made)) for made in [groups([run])] for group in made]}


def report(asked: dict[str, Any]) -> dict[str, Any]:
    """The report of a run, into a folder."""
    from llm_reports.content import Questions
    from llm_reports.input.loader import load as load_run
    from llm_reports.report import report_runs
    from llm_reports.slo.objectives import parse_objectives

    objectives = parse_objectives(asked["slo"]) if asked.get("slo") else None
    questions = Questions(objectives, asked.get("slo_stage") or "all")
    made = report_runs([load_run(asked["prefix"])], out=Path(asked["out"]), formats=("md", "csv", "html"),
                       questions=questions)  # fmt: skip
    return {"files": [str(path) for path in made.files]}


def fragment(asked: dict[str, Any]) -> dict[str, Any]:
    """The section for another page."""
    from llm_reports.html.fragment import fragment_of

    return {"html": fragment_of(asked["prefix"], slo=asked.get("slo"), stage=asked.get("slo_stage") or "all")}


_COMMANDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "load": load,
    "stage": stage,
    "report": report,
    "fragment": fragment,
}


def main(asked: TextIO = sys.stdin, answers: TextIO = sys.stdout) -> None:
    """Answer until the input ends."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)  # whoever measures on this machine goes first
    for line in asked:
        request = json.loads(line)
        try:
            answer = _COMMANDS[request["do"]](request)
        except InputError as error:
            answer = {"error": str(error)}
        except Exception as error:  # whatever it was, the next question is another one
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer, allow_nan=False) + "\n")
        answers.flush()


def _row(group: Group, of: int) -> dict[str, Any]:
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
        "stage": group.stage,
        "concurrency": group.concurrency,
        "rate_per_s": group.load.rate_per_s,
        "framework": group.framework,
        "model": group.model,
        "finished": True,
        "exact": True,
        "health": group.health or None,
        "steadiness": group.steadiness or None,
        "requests": counts.measured,
        "ok": counts.ok,
        "failed": counts.failed,
        "throttled": counts.throttled,
        "aborted": counts.aborted,
        "cancelled": counts.cancelled,
        **{
            name: {each: _known(getattr(found, each)) for each in _FIGURES}
            for name, metric in metrics.items()
            for found in [group.summary(metric)]
        },
        # Of a stage shared by several models only the sum is known.
        **{
            name: _known(float(stages[name].iloc[0])) if of == 1 and len(stages) else None
            for name in ("output_throughput_token_per_s", "request_throughput_per_s")
        },
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    main()
