"""A sweep straight against llama.cpp: nothing lost, nothing failed, and its own counters agree."""

from __future__ import annotations

import sys

import pytest

from tests.system.llama.command import Counted

LEVELS = ("1", "2", "4")


def test_every_request_succeeds_although_the_server_closes_every_connection(sweep: Counted) -> None:
    assert sweep.run.exit_code == 0, sweep.run.complaints[-3000:]
    failures = [(row["error_code"], row["error_message"]) for row in sweep.run.rows if row["error_code"]]
    assert failures == []
    # Whether a dead connection was noticed before or after sending, the clock started on a living one.
    assert {row["retries"] for row in sweep.run.rows} == {"0"}


def test_no_row_is_lost(sweep: Counted) -> None:
    for level in LEVELS:
        rows = [row for row in sweep.run.rows if row["concurrency"] == level]
        assert [row["measured"] for row in rows].count("1") == 8
        assert len(rows) == 8 + int(level)  # a warm-up request per user
    assert len({row["response_id"] for row in sweep.run.rows}) == len(sweep.run.rows)
    assert [stage["requests_ok"] for stage in sweep.run.stages] == ["8", "8", "8"]


def test_the_server_counted_the_same_tokens(sweep: Counted) -> None:
    rows = sweep.run.rows
    assert {row["output_tokens_source"] for row in rows} == {"usage"}
    assert sum(int(row["output_tokens"]) for row in rows) == sweep.grown["tokens_predicted_total"]
    fresh = sum(int(row["input_tokens"]) - int(row["cached_tokens"] or 0) for row in rows)
    assert fresh == sweep.grown["prompt_tokens_total"]


def test_the_caps_were_sent_and_kept(sweep: Counted) -> None:
    for row in sweep.run.rows:
        assert row["requested_output_tokens"] == row["output_tokens"] == "40"
        assert row["finish_reason"] == "length"


def test_the_server_generated_as_long_as_we_saw_tokens_arrive(sweep: Counted) -> None:
    """Generation lasts from the first token to the last one, in the server's counters as in our rows.

    The counter adds up every slot's time, as our rows add up every request's.
    """
    ours_s = sum(float(row["last_token_s"]) - float(row["ttft_s"]) for row in sweep.run.rows)
    assert ours_s == pytest.approx(sweep.grown["tokens_predicted_seconds_total"], rel=0.05)


def test_prompts_take_no_longer_than_the_time_to_first_token(sweep: Counted) -> None:
    ours_s = sum(float(row["ttft_s"]) for row in sweep.run.rows)
    assert sweep.grown["prompt_seconds_total"] <= ours_s


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel stamps arrivals on Linux")
def test_arrivals_carry_kernel_stamps(sweep: Counted) -> None:
    assert {row["stamp_source"] for row in sweep.run.rows} == {"kernel"}


def test_both_tables_are_printed_with_a_row_per_concurrency(sweep: Counted) -> None:
    printed = sweep.run.printed
    for heading in ("Time to First Token (seconds)", "Output Tokens Throughput (tokens/s)"):
        _, found, table = printed.partition(heading)
        assert found, f"no table {heading!r} in:\n{printed}"
        rows = [line.split("|") for line in table.splitlines() if line.startswith("|")][2:5]
        assert [row[3].strip() for row in rows] == list(LEVELS)
        assert {row[1].strip() for row in rows} == {"llama.cpp"}


def test_the_manifest_accounts_for_every_row(sweep: Counted) -> None:
    counts = sweep.run.manifest["counts"]
    assert counts["sent"] == counts["received"] == {"0": len(sweep.run.rows)}
