"""The conditions of a group that LLMPerf's summary has fields for: lengths, sampling parameters, metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_reports.metrics.groups import Group
from llm_reports.metrics.outcomes import succeeded
from llm_reports.metrics.summary import summarize
from llm_users.distributions import LENGTHS, Distribution, DistributionError, Normal
from llm_users.record import COL

_SAMPLING = "additional_sampling_params"
_LENGTHS = ("mean_input_tokens", "stddev_input_tokens", "mean_output_tokens", "stddev_output_tokens")
_OTHER_LENGTHS = ("llm_length_mix", "llm_trace")
_OTHER_PROMPTS = ("llm_prompt", "llm_prompts", "llm_conversations")


@dataclass(frozen=True)
class Conditions:
    """The conditions of a group. ``lengths`` has LLMPerf's four keys in its order; the other mappings are flat."""

    lengths: Mapping[str, int | None]
    sampling: Mapping[str, Any]
    metadata: Mapping[str, Any]


def conditions_of(group: Group) -> Conditions:
    """Return the conditions from the manifest and the rows; for a foreign file, its summary replaces the manifest."""
    manifest = group.run.manifest
    if group.run.foreign:
        sampling = {name: value for name, value in manifest.items() if name.startswith(_SAMPLING)}
        other = {name: value for name, value in manifest.items() if not name.startswith("results_")}
        return Conditions({**_actual_lengths(group), **stated_lengths(group)}, sampling, other)
    metadata = manifest.get("metadata")
    return Conditions(
        lengths={**_actual_lengths(group), **stated_lengths(group)},
        sampling=_flat({_SAMPLING: _json_object(_options(group).get("llm_extra_body"))}),
        metadata=_flat(metadata) if isinstance(metadata, dict) else {},
    )


def stated_lengths(group: Group) -> dict[str, int]:
    """Return those of LLMPerf's four lengths that its summary or the options of a run state.

    Options count only if the requests followed them: a mix, a trace, a dataset or a locustfile can set other lengths.
    """
    if group.run.foreign:
        manifest = group.run.manifest
        return {name: manifest[name] for name in _LENGTHS if type(manifest.get(name)) is int}
    rows, options = group.measured, _options(group)
    if any(options.get(name) for name in _OTHER_LENGTHS):
        return {}
    own_prompts = any(options.get(name) for name in _OTHER_PROMPTS) or rows[COL.prompt_index].isna().all()
    stated: dict[str, int] = {}
    for kind, followed in (("input", not own_prompts), ("output", rows[COL.requested_output_tokens].notna().any())):
        numbers = _numbers(options.get(f"llm_{kind}_tokens"))
        if followed and numbers:
            stated[f"mean_{kind}_tokens"], stated[f"stddev_{kind}_tokens"] = numbers
    return stated


def _actual_lengths(group: Group) -> dict[str, int | None]:
    """Return the lengths of the actual requests, in whole tokens.

    They include all stages; with lengths per stage, the file names would not be in the order of the stages.
    """
    rows = group.run.requests
    ok = rows[(rows[COL.measured] == 1) & succeeded(rows[COL.error_code]) & (rows[COL.model] == group.model)]
    lengths: dict[str, int | None] = {}
    for kind in ("input", "output"):
        figures = summarize(ok[f"{kind}_tokens"].astype("float64"))
        lengths[f"mean_{kind}_tokens"] = round(figures.mean) if figures.n else None
        lengths[f"stddev_{kind}_tokens"] = round(figures.stddev) if figures.n > 1 else None
    return lengths


def _options(group: Group) -> Mapping[str, Any]:
    options = group.run.manifest.get("options")
    return options if isinstance(options, dict) else {}


def _numbers(lengths: object) -> tuple[int, int] | None:
    """Return mean and standard deviation of a normal distribution; None for others, which LLMPerf does not have."""
    try:
        distribution = Distribution.parse(str(lengths), LENGTHS)
    except DistributionError:
        return None
    return (round(distribution.mean), round(distribution.sd)) if isinstance(distribution, Normal) else None


def _json_object(text: object) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Flatten nested objects, with keys joined by ``_``; an empty object is dropped, as in LLMPerf."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{above}_{key}" if above else str(key)
        flat.update(_flat(value, name) if isinstance(value, dict) else {name: value})
    return flat
