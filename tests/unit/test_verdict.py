"""One set of verdicts: the same three values in the gate, a comparison, a load search and their files."""

from __future__ import annotations

import pytest

from llm_users.verdict import Verdict, worst

PASSED, FAILED, UNDECIDED = Verdict.PASSED, Verdict.FAILED, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], PASSED),
        ([PASSED, PASSED], PASSED),
        ([PASSED, UNDECIDED], UNDECIDED),
        ([UNDECIDED, FAILED, PASSED], FAILED),
    ],
)
def test_the_worst_verdict_decides(verdicts: list[Verdict], expected: Verdict) -> None:
    assert worst(verdicts) is expected


def test_files_and_tables_hold_the_words() -> None:
    assert [f"{verdict}" for verdict in Verdict] == ["passed", "failed", "undecided"]
