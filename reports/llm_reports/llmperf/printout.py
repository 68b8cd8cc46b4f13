r"""``llmperf.txt``: LLMPerf's console output, line by line, followed by notes, which LLMPerf does not have.

LLMPerf's first line begins with a backslash. If there are several stages or runs, a line with the name precedes each.
"""

from __future__ import annotations

from collections.abc import Iterator

from llm_reports.content import Content
from llm_reports.llmperf.results import FIGURES, METRICS, QUANTILES, is_count, results
from llm_reports.llmperf.tables import NOTHING
from llm_reports.markdown.report import all_notes
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.groups import Group
from llm_reports.sections.section import plain
from llm_users.record import COL

FILE_NAME = "llmperf.txt"


def files(content: Content) -> dict[str, str]:
    """Return the files of this format: name and text."""
    return {FILE_NAME: f"{print_out(content)}\n{all_notes(content)}".rstrip("\n") + "\n"}


def print_out(content: Content) -> str:
    """Return LLMPerf's console output for every group, without the notes."""
    several = len(content.groups) > 1
    blocks = []
    for group, label in zip(content.groups, labels(content.groups), strict=True):
        head = [f"--- {plain(label)} ---"] if several else []
        blocks.append("\n".join([*head, *_lines(group)]) + "\n")
    return "\n".join(blocks)


def _lines(group: Group) -> Iterator[str]:
    llmperf_results = results(group)
    yield f"\\Results for token benchmark for {plain(group.model) or NOTHING} queried with the {_api(group)} api."
    yield ""
    for name in METRICS:
        yield name
        figures = llmperf_results.figures[name]
        for label, attribute in {**QUANTILES, **{figure: figure for figure in FIGURES}}.items():
            value = getattr(figures, attribute)
            yield f"    {label} = {int(value) if is_count(name, label, value) else value}"
    yield f"Number Of Errored Requests: {llmperf_results.errors}"
    if llmperf_results.errors:
        yield "Error Code Frequency"
        yield plain(str(dict(llmperf_results.error_codes)))
    yield f"Overall Output Throughput: {llmperf_results.throughput_token_per_s}"
    yield f"Number Of Completed Requests: {llmperf_results.completed}"
    yield f"Completed Requests Per Minute: {llmperf_results.completed_per_min}"


def _api(group: Group) -> str:
    """Return LLMPerf's name of an API, the first word of this project's name: openai for openai-chat."""
    names = sorted({plain(str(api)).split("-")[0] for api in group.measured[COL.api] if api})
    return ", ".join(names) or NOTHING
