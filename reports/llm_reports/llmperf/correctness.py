"""LLMPerf's other pair of files, ``MODEL_correctness_*``: checked answers in its names, order and definitions.

The names are LLMPerf's format, so they are written out here once and nowhere else. What ours have besides stands where
LLMPerf's ``--metadata`` would.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pandas import isna

from llm_reports.llmperf.results import rate_of, responses
from llm_reports.metrics.correctness import MATCH, STRICT_MATCH
from llm_reports.metrics.groups import Group
from llm_reports.metrics.outcomes import unfinished
from llm_users.number_words import has_number, is_only_number

STEM = "_correctness"
_NUMBER = "rnd_number"
_STRICT = "num_strict_mismatched_requests"


def summary(group: Group, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """LLMPerf's figures of the checked requests of a group. Cut requests are not among them: none had completed.

    Its mismatch rate is a share of all completed requests, failed ones included; ours are in the report.
    """
    completed = _completed(group)
    errors = len(completed.measured) - len(completed.ok)
    wrong, strictly = (int((group.ok[column] == 0).sum()) for column in (MATCH, STRICT_MATCH))
    count = len(completed.measured)
    return {
        "number_errors": errors,
        "num_mismatched_requests": wrong,
        "error_rate": errors / count if count else 0.0,
        "mismatch_rate": wrong / count if count else 0.0,
        "num_completed_requests": count,
        "num_non_errored_requests": len(completed.ok),
        "model": group.model,
        "num_concurrent_requests": group.concurrency,
        **sampling,
        "llm_api": _api(group),
        "framework": group.framework,
        **rate_of(group),
        _STRICT: strictly,
        "strict_mismatch_rate": strictly / count if count else 0.0,
    }


def individual_responses(group: Group) -> list[dict[str, Any]]:
    """Each completed request in the order of their starts: figures, the beginning of the answer, what was asked."""
    completed = _completed(group)
    rows = completed.measured.sort_values(["started_at", "request_id"], kind="stable")
    columns = [rows[name] for name in ("model", "expected_answer", "answer_excerpt", MATCH, STRICT_MATCH)]
    made = []
    for metrics, (model, expected, answer, match, strictly) in zip(
        responses(completed), zip(*columns, strict=True), strict=True
    ):
        verdicts = {"match": match, "strict_match": strictly}
        asked = {_NUMBER: int(expected) if expected.isdecimal() else expected} if expected else {}
        known = {name: bool(verdict) for name, verdict in verdicts.items() if not isna(verdict)}
        config = {"model": model, "prompt": None, "sampling_params": None, "llm_api": _api(group)}
        made.append(
            {"metrics": metrics, "generated_text": answer, "request_config": {**config, "metadata": {**asked, **known}}}
        )
    return made


def is_correctness(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a file of responses is one of these."""
    return bool(entries) and all(isinstance(entry.get("metrics"), dict) for entry in entries)


def metrics_of(entry: Mapping[str, Any], summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of a response, without what LLMPerf does not measure in this test.

    In its own files the prompt counts 0 tokens and the inter-token latency is a sum that was never divided.
    """
    metrics: dict[str, Any] = entry["metrics"]
    unknown = () if _STRICT in summary else ("number_input_tokens", "inter_token_latency_s")
    return {name: value for name, value in metrics.items() if name not in unknown}


def checked(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that say how right an answer was. LLMPerf's own files have the text and not the verdict."""
    config = entry.get("request_config")
    asked = config.get("metadata") if isinstance(config, dict) else None
    asked = asked if isinstance(asked, dict) else {}
    expected, text = asked.get(_NUMBER), str(entry.get("generated_text") or "")
    found: dict[str, Any] = {"answer_excerpt": text, "expected_answer": "" if expected is None else str(expected)}
    if entry["metrics"].get("error_code") in (None, "") and expected is not None:
        match, strictly = asked.get("match"), asked.get("strict_match")
        if match is None and type(expected) is int:
            match, strictly = has_number(text, expected), is_only_number(text, expected)
        found |= {MATCH: match, STRICT_MATCH: strictly}
    return found


def _completed(group: Group) -> Group:
    return dataclasses.replace(group, measured=group.measured[~unfinished(group.measured["error_code"])])


def _api(group: Group) -> str | None:
    """LLMPerf's name of the API: what ours begins with."""
    names = sorted({str(api).partition("-")[0] for api in group.measured["api"] if api})
    return ", ".join(names) or None
