"""Client minus server, per request: the figures of rows whose differences are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import llm_reports
from llm_reports.main import main
from llm_reports.sections.section import Grid
from llm_reports.sections.server_times import server_times_section
from llm_users.record import RequestRecord

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]


def row(make: Make, index: int, more_s: float | None, **values: object) -> RequestRecord:
    """A request of 0.2 s to the first token and 1 s in total, of which the server does not see the given time."""
    times: dict[str, object] = {"ttft_s": 0.2, "end_to_end_latency_s": 1.0}
    if more_s is not None:
        times |= {"server_ttft_s": 0.2 - more_s, "server_latency_s": 1.0 - 2 * more_s}
    return make(index, **{**times, **values})


def cells(prefix: Path) -> list[list[str]]:
    section = server_times_section(llm_reports.groups([llm_reports.load(prefix)]))
    assert section is not None
    (grid,) = (part for part in section.parts if isinstance(part, Grid))
    return [list(cells) for cells in grid.rows]


def test_the_figures_are_of_the_differences_of_each_request(write_run: Write, make_record: Make) -> None:
    rows = [row(make_record, index, 0.001 * (index + 1)) for index in range(101)]  # 1 ms to 101 ms
    ttft, e2e = cells(write_run(rows))
    assert ttft[1:] == ["TTFT", "101", "200.00", "149.00", "51.00", "51.00", "96.00", "100.00", "1.00", "101.00"]
    assert e2e[1:] == ["E2E", "101", "1000.00", "898.00", "102.00", "102.00", "192.00", "200.00", "2.00", "202.00"]


def test_failed_requests_and_requests_without_the_server_s_time_do_not_count(
    write_run: Write, make_record: Make
) -> None:
    rows = [row(make_record, index, 0.01) for index in range(10)]
    rows += [row(make_record, 10, 0.1, error_code="timeout"), row(make_record, 11, None)]
    rows += [row(make_record, 12, 0.1, measured=0)]
    ttft, _ = cells(write_run(rows))
    assert (ttft[2], ttft[5]) == ("10", "10.00")


def test_a_server_with_only_the_latency_has_one_line_per_stage(write_run: Write, make_record: Make) -> None:
    rows = [row(make_record, index, 0.01, server_ttft_s=None) for index in range(10)]
    assert [cells[1] for cells in cells(write_run(rows))] == ["E2E"]


@pytest.mark.parametrize("filled", [True, False])
def test_the_report_and_the_page_have_the_section_only_with_times_of_the_server(
    write_run: Write, make_record: Make, tmp_path: Path, filled: bool
) -> None:
    prefix = write_run([row(make_record, index, 0.01 if filled else None) for index in range(10)])
    assert main([str(prefix), "--format", "md,html", "--out", str(tmp_path / "out")]) == 0
    for name in ("report.md", "report.html"):
        assert ("Client minus server, per request" in (tmp_path / "out" / name).read_text()) is filled
