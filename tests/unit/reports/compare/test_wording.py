"""The wording of a comparison: limits, digits of shares, paired lines, and intervals that agree with each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import llm_reports
from llm_reports.markdown.report import comparison_text
from llm_users.record import RequestRecord

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]
_N = 400


def run(write_run: Write, make: Make, name: str, *, scale: float = 1.0, failed: int = 0) -> Path:
    dice, at, rows = np.random.default_rng(sum(map(ord, name))), 1.7e9, []
    for i in range(_N):
        latency_s = scale * float(np.exp(dice.normal(0, 0.1)))
        values = {"ttft_s": 0.2 * latency_s, "end_to_end_latency_s": latency_s, "tpot_s": 0.8 * latency_s / 49}
        if failed and not i % (_N // failed):
            values = {**dict.fromkeys(values), "end_to_end_latency_s": 0.02, "output_tokens": None, "error_code": "500"}  # type: ignore[dict-item]
        rows.append(make(i, concurrency=4, started_at=at, prompt_index=i, **{"output_tokens": 50, **values}))
        at += latency_s / 4
    return write_run(rows, name=name)


def compared(write_run: Write, make: Make, **other: float) -> llm_reports.Comparison:
    paths = [run(write_run, make, "base"), run(write_run, make, "other", **other)]  # type: ignore[arg-type]
    return llm_reports.compare_runs(llm_reports.load_all(paths), threshold=0.1)


def cells(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if f"| {start}" in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_few_errors_have_the_digits_of_the_gate_and_a_limit_in_words(write_run: Write, make_record: Make) -> None:
    text = comparison_text(compared(write_run, make_record, failed=5))  # 5 of 400 are 1.25 %
    row = cells(text, "error_ratio")
    assert "1.25 %" in row
    assert "no significant increase" in row
    assert any(cell.startswith("1.25 % (") for cell in row)
    assert "(-0.0 " not in text
    assert "(-0.00 " not in text


def test_every_figure_that_can_fail_shows_its_limit(write_run: Write, make_record: Make) -> None:
    text = comparison_text(compared(write_run, make_record))
    for name in ("ttft_s p95", "tpot_s p95", "ttft_s median"):
        assert "+10 %" in cells(text, name)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_both_intervals_of_a_line_agree(write_run: Write, make_record: Make, scale: float) -> None:
    frame = compared(write_run, make_record, scale=scale).frame()
    known = frame[frame["ratio_ci_low"].notna()]
    assert len(known) >= 7
    for end in ("low", "high"):
        expected = known["before"] * (known[f"ratio_ci_{end}"] - 1)
        assert np.allclose(known[f"difference_ci_{end}"], expected)
