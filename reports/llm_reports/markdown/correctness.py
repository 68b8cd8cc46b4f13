"""The Markdown section about answer correctness: a table with one line per stage, and examples of wrong answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_reports.markdown.text import aligned, bullets, plain
from llm_reports.metrics.correctness import MATCH, STRICT_MATCH, Share, mismatches
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.groups import Group
from llm_users.record import COL

_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 60


def correctness_section(groups: Sequence[Group]) -> str:
    """Return a table with the wrong answers of every stage by both rules, and examples; "" without checked answers."""
    checked_groups = [
        (label, group) for label, group in zip(labels(groups), groups, strict=True) if mismatches(group).checked
    ]
    if not checked_groups:
        return ""
    header = ["", "Checked", "Wrong", "Share", "95 % interval", "Strictly wrong", "Share", "95 % interval"]
    rows = []
    for label, group in checked_groups:
        loose, strict = mismatches(group), mismatches(group, STRICT_MATCH)
        strictly = [str(strict.wrong), *_shares(strict)] if strict.checked else ["-"] * 3
        rows.append([label or "all requests", str(loose.checked), str(loose.wrong), *_shares(loose), *strictly])
    notes = [
        "An answer is wrong if it does not contain the expected number in digits (LLMPerf's rule), and strictly wrong "
        "if it is not exactly this number. Shares are of the checked answers; failed requests do not have an answer."
    ]
    parts = ["## Correctness", aligned(header, rows, left={0}), bullets(notes)]
    examples = list(_examples(checked_groups))
    if examples:
        parts.append(aligned(["Wrong answers", "Expected", "Answered"], examples, left={0, 1, 2}))
    return "\n\n".join(parts) + "\n"


def _examples(checked_groups: Sequence[tuple[str, Group]]) -> Iterator[list[str]]:
    """Yield examples of each stage, the earliest by start time."""
    per_stage = max(1, _EXAMPLES // len(checked_groups))
    for label, group in checked_groups:
        wrong = group.ok[(group.ok[MATCH] == 0).fillna(value=False).astype(bool)].sort_values(
            [COL.started_at, COL.request_id]
        )[:per_stage]
        for expected, answer in zip(wrong[COL.expected_answer], wrong[COL.answer_excerpt], strict=True):
            yield [label or "all requests", _quoted(str(expected)), _quoted(str(answer))]


def _quoted(text: str) -> str:
    """Return a server's text as code, so that Markdown does not render it as a link or an image."""
    text = plain(text).replace("`", "'")
    return f"`{text[:_EXAMPLE_CHARACTERS]}`" if text else "-"


def _shares(share: Share) -> list[str]:
    ends = share.interval
    between = f"{100 * ends.low:.1f} % to {100 * ends.high:.1f} %" if ends.known else "-"
    return [f"{100 * share.ratio:.1f} %", between]
