"""The verdict about the client: what speaks against it, and what does not."""

from __future__ import annotations

import pytest

from llm_users.collect.health import OK, SATURATED, STRAINED, advice, reasons, verdict
from llm_users.record import StageRecord

QUIET = {"client_cpu_share_max": 0.4, "lag_p99_s": 0.001, "queue_p99_s": 0.005, "forced_start_share": 0.0}


def _stage(**figures: float) -> StageRecord:
    return StageRecord(stage=1, concurrency=8, **{**QUIET, **figures})


def test_a_quiet_client_is_ok() -> None:
    assert verdict(_stage()) == OK
    assert reasons(_stage()) == []


@pytest.mark.parametrize(
    ("name", "strained", "saturated"),
    [
        ("client_cpu_share_max", 0.85, 0.97),
        ("lag_p99_s", 0.003, 0.05),
        ("queue_p99_s", 0.1, 0.5),
        ("forced_start_share", 0.3, 0.9),
    ],
)
def test_each_figure_strains_and_saturates(name: str, strained: float, saturated: float) -> None:
    assert verdict(_stage(**{name: strained})) == STRAINED
    assert verdict(_stage(**{name: saturated})) == SATURATED
    assert len(reasons(_stage(**{name: saturated}))) == 1


def test_chunks_that_the_server_sends_together_are_not_held_against_a_quiet_client() -> None:
    assert verdict(_stage(coalesced_share=0.9)) == OK
    assert verdict(_stage(coalesced_share=0.9, lag_p99_s=0.006)) == SATURATED
    assert verdict(_stage(first_coalesced_share=0.9)) == OK


def test_first_chunks_that_a_late_client_read_with_later_ones_saturate_it_before_they_are_one_in_a_hundred() -> None:
    shares = {0.0: STRAINED, 0.003: STRAINED, 0.009: SATURATED}  # strained by the lag alone
    assert {share: verdict(_stage(first_coalesced_share=share, lag_p99_s=0.006)) for share in shares} == shares


def test_unknown_figures_say_nothing() -> None:
    assert verdict(StageRecord(stage=1)) == OK


def test_advice_names_a_number_of_processes() -> None:
    assert "--processes 4" in advice(_stage(client_cpu_share_max=0.99), 2)
    assert "--processes 2" in advice(_stage(queue_p99_s=0.9), 1)
