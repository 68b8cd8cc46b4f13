"""LLMPerf's two files, ``*_summary.json`` and ``*_individual_responses.json``, one pair for each stage.

Valid JSON throughout: a figure that does not exist is ``null``, where LLMPerf itself writes the word NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.grouping import HEALTH_KEY, Group
from reports.llmperf_conditions import Conditions, conditions_of
from reports.llmperf_file import RESPONSES_SUFFIX, SUMMARY_SUFFIX, safe_name
from reports.llmperf_results import FIGURES, QUANTILES, Results, ended_at, is_count, responses, results

if TYPE_CHECKING:
    from reports.report import Content

_VERSION = "2023-08-31"  # of LLMPerf's format


def files(content: Content) -> dict[str, str]:
    """The files of this format: name and text. A stage in which nothing was measured has none."""
    measured = [group for group in content.groups if len(group.measured)]
    conditions = [conditions_of(group) for group in measured]
    made: dict[str, str] = {}
    for group, known, name in zip(measured, conditions, _names(measured, conditions), strict=True):
        summary = _summary(group, known, name + SUMMARY_SUFFIX.removesuffix(".json"))
        made[name + SUMMARY_SUFFIX] = json.dumps(summary, indent=4, default=str)
        made[name + RESPONSES_SUFFIX] = json.dumps(responses(group), indent=4)
    return made


def _summary(group: Group, known: Conditions, name: str) -> dict[str, Any]:
    summary = {
        "version": _VERSION,
        "name": name,
        "model": group.model,
        **known.lengths,
        "num_concurrent_requests": group.concurrency,
        **known.sampling,
        **_flat_results(results(group)),
        # From here on it is what LLMPerf's --metadata would add.
        "framework": group.framework,
        **({HEALTH_KEY: group.health} if group.health not in ("", "ok") else {}),
    }
    others = {key: value for key, value in known.metadata.items() if key not in summary and key != "timestamp"}
    ended = ended_at(group)
    timestamp = group.run.manifest.get("timestamp") if math.isnan(ended) else int(ended)
    return {**summary, **others, "timestamp": timestamp}


def _flat_results(found: Results) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, figures in found.figures.items():
        for label, attribute in QUANTILES.items():
            flat[f"{name}_quantiles_{label}"] = _number(getattr(figures, attribute))
        for figure in FIGURES:
            value = getattr(figures, figure)
            # The smallest and largest of whole numbers are text in LLMPerf's files.
            flat[f"{name}_{figure}"] = str(int(value)) if is_count(name, figure, value) else _number(value)
    flat |= {
        "num_requests_started": found.started,
        "error_rate": found.errors / found.started if found.started else 0.0,
        "number_errors": found.errors,
        "error_code_frequency": str(dict(found.error_codes)),
        "mean_output_throughput_token_per_s": _number(found.throughput_token_per_s),
        "num_completed_requests": found.completed,
        "num_completed_requests_per_min": _number(found.completed_per_min),
    }
    return {f"results_{key}": value for key, value in flat.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _names(groups: Sequence[Group], conditions: Sequence[Conditions]) -> list[str]:
    """LLMPerf's MODEL_INPUT_OUTPUT. Groups that would share it get what they differ in as well: ``_stage2_c8``."""
    runs = list(dict.fromkeys(group.run for group in groups))
    bases = [_base(group, known) for group, known in zip(groups, conditions, strict=True)]
    parts = [_parts(group, runs.index(group.run) + 1) for group in groups]
    names = []
    for base, own in zip(bases, parts, strict=True):
        peers = [others for other, others in zip(bases, parts, strict=True) if other.casefold() == base.casefold()]
        varying = [part for i, part in enumerate(own) if len({others[i] for others in peers}) > 1]
        names.append("_".join([base, *filter(None, varying)]))
    # Two models may differ in nothing but what a file name cannot hold.
    folded = [name.casefold() for name in names]
    return [f"{name}_{i}" if folded.count(folded[i - 1]) > 1 else name for i, name in enumerate(names, 1)]


def _base(group: Group, known: Conditions) -> str:
    lengths = (known.lengths["mean_input_tokens"] or 0, known.lengths["mean_output_tokens"] or 0)
    return safe_name(f"{group.model or 'unknown'}_{lengths[0]}_{lengths[1]}")


def _parts(group: Group, run: int) -> tuple[str, ...]:
    stage = "" if group.stage is None else f"stage{group.stage}"
    concurrency = "" if group.concurrency is None else f"c{group.concurrency}"
    return f"run{run}", stage, concurrency, safe_name(group.framework)
