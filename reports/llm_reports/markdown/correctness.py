"""The section about right and wrong answers in Markdown: a table with a line per stage, and some wrong answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_reports.markdown.text import aligned, bullets, plain
from llm_reports.metrics.correctness import MATCH, STRICT_MATCH, Share, mismatches
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.groups import Group

_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 60


def correctness_section(groups: Sequence[Group]) -> str:
    """A table of the wrong answers of every stage by both rules and some of them, in Markdown; "" without checks."""
    found = [(label, group) for label, group in zip(labels(groups), groups, strict=True) if mismatches(group).checked]
    if not found:
        return ""
    header = ["", "Checked", "Wrong", "Share", "95 % interval", "Strictly wrong", "Share", "95 % interval"]
    rows = []
    for label, group in found:
        loose, strict = mismatches(group), mismatches(group, STRICT_MATCH)
        strictly = [str(strict.wrong), *_shares(strict)] if strict.checked else ["-"] * 3
        rows.append([label or "all requests", str(loose.checked), str(loose.wrong), *_shares(loose), *strictly])
    notes = [
        "Of numbers: wrong is an answer without the expected number in digits (LLMPerf's rule), strictly wrong one "
        "that is not just this number. Shares are of the checked answers; failed requests have none."
    ]
    parts = ["## Correctness", aligned(header, rows, left={0}), bullets(notes)]
    examples = list(_examples(found))
    if examples:
        parts.append(aligned(["Wrong answers", "Expected", "Answered"], examples, left={0, 1, 2}))
    return "\n\n".join(parts) + "\n"


def _examples(found: Sequence[tuple[str, Group]]) -> Iterator[list[str]]:
    """Some of each stage, the first by their start."""
    left = max(1, _EXAMPLES // len(found))
    for label, group in found:
        wrong = group.ok[(group.ok[MATCH] == 0).fillna(value=False).astype(bool)].sort_values(
            ["started_at", "request_id"]
        )[:left]
        for expected, answer in zip(wrong["expected_answer"], wrong["answer_excerpt"], strict=True):
            yield [label or "all requests", _quoted(str(expected)), _quoted(str(answer))]


def _quoted(text: str) -> str:
    """A server's text as code, which no reader of Markdown takes for a link or a picture."""
    text = plain(text).replace("`", "'")
    return f"`{text[:_EXAMPLE_CHARACTERS]}`" if text else "-"


def _shares(share: Share) -> list[str]:
    ends = share.interval
    between = f"{100 * ends.low:.1f} % to {100 * ends.high:.1f} %" if ends.known else "-"
    return [f"{100 * share.ratio:.1f} %", between]
