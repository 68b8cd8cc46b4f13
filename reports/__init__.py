"""What runs after a test: rows in, LLMPerf's tables out. A normal pandas program that must never import Locust.

In a notebook::

    import reports

    run = reports.load("out/bench/run")            # a run's PREFIX, a rows file or an LLMPerf file
    run.requests.groupby("concurrency").ttft_s.median()
    ttft, throughput = reports.tables([run])
    print(reports.markdown(ttft))
    reports.summary([run])                         # the content of summary.csv as a DataFrame

    points = reports.stage_points(reports.groups([run]), "ttft_p95<0.5,errors<0.01")
    reports.points_frame(points)                   # attainment and goodput per stage
    print(reports.knee(reports.sweeps(points)[0]).reasoning)
    reports.gate(reports.groups([run]), reports.parse_objectives("ttft_p95<0.5")).frame()
    reports.compare([reports.load("out/before/run"), run]).frame()

Importing this package loads neither pandas nor anything else; touching one of the names below does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.charts.figures import Figures, figures
    from reports.comparison import Comparison, compare
    from reports.correctness import mismatches
    from reports.errors import InputError
    from reports.grouping import Group, groups
    from reports.inputs import load, load_all
    from reports.intervals import Interval
    from reports.junit import junit_xml, publish_gate
    from reports.latency_model import LatencyModel, latency_models
    from reports.llmperf_tables import Table, tables
    from reports.objectives import Objectives, parse_objectives
    from reports.plots import Svg, pictures
    from reports.prices import Cost, costs, costs_frame, load_prices
    from reports.ranking import leaderboard
    from reports.report import Questions, Report, report_run, report_runs
    from reports.report_md import markdown
    from reports.run import Run
    from reports.sizing import Choice, StagePoint, highest, knee, points_frame, stage_points, sweeps
    from reports.statistics import Summary, summarize
    from reports.summary_csv import summary
    from reports.verdict import Gate, gate
    from reports.verdict_md import gate_text

__all__ = [
    "Choice",
    "Comparison",
    "Cost",
    "Figures",
    "Gate",
    "Group",
    "InputError",
    "Interval",
    "LatencyModel",
    "Objectives",
    "Questions",
    "Report",
    "Run",
    "StagePoint",
    "Summary",
    "Svg",
    "Table",
    "compare",
    "costs",
    "costs_frame",
    "figures",
    "gate",
    "gate_text",
    "groups",
    "highest",
    "junit_xml",
    "knee",
    "latency_models",
    "leaderboard",
    "load",
    "load_all",
    "load_prices",
    "markdown",
    "mismatches",
    "parse_objectives",
    "pictures",
    "points_frame",
    "publish_gate",
    "report_run",
    "report_runs",
    "stage_points",
    "summarize",
    "summary",
    "sweeps",
    "tables",
]

_HOMES = {
    "Choice": "sizing",
    "Comparison": "comparison",
    "Cost": "prices",
    "Figures": "charts.figures",
    "Gate": "verdict",
    "Group": "grouping",
    "InputError": "errors",
    "Interval": "intervals",
    "LatencyModel": "latency_model",
    "Objectives": "objectives",
    "Questions": "report",
    "Report": "report",
    "Run": "run",
    "StagePoint": "sizing",
    "Summary": "statistics",
    "Svg": "plots",
    "Table": "llmperf_tables",
    "compare": "comparison",
    "costs": "prices",
    "costs_frame": "prices",
    "figures": "charts.figures",
    "gate": "verdict",
    "gate_text": "verdict_md",
    "groups": "grouping",
    "highest": "sizing",
    "junit_xml": "junit",
    "knee": "sizing",
    "latency_models": "latency_model",
    "leaderboard": "ranking",
    "load": "inputs",
    "load_all": "inputs",
    "load_prices": "prices",
    "markdown": "report_md",
    "mismatches": "correctness",
    "parse_objectives": "objectives",
    "pictures": "plots",
    "points_frame": "sizing",
    "publish_gate": "junit",
    "report_run": "report",
    "report_runs": "report",
    "stage_points": "sizing",
    "summarize": "statistics",
    "summary": "summary_csv",
    "sweeps": "sizing",
    "tables": "llmperf_tables",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reports' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"reports.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
