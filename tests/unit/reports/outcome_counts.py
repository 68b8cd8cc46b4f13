"""How every part of the program counts the outcomes of one run's measured requests, for tests that compare them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llm_reports
from llm_reports.charts.timeline import timelines
from llm_reports.llmperf.results import responses, results
from llm_reports.main import main
from llm_users.load.protocol.messages import Live
from llm_users.load.worker.admission_gate import AdmissionGate
from llm_users.load.worker.live_metrics import LiveReporter
from llm_users.outcome import Outcome
from llm_users.record import REQUEST_COLUMNS, RequestRecord, StageLoad, StageRecord
from llm_users.web.stage_series import StageSeries

Counts = dict[str, int]


def counts_of(outcomes: Sequence[Outcome]) -> Counts:
    """The counts that all parts must agree on. ``failed`` has the throttled and dropped requests among them."""
    counts = {outcome.value: outcomes.count(outcome) for outcome in Outcome}
    counts["failed"] += counts["throttled"] + counts["dropped"]
    return {"measured": len(outcomes), **counts}


def records_of(prefix: Path) -> list[RequestRecord]:
    """The measured rows of a run's file as records."""
    types = {column.name: column.type for column in REQUEST_COLUMNS}
    with Path(f"{prefix}_llm_requests.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            RequestRecord(**{name: types[name](value) for name, value in row.items() if value != ""})
            for row in csv.DictReader(file)
        ]
    return [row for row in rows if row.measured]


def counts_everywhere(prefix: Path, folder: Path) -> dict[str, Counts]:
    """The counts of a run of one stage and one model, by the part of the program that gives them.

    A part that does not tell all outcomes apart gives those that it does.
    """
    records = records_of(prefix)
    (group,) = llm_reports.groups([llm_reports.load(prefix)])
    with Path(f"{prefix}_llm_stages.csv").open(newline="", encoding="utf-8") as file:
        (stage,) = csv.DictReader(file)
    assert main([str(prefix), "--format", "summary,llmperf", "--out", str(folder)]) in (0, 1)
    lines = {line["metric"]: line["mean"] for line in json.loads((folder / "summary.json").read_text())}
    return {
        "stages file": _named(stage, "requests_"),
        "summary": _named(lines, "requests_"),
        "report": {name: getattr(group.counts, name) for name in ("measured", *Outcome)},
        "failures in start order": {"failed": int(group.failures.sum()), "ended": len(group.failures)},
        "gate": _gate(group),
        "tab, stage that goes on": _row_of_tab(_series(records).running_row()),
        "tab, finished stage": _row_of_tab(_finished(records)),
        "heartbeat": _heartbeat(records),
        "timeline": _timeline(group),
        "LLMPerf": _llmperf(group),
    }


def _named(cells: Any, begin: str) -> Counts:
    names = ("measured", *Outcome)
    return {str(name): int(cells[f"{begin}{name}"]) for name in names if f"{begin}{name}" in cells}


def _gate(group: llm_reports.Group) -> Counts:
    (judgement,) = llm_reports.gate([group], llm_reports.parse_objectives("errors<0.5")).judgements
    return {"ended": judgement.n, "failed": round(judgement.estimate * judgement.n)}


def _series(records: Sequence[RequestRecord]) -> StageSeries:
    series = StageSeries(1, StageLoad(1))
    for record in records:
        series.add(record)
    return series


def _finished(records: Sequence[RequestRecord]) -> dict[str, Any]:
    (row,) = _series(records).finished_rows(StageRecord(stage=1))
    return row


def _row_of_tab(row: dict[str, Any]) -> Counts:
    names = ("ok", "failed", "throttled", "aborted", "cancelled")
    return {"measured": row["requests"], **{name: row[name] for name in names}}


def _heartbeat(records: Sequence[RequestRecord]) -> Counts:
    sent: list[Live] = []
    reporter = LiveReporter(AdmissionGate(), sent.append, "run", 0)
    for number, record in enumerate(records):
        reporter.ended(number, record)
    reporter._report()
    metrics = sent[0].metrics
    return {"measured": metrics.requests + sum(record.error_code == "aborted" for record in records),
            "failed": metrics.failed, "throttled": metrics.throttled}  # fmt: skip


def _timeline(group: llm_reports.Group) -> Counts:
    (drawn,) = timelines([group.run])
    kinds = {points.key: points.count for points in drawn.outcomes}
    counts = {name: kinds.get(name, 0) for name in ("ok", "throttled", "aborted", "cancelled")}
    return {**counts, "failed": kinds.get("failed", 0) + counts["throttled"]}


def _llmperf(group: llm_reports.Group) -> Counts:
    found = results(group)
    ok = sum(response["error_code"] is None for response in responses(group))
    assert ok == found.completed
    return {"measured": found.started, "ok": ok, "not ok": found.errors}
