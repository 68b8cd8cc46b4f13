"""The tables of docs/ci-run-length.md on the length of a run have the figures of the code that decides."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path
from statistics import NormalDist

import pytest

import llm_reports
from llm_reports.slo.evidence import least_requests
from llm_reports.stats.intervals import requests_needed_below, requests_to_tell
from llm_users.record import RequestRecord
from tests.project import ROOT
from tests.unit.reports.rows_on_disk import record, write_rows

PAGE = (ROOT / "docs" / "ci-run-length.md").read_text(encoding="utf-8")


def table(first_column: str, columns: int) -> list[list[str]]:
    """The cells of the table with this number of columns and this name of the first column."""
    for found in re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]
        if lines[0][0] == first_column and len(lines[0]) == columns:
            return lines[2:]
    raise AssertionError(first_column)


def rows(seed: int, requests: int, spread: float) -> list[RequestRecord]:
    """A closed loop of four users; each latency varies independently with this spread."""
    dice, at, made = random.Random(seed), 1.7e9, []
    for index in range(requests):
        ttft_s, rest_s = (scale * math.exp(dice.gauss(0, spread)) for scale in (0.2, 1.0))
        times = {"ttft_s": ttft_s, "tpot_s": rest_s / 49, "end_to_end_latency_s": ttft_s + rest_s}
        made.append(record(index, concurrency=4, started_at=at, **times))
        at += (ttft_s + rest_s) / 4
    return made


def number(cell: str) -> float:
    return float(re.sub(r"[^\d.]", "", cell))


@pytest.mark.parametrize("line", table("objective", 2), ids=lambda line: line[0])
def test_the_minimum_number_of_requests_of_an_objective(line: list[str]) -> None:
    for text in re.findall(r"`([^`]+)`", line[0]):
        objectives = llm_reports.parse_objectives(text.replace("…", "1"))
        assert [least_requests(one) for one in objectives.all] == [number(line[1])], text


@pytest.mark.parametrize("line", table("objective", 3), ids=" ".join)
def test_the_number_of_requests_near_a_limit(line: list[str]) -> None:
    broken = number(line[1]) / 100
    for text in re.findall(r"`([^`]+)`", line[0]):
        allowed = {"ttft_p95<…": 0.05, "ttft_p99<…": 0.01, "errors<1%": 0.01}[text]
        assert requests_to_tell(broken, allowed) == number(line[2]), text


@pytest.mark.parametrize("line", table("spread", 4), ids=lambda line: line[0])
def test_the_number_of_requests_of_a_comparison(line: list[str]) -> None:
    least = requests_needed_below(0.05)
    assert f"at\nleast {least}" in PAGE
    for threshold, cell in zip((5, 10, 20), line[1:], strict=True):
        assert number(cell) == max(least, round(100 * (number(line[0]) / threshold) ** 2)), threshold


@pytest.mark.parametrize(("spread", "threshold", "requests"), [(0.1, 0.05, 400), (0.2, 0.1, 400), (0.02, 0.05, 73)])
def test_two_equal_runs_with_that_number_of_requests_pass(
    spread: float, threshold: float, requests: int, tmp_path: Path
) -> None:
    passed = 0
    for pair in range(10):
        runs = []
        for side in (0, 1):
            prefix = tmp_path / f"run{pair}{side}"
            write_rows(tmp_path / f"{prefix.name}_llm_requests.csv", rows(100 + 2 * pair + side, requests, spread))
            runs.append(llm_reports.load(prefix))
        passed += llm_reports.compare_runs(runs, threshold=threshold).passed
    assert passed >= 9


def test_a_p95_needs_about_three_times_as_many_requests_as_a_median() -> None:
    """The squared ratio of the standard errors of both quantiles of a normal distribution."""
    assert "A P95 (`--on p95`) needs about three times as many." in PAGE
    normal = NormalDist()

    def variance(q: float) -> float:
        return q * (1 - q) / normal.pdf(normal.inv_cdf(q)) ** 2

    assert variance(0.95) / variance(0.5) == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("line", table("requests", 4), ids=" ".join)
def test_the_duration_is_requests_times_latency_over_concurrency(line: list[str]) -> None:
    requests, latency_s, concurrency, duration_s = map(number, line)
    assert duration_s == requests * latency_s / concurrency
