"""Reading of LLMPerf's own files into the columns of a run, and detection of framework, model and load."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pandas import DataFrame, Series

from llm_reports.errors import InputError
from llm_reports.input.open_file import STDIN, beside, plain_name, read_text
from llm_reports.input.rows import impossible_warning, typed_frame, without_impossible
from llm_reports.llmperf import correctness
from llm_reports.llmperf.results import RATE, SOURCES
from llm_reports.metrics.correctness import MATCH, STRICT_MATCH
from llm_reports.metrics.groups import LLMPERF_TTFT
from llm_reports.metrics.outcomes import succeeded
from llm_users.record import COL, REQUEST_COLUMNS, Column, StageLoad, load_of

RESPONSES_SUFFIX = "_individual_responses.json"
SUMMARY_SUFFIX = "_summary.json"

# LLMPerf's name of a value -> the column of this project. LLMPerf's request_output_throughput_token_per_s is omitted
# because it counted chunks. The tables use number_output_tokens / end_to_end_latency_s, as the published tables do.
_NUMBERS = {
    COL.ttft_s: COL.ttft_s,
    COL.end_to_end_latency_s: COL.end_to_end_latency_s,
    "number_output_tokens": COL.output_tokens,
    "number_input_tokens": COL.input_tokens,
    "inter_token_latency_s": "llmperf_inter_token_latency_s",
}
_OTHER_COLUMNS = (Column("llmperf_inter_token_latency_s", "s", "LLMPerf's inter-token latency", float),)
_MOST_NAMED = 10
_REQUIRED = (COL.error_code, COL.ttft_s, COL.end_to_end_latency_s, "number_output_tokens")


def read_responses(path: Path, summary: Mapping[str, Any]) -> tuple[DataFrame, tuple[str, ...]]:
    """Return the requests of an LLMPerf load test or correctness test, all marked as measured, and warnings.

    Raises ``InputError`` when the file cannot be read or is not a file of responses.
    """
    entries = _responses(path)
    checked = bool(entries) and all(isinstance(entry.get("metrics"), dict) for entry in entries)
    responses = [correctness.metrics_of(entry, summary) for entry in entries] if checked else entries
    missing = [name for name in _REQUIRED if responses and not any(name in response for response in responses)]
    if missing:
        raise InputError(
            f"{path}: not a file of LLMPerf's individual responses: all entries lack {', '.join(missing)}. "
            f"Specify the *{RESPONSES_SUFFIX} file, or the PREFIX of a run."
        )
    framework, model, load = names_of(path, summary)
    values: dict[str, Series] = {
        column: Series(
            [_number(path, i, response, llmperf_name) for i, response in enumerate(responses)], dtype="float64"
        )
        for llmperf_name, column in _NUMBERS.items()
    }
    count = len(responses)
    values[COL.error_code] = Series([_error_code(response) for response in responses], dtype=object)
    values[COL.error_message] = Series([str(response.get("error_msg") or "") for response in responses], dtype=object)
    values[COL.measured] = Series([1.0] * count)
    values[COL.framework] = Series([framework] * count, dtype=object)
    values[COL.model] = Series([model] * count, dtype=object)
    values[COL.concurrency] = Series([math.nan if load.users is None else load.users] * count)
    values[RATE] = Series([math.nan if load.rate_per_s is None else load.rate_per_s] * count)
    for name in SOURCES:
        values[name] = Series([str(summary.get(name) or "")] * count, dtype=object)
    if checked:
        checks = [correctness.checked(entry) for entry in entries]
        for name in (COL.expected_answer, COL.answer_excerpt):
            values[name] = Series([check[name] for check in checks], dtype=object)
        for name in (MATCH, STRICT_MATCH):
            values[name] = Series([check.get(name) for check in checks], dtype="float64")
    no_content = succeeded(values[COL.error_code]) & (values[COL.ttft_s] == 0)
    values[COL.ttft_s] = values[COL.ttft_s].mask(no_content)
    values, impossible = without_impossible(values, (*REQUEST_COLUMNS, *_OTHER_COLUMNS))
    warnings = [impossible_warning(path, impossible, lambda rows: _places(path, rows))] if impossible else []
    if no_content.any():
        values[LLMPERF_TTFT.name] = values[COL.ttft_s].mask(no_content, 0.0)
        empty = [index for index, is_empty in enumerate(no_content) if is_empty]
        shown = _places(path, empty[:_MOST_NAMED]).values()
        more = f" and {len(empty) - len(shown)} more" if len(empty) > len(shown) else ""
        warnings.append(
            f"{path}: {len(empty)} successful entries have a ttft_s of 0, which LLMPerf writes for answers without "
            f"content. They do not have a time to first token and are excluded from it: {', '.join(shown)}{more}."
        )
    return typed_frame(values, REQUEST_COLUMNS), tuple(warnings)


def _places(path: Path, entries: Iterable[int]) -> dict[int, str]:
    """Return the positions of entries in the file, for messages. This parses the file again; it is rarely needed."""
    wanted, positions = set(entries), {}
    text, decoder = read_text(path), json.JSONDecoder()
    offset = text.index("[") + 1
    for entry in range(max(wanted, default=-1) + 1):
        while text[offset] in ", \t\r\n":
            offset += 1
        if entry in wanted:
            positions[entry] = f"entry {entry + 1} (line {text.count(chr(10), 0, offset) + 1})"
        _, offset = decoder.raw_decode(text, offset)
    return positions


def read_summary(path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return the ``*_summary.json`` next to a file of responses, and a warning when it exists but cannot be used."""
    if path == STDIN:
        return {}, ()
    summary_path = beside(path.with_name(stem_of(path) + SUMMARY_SUFFIX))
    if not summary_path.exists():
        return {}, ()
    try:
        summary = json.loads(read_text(summary_path))
    except (InputError, ValueError, RecursionError) as error:
        return {}, (f"{summary_path}: invalid JSON ({error}); framework and model come from the file name instead.",)
    return (summary, ()) if isinstance(summary, dict) else ({}, ())


