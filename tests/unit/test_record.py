"""The record: one table of columns, packed and unpacked without loss, safe in a spreadsheet."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_users.collect.files import RunFiles, check_prefix, move_aside
from llm_users.record import (
    LOAD_SHARE,
    REQUEST_COLUMNS,
    REQUESTS_PER_USER,
    STAGE_COLUMNS,
    RequestRecord,
    StageLoad,
    StageRecord,
    cell,
    cells,
)


def test_a_record_survives_packing() -> None:
    record = RequestRecord(request_id="r-1", ttft_s=0.25, output_tokens=7, error_code="429", measured=1)
    assert RequestRecord.from_row(record.row()) == record


def test_every_column_says_what_it_means() -> None:
    for column in (*REQUEST_COLUMNS, *STAGE_COLUMNS):
        assert column.meaning
        assert column.type in (int, float, str)


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2", "@SUM(A1)", "\tx"])
def test_text_that_looks_like_a_formula_is_defused(text: str) -> None:
    assert cell(text) == "'" + text


def test_numbers_keep_their_sign_and_precision() -> None:
    assert cell(-1.5) == "-1.5"
    assert cell(-3) == -3
    assert cell(1795304183.906275) == "1795304183.906275"
    assert cell(0.000123456789) == "0.000123456789"
    assert cell(None) == ""


def test_buffered_is_a_warning_and_other_codes_are_failures() -> None:
    assert RequestRecord().ok
    assert RequestRecord(error_code="buffered").ok
    assert not RequestRecord(error_code="truncated").ok


def test_headers_are_there_before_the_first_row(tmp_path: Path) -> None:
    files = RunFiles(str(tmp_path / "run"), offsets=True)
    for suffix in ("requests", "stages", "gaps", "offsets"):
        assert (tmp_path / f"run_llm_{suffix}.csv").read_text().count("\n") == 1
    files.close()


def test_rows_with_quotes_and_newlines_read_back(tmp_path: Path) -> None:
    files = RunFiles(str(tmp_path / "run"), offsets=False)
    message = 'a "quoted", two-line\nmessage'
    files.write_request(RequestRecord(request_id="r", error_message=message).row())
    files.write_stage(StageRecord(stage=1, concurrency=2))
    files.close()
    (row,) = csv.DictReader(io.StringIO((tmp_path / "run_llm_requests.csv").read_text()))
    assert row["error_message"] == message


def test_files_of_an_earlier_start_are_moved_aside(tmp_path: Path) -> None:
    prefix = str(tmp_path / "run")
    for wanted in ("run.1", "run.2"):
        RunFiles(prefix, offsets=False).close()
        assert move_aside(prefix) == str(tmp_path / wanted)
    assert move_aside(prefix) is None
    assert (tmp_path / "run.2_llm_requests.csv").exists()


def test_an_unwritable_place_is_said_kindly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="--csv"):
        check_prefix(str(tmp_path / "file" / "run"))


def test_users_that_came_late_in_a_short_window_are_not_missing() -> None:
    """The window opens with the first request, so the mean is below the number of users although nobody has ended."""
    late = StageRecord(1, 2, concurrency_asked=2, users_actual=1.8, users_ended=0, load_actual=1.95)
    assert late.shortfall is None
    ended = dataclasses.replace(late, users_ended=1)
    assert ended.shortfall is not None
    assert (ended.shortfall.short, ended.shortfall.users_missing) == ("1.8 of 2 users", True)


def test_few_requests_for_each_user_explain_a_lower_load() -> None:
    """Users who send N requests each lose half a request at the end: 1 - 1 / 2N of the load remains, 95 % at N = 10."""
    few = StageRecord(1, 32, concurrency_asked=32, load_actual=25.3, requests_measured=40)
    assert few.shortfall is not None
    assert few.shortfall.text == (
        "the load was equivalent to 25.3 of 32 users: 40 requests are few for 32 users, who wait for the others at the "
        "end of a stage; use at least 320 requests, 10 for each user"
    )
    many = dataclasses.replace(few, requests_measured=320).shortfall
    assert many is not None
    assert many.why == "their requests waited for the client, or workers did not measure at the same time"
    assert 1 - 1 / (2 * REQUESTS_PER_USER) == LOAD_SHARE


def test_the_load_of_a_stage_is_its_users_or_its_rate() -> None:
    assert RequestRecord(concurrency=8).load == StageRecord(concurrency=8).load == StageLoad(8)
    assert RequestRecord(rate_per_s=5.0).load == StageRecord(rate_per_s=5.0).load == StageLoad(rate_per_s=5.0)
    assert (StageLoad(8).text, StageLoad(rate_per_s=5.0).text) == ("8 users", "5 requests/s")
    assert (StageLoad(8).concurrency, StageLoad(rate_per_s=5.0).concurrency, StageLoad().concurrency) == (8, 0, 0)
    loads = [StageLoad(rate_per_s=0.5), StageLoad(16), StageLoad(2), StageLoad()]
    assert sorted(loads, key=lambda load: load.order) == [StageLoad(), StageLoad(2), StageLoad(16), loads[0]]


@given(
    st.lists(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text("'=+-@\t\ra 1,", max_size=4)),
        max_size=8,
    )
)
def test_a_row_of_cells_is_written_like_its_single_cells(values: list[object]) -> None:
    rows = [io.StringIO(), io.StringIO()]
    csv.writer(rows[0]).writerow(cells(values))
    csv.writer(rows[1]).writerow([cell(value) for value in values])
    assert rows[0].getvalue() == rows[1].getvalue()


@pytest.mark.parametrize(
    ("load", "parts", "text"),
    [
        (StageLoad(4), {"small": 30.0, "large": 10.0}, "of 4 users, small had 3.0 and large 1.0 on average"),
        (StageLoad(1), {"a": 1.0, "b": 1.0, "c": 2.0}, "of 1 user, a had 0.2, b 0.2 and c 0.5 on average"),
        (StageLoad(None, 10.0), {"small": 30.0, "large": 10.0}, "of 10 requests/s, small got 7.5 and large 2.5"),
        (StageLoad(4), {"only": 3.0}, ""),
        (StageLoad(4), {"a": 0.0, "b": 0.0}, ""),
        (StageLoad(), {"a": 1.0, "b": 1.0}, ""),
    ],
)
def test_models_share_the_users_by_time_and_the_rate_by_requests(
    load: StageLoad, parts: dict[str, float], text: str
) -> None:
    assert load.share_text(parts) == text
