"""What ``llm-bench quick`` says about known figures, and which figures it reads from the files of a run."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from llm_users.quick.answer import header, knee_of, line, next_commands, notes, sentences
from llm_users.quick.figures import StageFigures, first_failure, read_figures
from llm_users.record import REQUEST_COLUMNS, STAGE_COLUMNS


def stage(
    users: int, each: float = 100.0, *, total: float = 0.0, ttft_s: float = 0.0432, **more: object
) -> StageFigures:
    figures: dict[str, object] = {
        "users": users, "requests": 10, "failed": 0, "ttft_s": ttft_s, "tpot_s": 1 / each, "tokens_per_s_each": each,
        "latency_s": 1.5, "tokens_per_s": total or users * each, "health": "ok",
    }  # fmt: skip
    return StageFigures(**{**figures, **more})  # type: ignore[arg-type]


CURVE = (stage(1, 103), stage(2, 102), stage(4, 95), stage(8, 80, total=640.4, ttft_s=1.26))


def test_the_answer_has_three_sentences() -> None:
    assert sentences(CURVE).replace("\n", " ") == (
        "One user: first token in 43.2 ms, 103 tokens/s. With 8 users: first token in 1.26 s, 80 tokens/s "
        "each. The fastest total was 640 tokens/s at 8 users; beyond 4 users, each user gets less than 80 % of the "
        "tokens/s that a single user gets."
    )


def test_the_sentences_have_the_tokens_per_second_of_the_table() -> None:
    """50 tokens in 0.0432 + 49 x 0.008 s are 114.9 tokens/s; the rate after the first token alone would be 125."""
    one = stage(1, 50 / (0.0432 + 49 * 0.008), tpot_s=0.008)
    assert sentences([one]) == "One user: first token in 43.2 ms, 115 tokens/s."
    assert line(one).split()[7] == "115"


def test_without_a_knee_the_answer_says_how_far_the_users_keep_their_speed() -> None:
    assert "at 4 users; up to 4 users, each user gets at least 80 %" in sentences(CURVE[:3]).replace("\n", " ")
    assert sentences(CURVE[:1]) == "One user: first token in 43.2 ms, 103 tokens/s."


@pytest.mark.parametrize(
    ("speeds", "knee"), [((100, 81, 80), None), ((100, 79, 60), 1), ((100, 90, 79), 2), ((100, 79, 99), 1)]
)
def test_the_knee_is_the_last_load_before_the_first_slow_one(speeds: tuple[float, ...], knee: int | None) -> None:
    found = knee_of([stage(2**index, speed) for index, speed in enumerate(speeds)])
    assert (found.users if found else None) == knee


def test_the_knee_can_be_the_first_stage() -> None:
    text = sentences([stage(2, 100), stage(4, 50)]).replace("\n", " ")
    assert text.startswith("With 2 users: first token in 43.2 ms")
    assert text.endswith("beyond 2 users, each user gets less than 80 % of the tokens/s that each of 2 users gets.")


def test_everything_fits_80_columns() -> None:
    wide = stage(1024, 123_456, ttft_s=1234.5, requests=12_345, failed=12_345, health="disturbed", tpot_s=0.0123)
    texts = [header(), line(wide), sentences(CURVE), *notes([wide, *CURVE], (1, 16), "400: " + "words " * 40)]
    assert max(len(text) for block in texts for text in block.splitlines()) <= 80
    assert [*header()].index("T") + 3 == line(stage(1)).index(
        "43.2 ms"
    ) + 6  # numbers stand below the end of their head


def test_answers_that_arrive_at_once_have_no_time_to_first_token() -> None:
    buffered = stage(1, ttft_s=math.nan, tpot_s=math.nan)
    assert sentences([buffered]) == "One user: a complete answer in 1.5 s, 100 tokens/s."
    assert "does not stream" in notes([buffered], (1,), "")[0]


def test_notes_name_failures_an_unhealthy_client_and_missing_stages() -> None:
    found = notes([stage(1, failed=2), stage(2, health="disturbed")], (1, 2, 4, 8), "429: slow down")
    text = " ".join("\n".join(found).split())
    assert "2 of 20 requests failed, the first one with 429: slow down" in text
    assert "This machine affected the figures at 2 users (disturbed)" in text
    assert "The time was over before 4, 8 users ran: an answer takes 1.5 s." in text
    assert notes(CURVE, (1, 2, 4, 8), "") == []


def test_the_next_sweep_goes_around_the_knee_or_higher() -> None:
    server = ["--host", "http://127.0.0.1:8000/v1"]
    knee = next_commands(CURVE, server, "out/run")
    assert "llm-bench --headless --host http://127.0.0.1:8000/v1" in knee
    assert "--llm-sweep 1,2,4,8 --llm-report" in knee
    assert "llm-report out/run" in knee
    assert "--llm-sweep 1,2,4,8,16 --llm-report" in next_commands(CURVE[:3], server, "out/run")
    assert "'--llm-model=a b;c'" in next_commands(CURVE, ["--llm-model=a b;c"], "out/run")


REQUEST = {"stage": 1, "measured": 1, "ttft_s": 0.1, "tpot_s": 0.01, "end_to_end_latency_s": 1,
           "request_output_throughput_token_per_s": 50}  # fmt: skip
STAGE = {"stage": 1, "concurrency": 2, "requests_measured": 5, "output_throughput_token_per_s": 95, "health": "ok"}


def write(prefix: Path, requests: list[dict[str, object]], stages: list[dict[str, object]]) -> None:
    for suffix, columns, rows in (("requests", REQUEST_COLUMNS, requests), ("stages", STAGE_COLUMNS, stages)):
        with Path(f"{prefix}_llm_{suffix}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [column.name for column in columns], restval="")
            writer.writeheader()
            writer.writerows(rows)


def test_figures_are_medians_of_the_successful_measured_requests(tmp_path: Path) -> None:
    prefix = tmp_path / "run"
    requests: list[dict[str, object]] = [
        {**REQUEST, "measured": 0, "ttft_s": 9},
        {**REQUEST, "stage": 2, "ttft_s": 8},
        REQUEST,
        {**REQUEST, "ttft_s": 0.3, "tpot_s": 0.02},
        {**REQUEST, "ttft_s": "", "error_code": "500", "error_message": "a\nb", "http_status": 500},
        {**REQUEST, "ttft_s": 7, "error_code": "aborted"},
        {**REQUEST, "ttft_s": 6, "error_code": "buffered", "request_output_throughput_token_per_s": 90},
    ]
    write(prefix, requests, [STAGE])
    assert read_figures(prefix) == [
        StageFigures(2, 4, 1, pytest.approx(0.2), pytest.approx(0.015), 50, 1, 95, "ok")  # type: ignore[arg-type]
    ]
    assert first_failure(prefix) == "500: a\nb"


def test_files_that_are_still_written_are_read_to_their_last_complete_line(tmp_path: Path) -> None:
    prefix = tmp_path / "run"
    assert read_figures(prefix) == []
    write(prefix, [REQUEST] * 5, [STAGE])
    path = Path(f"{prefix}_llm_requests.csv")
    whole = path.read_bytes()
    assert [each.requests for each in read_figures(prefix, complete_only=True)] == [5]
    path.write_bytes(whole[:-20])
    assert read_figures(prefix, complete_only=True) == []
    assert [each.requests for each in read_figures(prefix)] == [4]