def names_of(path: Path, summary: Mapping[str, Any]) -> tuple[str, str, StageLoad]:
    """Return framework, model and load from the summary, or from the file name for values missing there.

    "" and an unknown load mean that neither contains the value.
    """
    framework, model = _names_in_file_name(stem_of(path), str(summary.get(COL.model) or ""))
    users, rate_per_s = summary.get("num_concurrent_requests"), summary.get(RATE)
    load = load_of(users if type(users) is int else None, rate_per_s if type(rate_per_s) in (int, float) else None)
    # An empty name was unknown when the file was written, so the file name does not contain it either.
    return str(summary.get(COL.framework, framework) or ""), str(summary.get(COL.model, model) or ""), load


def stem_of(path: Path) -> str:
    """Return the part of its name that a file of responses shares with its summary."""
    return plain_name(path).removesuffix(RESPONSES_SUFFIX).removesuffix(".json")


def safe_name(text: str) -> str:
    """Return a text as in LLMPerf's file names: runs of characters except letters, digits and ``_`` become ``-``."""
    return re.sub(r"-{2,}", "-", re.sub(r"[^\w-]+", "-", text))


def _names_in_file_name(stem: str, known_model: str) -> tuple[str, str]:
    """Split a file name into framework (up to the first ``_``) and model. LLMPerf itself uses MODEL_INPUT_OUTPUT."""
    checked = re.fullmatch(rf"(.+?){correctness.STEM}(?:_.*)?", stem)
    if checked:
        return "", checked[1]
    by_llmperf = re.fullmatch(r"(.+)_\d+_\d+", stem)
    if by_llmperf and ("_" not in by_llmperf[1] or by_llmperf[1] == safe_name(known_model)):
        return "", by_llmperf[1]
    framework, _, model = stem.partition("_")
    return framework, model


def _responses(path: Path) -> list[dict[str, Any]]:
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty. Did LLMPerf end before it wrote its results?")
    try:
        responses = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: malformed JSON ({error}). The file may be truncated; run LLMPerf again.") from error
    if not isinstance(responses, list) or not all(isinstance(response, dict) for response in responses):
        raise InputError(
            f"{path}: not a file of LLMPerf's individual responses, which is a list of objects. "
            f"Specify the *{RESPONSES_SUFFIX} file, or the PREFIX of a run."
        )
    return responses


def _error_code(response: Mapping[str, Any]) -> str:
    code = response.get(COL.error_code)
    if code is None or code == "" or (isinstance(code, float) and math.isnan(code)):
        return ""
    return str(int(code)) if isinstance(code, float) and code.is_integer() else str(code)


def _number(path: Path, index: int, response: Mapping[str, Any], name: str) -> float:
    value = response.get(name)
    if value is None:
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        raise InputError(
            f"{path}, entry {index + 1}: {name} is {value!r}, which is not a number. Correct or remove the entry."
        )
    return number
