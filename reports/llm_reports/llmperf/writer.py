r"""LLMPerf's console output ``llmperf.txt``, and its two files ``*_summary.json`` and ``*_individual_responses.json``.

The console output is followed by notes, which LLMPerf does not have. LLMPerf's first line begins with a backslash. If
there are several stages or runs, a line with the name precedes each.

There is one pair of files per stage. Requests with checked answers have a separate pair, that of LLMPerf's correctness
test. All files are valid JSON: a figure that does not exist is ``null``, where LLMPerf itself writes NaN. In the
console output, the figures of a stream are the line ``not streamed`` if no answer was streamed, and ``unknown`` is in
the place of values that the files do not have; ``nan`` appears only where LLMPerf prints it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from llm_reports.content import Content
from llm_reports.llmperf import correctness
from llm_reports.llmperf.reader import RESPONSES_SUFFIX, SUMMARY_SUFFIX, safe_name
from llm_reports.llmperf.results import (
    FIGURES,
    METRICS,
    QUANTILES,
    Conditions,
    api_of,
    conditions_of,
    ended_at,
    is_count,
    origin_of,
    rate_of,
    responses,
    results,
)
from llm_reports.llmperf.tables import NOTHING
from llm_reports.markdown.report import all_notes
from llm_reports.metrics.correctness import parted
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.groups import HEALTH_KEY, Group
from llm_reports.metrics.summary import Summary
from llm_reports.sections.section import plain
from llm_users.record import COL

CONSOLE_NAME = "llmperf.txt"
UNKNOWN = "    unknown"
"""The line for a metric of which no answer has a value, such as the time to first token of buffered answers."""
_NAME_BYTES = 90
_VERSION = "2023-08-31"  # version of LLMPerf's format


def console_files(content: Content) -> dict[str, str]:
    """Return the file with the console output and the notes: name and text."""
    return {CONSOLE_NAME: f"{print_out(content)}\n{all_notes(content)}".rstrip("\n") + "\n"}


def print_out(content: Content) -> str:
    """Return LLMPerf's console output for every group, without the notes."""
    several = len(content.groups) > 1
    blocks = []
    for group, label in zip(content.groups, labels(content.groups), strict=True):
        head = [f"--- {plain(label)} ---"] if several else []
        blocks.append("\n".join([*head, *_console_lines(group)]) + "\n")
    return "\n".join(blocks)


def _console_lines(group: Group) -> Iterator[str]:
    llmperf_results = results(group)
    model, api = plain(group.model) or NOTHING, plain(api_of(group)) or NOTHING
    yield f"\\Results for token benchmark for {model} queried with the {api} api."
    yield ""
    for name in METRICS:
        yield name
        figures = llmperf_results.figures[name]
        if not figures.n and group.counts.ok:  # without any answer, LLMPerf prints nan
            yield "    not streamed" if group.facts.unstreamed else UNKNOWN
            continue
        for label, attribute in {**QUANTILES, **{figure: figure for figure in FIGURES}}.items():
            value = getattr(figures, attribute)
            yield f"    {label} = {int(value) if is_count(name, label, value) else value}"
    yield f"Number Of Errored Requests: {llmperf_results.errors}"
    if llmperf_results.errors:
        yield "Error Code Frequency"
        yield plain(str(dict(llmperf_results.error_codes)))
    yield f"Overall Output Throughput: {_known(llmperf_results.throughput_token_per_s)}"
    yield f"Number Of Completed Requests: {llmperf_results.completed}"
    yield f"Completed Requests Per Minute: {_known(llmperf_results.completed_per_min)}"


def _known(value: float) -> float | str:
    """Return a rate, which LLMPerf always knows, as its text has it."""
    return UNKNOWN.strip() if math.isnan(value) else value


def files(content: Content) -> dict[str, str]:
    """Return the JSON files: name and text. A stage without measured requests does not have files."""
    parts = [parted(group) for group in content.groups]
    checked = [group for group, _ in parts if len(group.measured)]
    others = [group for _, group in parts if len(group.measured)]
    texts: dict[str, str] = {}
    conditions = [conditions_of(group) for group in others]
    lengths = [[known.lengths[f"mean_{kind}_tokens"] or 0 for kind in ("input", "output")] for known in conditions]
    bases = [  # LLMPerf's MODEL_INPUT_OUTPUT
        _short(safe_name(group.model or "unknown")) + safe_name(f"_{tokens_in}_{tokens_out}")
        for group, (tokens_in, tokens_out) in zip(others, lengths, strict=True)
    ]
    for group, known, name in zip(others, conditions, _names(others, bases), strict=True):
        texts |= _pair(group, known, name, _figures(group, known), responses(group))
    bases = [_short(safe_name(group.model or "unknown")) + correctness.STEM for group in checked]
    for group, name in zip(checked, _names(checked, bases), strict=True):
        known = conditions_of(group)
        figures = correctness.summary(group, known.sampling)
        texts |= _pair(group, known, name, figures, correctness.individual_responses(group))
    return texts


