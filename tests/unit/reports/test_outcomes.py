"""One answer to how a request ended: in the live tab, the stages file, the report, the gate and LLMPerf's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame

from llm_reports.metrics import outcomes as columns
from llm_users.collect.writer import RunWriter
from llm_users.load.protocol.stage import StageTotals
from llm_users.outcome import Outcome, outcome_of
from llm_users.record import StageLoad
from tests.unit.reports.conftest import record
from tests.unit.reports.outcome_counts import counts_everywhere, counts_of

CODES: list[tuple[str | None, int | None, Outcome]] = [
    (None, 200, Outcome.OK),
    ("buffered", 200, Outcome.OK),
    ("429", 429, Outcome.THROTTLED),
    ("ThrottlingException", None, Outcome.THROTTLED),
    ("throttlingException", 200, Outcome.THROTTLED),
    ("rate_limit_error", 200, Outcome.THROTTLED),
    ("rate_limit_exceeded", None, Outcome.THROTTLED),
    ("insufficient_quota", 429, Outcome.THROTTLED),
    ("500", 500, Outcome.FAILED),
    ("connect", None, Outcome.FAILED),
    ("client_limit", None, Outcome.FAILED),
    ("timeout", None, Outcome.FAILED),
    ("reset", None, Outcome.FAILED),
    ("truncated", 200, Outcome.FAILED),
    ("malformed", 200, Outcome.FAILED),
    ("empty", 200, Outcome.FAILED),
    ("server_aborted", 200, Outcome.FAILED),
    ("overflow", None, Outcome.DROPPED),
    ("aborted", 200, Outcome.ABORTED),
    ("aborted", 429, Outcome.ABORTED),
    ("cancelled", 200, Outcome.CANCELLED),
    ("cancelled", 429, Outcome.CANCELLED),
]


@pytest.mark.parametrize(("code", "status", "outcome"), CODES)
def test_a_code_and_a_status_give_the_outcome(code: str | None, status: int | None, outcome: Outcome) -> None:
    assert outcome_of(code, status) is outcome
    assert record(1, error_code=code, http_status=status).outcome is outcome


def test_the_form_for_columns_gives_what_the_form_for_one_request_gives() -> None:
    rows = DataFrame({
        "error_code": ["" if code is None else code for code, _, _ in CODES],
        "http_status": [status for _, status, _ in CODES],
    }, index=range(10, 10 + len(CODES))).astype({"error_code": object, "http_status": "Int64"})  # fmt: skip
    expected = [outcome for _, _, outcome in CODES]
    codes = rows["error_code"]
    found = columns.outcomes(rows)
    assert list(found) == expected
    assert list(found.index) == list(rows.index)
    assert columns.outcome_counts(rows) == {outcome: expected.count(outcome) for outcome in Outcome}
    assert list(columns.succeeded(codes)) == [outcome is Outcome.OK for outcome in expected]
    assert list(columns.failed(codes)) == [outcome.is_failure for outcome in expected]
    assert list(columns.unfinished(codes)) == [outcome.is_unfinished for outcome in expected]
    assert list(columns.aborted(codes)) == [outcome is Outcome.ABORTED for outcome in expected]
    assert list(columns.dropped(codes)) == [outcome is Outcome.DROPPED for outcome in expected]
    assert list(columns.throttled(rows)) == [outcome is Outcome.THROTTLED for outcome in expected]
    assert list(columns.buffered(codes)) == [code == "buffered" for code in codes]


def test_the_form_for_columns_takes_no_rows() -> None:
    rows = DataFrame({"error_code": [], "http_status": []}).astype({"error_code": object, "http_status": "Int64"})
    assert columns.outcome_counts(rows) == dict.fromkeys(Outcome, 0)


def test_every_outcome_either_succeeded_or_failed_or_is_unfinished() -> None:
    kinds = [(outcome is Outcome.OK, outcome.is_failure, outcome.is_unfinished) for outcome in Outcome]
    assert all(sum(kind) == 1 for kind in kinds)


def test_all_parts_count_the_outcomes_of_a_run_alike(tmp_path: Path) -> None:
    """Code number i has i + 1 requests, so no count can be another one's by chance."""
    prefix, rows = tmp_path / "run", []
    for number, (code, status, _) in enumerate(CODES):
        without = {} if outcome_of(code, status) is Outcome.OK else {"ttft_s": None, "output_tokens": None}
        values: dict[str, Any] = {"error_code": code, "http_status": status, **without}
        rows += [record(100 * number + each, **values) for each in range(number + 1)]
    writer = RunWriter(str(prefix), "run-1", {}, offsets=False)
    for row in rows:
        assert writer.add(row, ())
    totals = StageTotals(1, 0, users=1, started=len(rows), measured=len(rows), window_s=5000.0)
    writer.finish_stage(1, StageLoad(1), [totals])
    writer.close()
    expected = counts_of([row.outcome for row in rows])
    expected["ended"] = expected["measured"] - expected["aborted"] - expected["cancelled"]
    expected["not ok"] = expected["measured"] - expected["ok"]
    everywhere = counts_everywhere(prefix, tmp_path / "out")
    wrong = {
        f"{part}: {name}": (count, expected[name])
        for part, counts in everywhere.items()
        for name, count in counts.items()
        if count != expected[name]
    }
    assert not wrong
    assert set(everywhere["report"]) == {"measured", *Outcome}
    assert min(expected.values()) > 0
