"""Reports of a load test: reads the rows of a run and produces LLMPerf's tables.

The package is a normal pandas program and must never import Locust. In a notebook::

    import llm_reports

    run = llm_reports.load("out/bench/run")            # a run's PREFIX, a rows file or an LLMPerf file
    run.requests.groupby("concurrency").ttft_s.median()
    ttft, throughput = llm_reports.tables([run])
    print(llm_reports.to_markdown(ttft))
    llm_reports.summary([run])                         # the content of summary.csv as a DataFrame

    points = llm_reports.stage_points(llm_reports.groups([run]), "ttft_p95<0.5,errors<0.01")
    llm_reports.points_frame(points)                   # attainment and goodput per stage
    print(llm_reports.knee(llm_reports.sweeps(points)[0]).reasoning)
    llm_reports.gate(llm_reports.groups([run]), llm_reports.parse_objectives("ttft_p95<0.5")).frame()
    llm_reports.compare_runs([llm_reports.load("out/before/run"), run]).frame()

Importing this package does not load pandas or any other module. The first access to one of the names below does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_reports.charts.figures import Figures, figures
    from llm_reports.compare.comparison import Comparison, compare_runs
    from llm_reports.compare.leaderboard import leaderboard
    from llm_reports.content import Questions
    from llm_reports.errors import InputError
    from llm_reports.export.server import server_metrics_frame
    from llm_reports.export.summary import summary
    from llm_reports.input.loader import load, load_all
    from llm_reports.llmperf.tables import Table, tables
    from llm_reports.markdown.report import gate_text
    from llm_reports.markdown.table import to_markdown
    from llm_reports.metrics.correctness import mismatches
    from llm_reports.metrics.costs import Cost, costs, costs_frame, load_prices
    from llm_reports.metrics.goodput import Choice, StagePoint, highest, knee, points_frame, stage_points, sweeps
    from llm_reports.metrics.groups import Group, groups
    from llm_reports.metrics.latency_model import LatencyModel, latency_models
    from llm_reports.metrics.summary import Summary, summarize
    from llm_reports.plots.images import Svg, pictures
    from llm_reports.report import Report, report_run, report_runs
    from llm_reports.run import Run
    from llm_reports.slo.gate import Gate, gate
    from llm_reports.slo.junit import junit_xml, publish_gate, publish_unmeasured
    from llm_reports.slo.objectives import Objectives, parse_objectives
    from llm_reports.stats.intervals import Interval

__all__ = [
    "Choice", "Comparison", "Cost", "Figures", "Gate", "Group", "InputError", "Interval", "LatencyModel", "Objectives",
    "Questions", "Report", "Run", "StagePoint", "Summary", "Svg", "Table", "compare_runs", "costs", "costs_frame",
    "figures", "gate", "gate_text", "groups", "highest", "junit_xml", "knee", "latency_models", "leaderboard", "load",
    "load_all", "load_prices", "mismatches", "parse_objectives", "pictures", "points_frame", "publish_gate",
    "publish_unmeasured",
    "report_run", "report_runs", "server_metrics_frame", "stage_points", "summarize", "summary", "sweeps", "tables",
    "to_markdown",
]  # fmt: skip

_NAMES = {
    "charts.figures": ("Figures", "figures"),
    "compare.comparison": ("Comparison", "compare_runs"),
    "compare.leaderboard": ("leaderboard",),
    "content": ("Questions",),
    "errors": ("InputError",),
    "export.server": ("server_metrics_frame",),
    "export.summary": ("summary",),
    "input.loader": ("load", "load_all"),
    "llmperf.tables": ("Table", "tables"),
    "markdown.report": ("gate_text",),
    "markdown.table": ("to_markdown",),
    "metrics.correctness": ("mismatches",),
    "metrics.costs": ("Cost", "costs", "costs_frame", "load_prices"),
    "metrics.goodput": ("Choice", "StagePoint", "highest", "knee", "points_frame", "stage_points", "sweeps"),
    "metrics.groups": ("Group", "groups"),
    "metrics.latency_model": ("LatencyModel", "latency_models"),
    "metrics.summary": ("Summary", "summarize"),
    "plots.images": ("Svg", "pictures"),
    "report": ("Report", "report_run", "report_runs"),
    "run": ("Run",),
    "slo.gate": ("Gate", "gate"),
    "slo.junit": ("junit_xml", "publish_gate", "publish_unmeasured"),
    "slo.objectives": ("Objectives", "parse_objectives"),
    "stats.intervals": ("Interval",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'llm_reports' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"llm_reports.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
