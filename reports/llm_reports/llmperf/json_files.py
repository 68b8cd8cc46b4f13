"""LLMPerf's two files, ``*_summary.json`` and ``*_individual_responses.json``, one pair per stage.

Requests with checked answers have a separate pair, that of LLMPerf's correctness test. All files are valid JSON: a
figure that does not exist is ``null``, where LLMPerf itself writes NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from llm_reports.content import Content
from llm_reports.llmperf import correctness
from llm_reports.llmperf.conditions import Conditions, conditions_of
from llm_reports.llmperf.reader import RESPONSES_SUFFIX, SUMMARY_SUFFIX, safe_name
from llm_reports.llmperf.results import FIGURES, QUANTILES, Results, ended_at, is_count, rate_of, responses, results
from llm_reports.metrics.correctness import parted
from llm_reports.metrics.groups import HEALTH_KEY, Group
from llm_reports.metrics.summary import Summary
from llm_users.record import COL

_NAME_BYTES = 90
_VERSION = "2023-08-31"  # version of LLMPerf's format


def files(content: Content) -> dict[str, str]:
    """Return the files of this format: name and text. A stage without measured requests does not have files."""
    parts = [parted(group) for group in content.groups]
    checked = [group for group, _ in parts if len(group.measured)]
    others = [group for _, group in parts if len(group.measured)]
    texts: dict[str, str] = {}
    conditions = [conditions_of(group) for group in others]
    bases = [_base(group, known) for group, known in zip(others, conditions, strict=True)]
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
    summary = _summary(group, known, name + SUMMARY_SUFFIX.removesuffix(".json"), figures)
    return {
        name + SUMMARY_SUFFIX: json.dumps(summary, indent=4, default=str),
        name + RESPONSES_SUFFIX: json.dumps(individual, indent=4),
    }


def _figures(group: Group, known: Conditions) -> dict[str, Any]:
    llmperf_results = results(group)
    return {
        COL.model: group.model,
        **known.lengths,
        "num_concurrent_requests": group.concurrency,
        **known.sampling,
        **_flat_results(llmperf_results),
        # LLMPerf's --metadata would add the following values.
        COL.framework: group.framework,
        **rate_of(group),
        **_corrected_ttft(llmperf_results),
    }


def _summary(group: Group, known: Conditions, name: str, figures: dict[str, Any]) -> dict[str, Any]:
    summary = {
        "version": _VERSION,
        "name": name,
        **figures,
        **({HEALTH_KEY: group.health} if group.health not in ("", "ok") else {}),
    }
    others = {key: value for key, value in known.metadata.items() if key not in summary and key != "timestamp"}
    ended = ended_at(group)
    timestamp = group.run.manifest.get("timestamp") if math.isnan(ended) else int(ended)
    return {**summary, **others, "timestamp": timestamp}


def _corrected_ttft(llmperf_results: Results) -> dict[str, Any]:
    """Return the TTFT figures without the zeros of answers without content; empty if there are no such answers."""
    if not llmperf_results.without_content:
        return {}
    return {
        "ttft_s_zeros": llmperf_results.without_content,
        **_flat_figures("ttft_s_without_zeros", llmperf_results.ttft),
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


def _flat_results(llmperf_results: Results) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, figures in llmperf_results.figures.items():
        flat |= _flat_figures(name, figures)
    flat |= {
        "num_requests_started": llmperf_results.started,
        "error_rate": llmperf_results.errors / llmperf_results.started if llmperf_results.started else 0.0,
        "number_errors": llmperf_results.errors,
        "error_code_frequency": str(dict(llmperf_results.error_codes)),
        "mean_output_throughput_token_per_s": _number(llmperf_results.throughput_token_per_s),
        "num_completed_requests": llmperf_results.completed,
        "num_completed_requests_per_min": _number(llmperf_results.completed_per_min),
    }
    return {f"results_{key}": value for key, value in flat.items()}


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


def _base(group: Group, known: Conditions) -> str:
    """Return LLMPerf's MODEL_INPUT_OUTPUT."""
    lengths = (known.lengths["mean_input_tokens"] or 0, known.lengths["mean_output_tokens"] or 0)
    return _short(safe_name(group.model or "unknown")) + safe_name(f"_{lengths[0]}_{lengths[1]}")


def _short(name: str) -> str:
    """Truncate a name: most file systems allow 255 bytes for a file name, and the ARNs of some models are longer."""
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")


def _parts(group: Group, run: int) -> tuple[str, ...]:
    stage = "" if group.stage is None else f"stage{group.stage}"
    load = "" if group.concurrency is None else f"c{group.concurrency}"
    if group.load.rate_per_s is not None:
        load = f"r{group.load.rate_per_s:g}"
    return f"run{run}", stage, load, _short(safe_name(group.framework))
