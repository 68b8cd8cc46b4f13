"""What runs after a test: rows in, LLMPerf's tables out. A normal pandas program that must never import Locust.

In a notebook::

    import reports

    run = reports.load("out/bench/run")            # a run's PREFIX, a rows file or an LLMPerf file
    run.requests.groupby("concurrency").ttft_s.median()
    ttft, throughput = reports.tables([run])
    print(reports.markdown(ttft))
    reports.summary([run])                         # the content of summary.csv as a DataFrame

Importing this package loads neither pandas nor anything else; touching one of the names below does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.errors import InputError
    from reports.grouping import Group, groups
    from reports.inputs import load, load_all
    from reports.llmperf_tables import Table, tables
    from reports.report import Report, report_run, report_runs
    from reports.report_md import markdown
    from reports.run import Run
    from reports.statistics import Summary, summarize
    from reports.summary_csv import summary

__all__ = [
    "Group",
    "InputError",
    "Report",
    "Run",
    "Summary",
    "Table",
    "groups",
    "load",
    "load_all",
    "markdown",
    "report_run",
    "report_runs",
    "summarize",
    "summary",
    "tables",
]

_HOMES = {
    "Group": "grouping",
    "InputError": "errors",
    "Report": "report",
    "Run": "run",
    "Summary": "statistics",
    "Table": "llmperf_tables",
    "groups": "grouping",
    "load": "inputs",
    "load_all": "inputs",
    "markdown": "report_md",
    "report_run": "report",
    "report_runs": "report",
    "summarize": "statistics",
    "summary": "summary_csv",
    "tables": "llmperf_tables",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reports' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"reports.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
