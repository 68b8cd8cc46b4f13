"""LLMPerf's second pair of files, ``MODEL_correctness_*``: checked answers with its names, order and definitions.

The names are LLMPerf's format and are defined only in this module. Additional values of this project are where
LLMPerf's ``--metadata`` would be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pandas import isna

from llm_reports.llmperf.results import api_of, rate_of, responses
from llm_reports.metrics.correctness import MATCH, STRICT_MATCH
from llm_reports.metrics.groups import Group
from llm_reports.metrics.outcomes import unfinished
from llm_users.number_words import has_number, is_only_number
from llm_users.record import COL

STEM = "_correctness"
_NUMBER = "rnd_number"
_STRICT = "num_strict_mismatched_requests"


def summary(group: Group, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Return LLMPerf's figures of the checked requests of a group, without aborted requests, which did not complete.

    LLMPerf's mismatch rate is a share of all completed requests, including failed ones. The report has the shares of
    the checked answers.
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
        COL.model: group.model,
        "num_concurrent_requests": group.concurrency,
        **sampling,
        "llm_api": api_of(group) or None,
        COL.framework: group.framework,
        **rate_of(group),
        _STRICT: strictly,
        "strict_mismatch_rate": strictly / count if count else 0.0,
    }


def individual_responses(group: Group) -> list[dict[str, Any]]:
    """Return the completed requests in the order of their starts: figures, start of the answer, expected number."""
    completed = _completed(group)
    rows = completed.measured.sort_values([COL.started_at, COL.request_id], kind="stable")
    columns = [rows[name] for name in (COL.model, COL.expected_answer, COL.answer_excerpt, MATCH, STRICT_MATCH)]
    entries = []
    for metrics, (model, expected, answer, match, strictly) in zip(
        responses(completed), zip(*columns, strict=True), strict=True
    ):
        verdicts = {"match": match, "strict_match": strictly}
        expected_number = {_NUMBER: int(expected) if expected.isdecimal() else expected} if expected else {}
        known = {name: bool(verdict) for name, verdict in verdicts.items() if not isna(verdict)}
        config = {COL.model: model, "prompt": None, "sampling_params": None, "llm_api": api_of(group) or None}
        request_config = {**config, "metadata": {**expected_number, **known}}
        entries.append({"metrics": metrics, "generated_text": answer, "request_config": request_config})
    return entries


def metrics_of(entry: Mapping[str, Any], summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures of a response, without those that LLMPerf does not measure in this test.

    In LLMPerf's own files, the prompt counts 0 tokens and the inter-token latency is an undivided sum.
    """
    metrics: dict[str, Any] = entry["metrics"]
    unknown = () if _STRICT in summary else ("number_input_tokens", "inter_token_latency_s")
    return {name: value for name, value in metrics.items() if name not in unknown}


def checked(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row about the correctness of an answer.

    LLMPerf's own files contain the text but not the verdict, so this function checks the text.
    """
    config = entry.get("request_config")
    metadata = config.get("metadata") if isinstance(config, dict) else None
    metadata = metadata if isinstance(metadata, dict) else {}
    expected, text = metadata.get(_NUMBER), str(entry.get("generated_text") or "")
    columns: dict[str, Any] = {COL.answer_excerpt: text, COL.expected_answer: "" if expected is None else str(expected)}
    if entry["metrics"].get(COL.error_code) in (None, "") and expected is not None:
        match, strictly = metadata.get("match"), metadata.get("strict_match")
        if match is None and type(expected) is int:
            match, strictly = has_number(text, expected), is_only_number(text, expected)
        columns |= {MATCH: match, STRICT_MATCH: strictly}
    return columns


def _completed(group: Group) -> Group:
    return dataclasses.replace(group, measured=group.measured[~unfinished(group.measured[COL.error_code])])