def _pair(
    group: Group, known: Conditions, name: str, figures: dict[str, Any], individual: list[dict[str, Any]]
) -> dict[str, str]:
    summary = {"version": _VERSION, "name": name + SUMMARY_SUFFIX.removesuffix(".json"), **figures}
    if group.health not in ("", "ok"):
        summary[HEALTH_KEY] = group.health
    others = {key: value for key, value in known.metadata.items() if key not in summary and key != "timestamp"}
    ended = ended_at(group)
    timestamp = group.run.manifest.get("timestamp") if math.isnan(ended) else int(ended)
    return {
        name + SUMMARY_SUFFIX: json.dumps({**summary, **others, "timestamp": timestamp}, indent=4, default=str),
        name + RESPONSES_SUFFIX: json.dumps(individual, indent=4),
    }


def _figures(group: Group, known: Conditions) -> dict[str, Any]:
    of_group = results(group)
    flat: dict[str, Any] = {}
    for name, figures in of_group.figures.items():
        flat |= _flat_figures(name, figures)
    flat |= {
        "num_requests_started": of_group.started,
        "error_rate": of_group.errors / of_group.started if of_group.started else 0.0,
        "number_errors": of_group.errors,
        "error_code_frequency": str(dict(of_group.error_codes)),
        "mean_output_throughput_token_per_s": _number(of_group.throughput_token_per_s),
        "num_completed_requests": of_group.completed,
        "num_completed_requests_per_min": _number(of_group.completed_per_min),
    }
    without_zeros = {}
    if of_group.without_content:  # the TTFT figures without the zeros of answers without content
        zeros = {"ttft_s_zeros": of_group.without_content}
        without_zeros = {**zeros, **_flat_figures("ttft_s_without_zeros", of_group.ttft)}
    return {
        COL.model: group.model,
        **known.lengths,
        "num_concurrent_requests": group.concurrency,
        **known.sampling,
        **{f"results_{key}": value for key, value in flat.items()},
        # LLMPerf's --metadata would add the following values.
        COL.framework: group.framework,
        **rate_of(group),
        **origin_of(group),
        **without_zeros,
    }


def _flat_figures(name: str, figures: Summary) -> dict[str, Any]:
    flat: dict[str, Any] = {
        f"{name}_quantiles_{label}": _number(getattr(figures, attribute)) for label, attribute in QUANTILES.items()
    }
    for figure in FIGURES:
        value = getattr(figures, figure)
        # The minimum and maximum of whole numbers are text in LLMPerf's files.
        flat[f"{name}_{figure}"] = str(int(value)) if is_count(name, figure, value) else _number(value)
    return flat


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _names(groups: Sequence[Group], bases: Sequence[str]) -> list[str]:
    """Return LLMPerf's file names; where groups share a name, append the parts in which they differ: ``_stage2_c8``."""
    runs = list(dict.fromkeys(group.run for group in groups))
    parts = [_parts(group, runs.index(group.run) + 1) for group in groups]
    names = []
    for base, own in zip(bases, parts, strict=True):
        peers = [others for other, others in zip(bases, parts, strict=True) if other.casefold() == base.casefold()]
        varying = [part for i, part in enumerate(own) if len({others[i] for others in peers}) > 1]
        names.append("_".join([base, *filter(None, varying)]))
    # Two models may differ only in characters that a file name cannot contain.
    folded = [name.casefold() for name in names]
    return [f"{name}_{i}" if folded.count(folded[i - 1]) > 1 else name for i, name in enumerate(names, 1)]


def _short(name: str) -> str:
    """Truncate a name: most file systems allow 255 bytes for a file name, and the ARNs of some models are longer."""
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")


def _parts(group: Group, run: int) -> tuple[str, ...]:
    stage = "" if group.stage is None else f"stage{group.stage}"
    load = "" if group.concurrency is None else f"c{group.concurrency}"
    if group.load.rate_per_s is not None:
        load = f"r{group.load.rate_text}"
    if group.load.lengths is not None:
        load += f"_{group.load.lengths.text.replace('/', '-')}"
    return f"run{run}", stage, load, _short(safe_name(group.framework))
