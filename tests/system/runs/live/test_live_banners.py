"""What the tab warns of, and how loudly; the colours of its lines for those who see fewer of them."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest

from llm_users.record import RequestRecord, StageRecord
from llm_users.web.banners import Seen, banners
from tests.project import ROOT


class Writer:
    def __init__(self, *notes: str, stages: tuple[StageRecord, ...] = ()) -> None:
        self.notes = list(notes)
        self.stages = list(stages)


class Course:
    refused: str | None = None
    worker_names: dict[int, str] = {0: "a", 1: "b"}  # noqa: RUF012

    def __init__(self, writer: Writer | None = None) -> None:
        self.writer = writer


def said(writer: Writer | None = None, seen: Seen | None = None, client: StageRecord | None = None) -> Any:
    course: Any = Course(writer)
    return [(each["level"], each["text"]) for each in banners(course, seen or Seen(), client)]


def test_nothing_to_say() -> None:
    assert said() == said(Writer(), client=StageRecord(client_cpu_share_max=0.1, lag_p99_s=0.0001)) == []


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (RequestRecord(stamp_source="user"), "1 of 2 answers were stamped by the program, not by the kernel"),
        (RequestRecord(error_code="buffered"), "1 answers came all at once although a stream was asked for"),
        (
            RequestRecord(output_tokens_source="tokenizer"),
            "Output tokens of 1 answers were counted by the",
        ),
    ],
)
def test_what_the_rows_have_in_them(row: RequestRecord, words: str) -> None:
    seen = Seen()
    for each in (row, RequestRecord(stamp_source="kernel", output_tokens_source="server")):
        seen.add(each)
    ((_, text),) = said(seen=seen)
    assert text.startswith(words)


def test_a_client_that_is_strained_or_saturated_now_and_then() -> None:
    ((level, text),) = said(client=StageRecord(client_cpu_share_max=0.9, lag_p99_s=1.0))
    assert level == "bad"
    assert text.startswith("The client is saturated now (")
    stages = (
        StageRecord(stage=1, health="ok"),
        StageRecord(stage=2, health="strained", lag_p99_s=0.004),
        StageRecord(stage=3, health="saturated", lag_p99_s=1.0, client_cpu_share_max=0.9),
    )
    (worse, milder) = said(Writer(stages=stages))
    assert worse[0] == "bad"
    assert worse[1].startswith("In stage 3 the client was saturated (")
    assert milder[0] == "warn"
    assert milder[1].startswith("In stage 2 the client was strained (")


def test_a_client_that_is_disturbed_is_told_about_the_machine() -> None:
    late = StageRecord(client_cpu_share_max=0.016, lag_p99_s=0.03, lag_own_p99_s=0.001)
    ((level, text),) = said(client=late)
    assert level == "warn"
    assert text.startswith("The client is disturbed now (the client waited 0.0290 s for a CPU (p99)")
    assert "stop other programs" in text
    assert "--processes" not in text


def test_a_worker_that_is_gone_is_the_first_problem_until_it_is_back() -> None:
    lost = "worker 1 was lost in stage 2; 7 requests that it had not started went to the others"
    gone = "worker 11: at least 3 of the 9 requests that it had started were lost"
    saturated = StageRecord(client_cpu_share_max=0.9, lag_p99_s=1.0)
    found = said(Writer("worker 2 joined in stage 1", lost, gone), client=saturated)
    assert [level for level, _ in found] == ["bad", "bad", "bad", "warn"]
    assert found[0] == ("bad", lost.capitalize())
    assert found[1] == ("bad", gone.capitalize())
    back = said(Writer(lost, gone, "worker 1 was back in stage 2"))
    assert [level for level, _ in back] == ["bad", "warn", "warn"]
    assert back[0][1] == gone.capitalize()


# How a colour looks to those without the cones for red, for green, or for blue (Machado et al. 2009, severity 1), as
# matrices on linear RGB.
SEEN_BY = {
    "all": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
WEB = ROOT / "llm_users" / "web" / "assets"


def lab(rgb: list[float]) -> tuple[float, float, float]:
    """CIELAB of linear RGB (D65)."""
    r, g, b = (min(1.0, max(0.0, each)) for each in rgb)
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    fx, fy, fz = (each ** (1 / 3) if each > 0.008856 else 7.787 * each + 16 / 116 for each in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def linear(hex_colour: str) -> list[float]:
    parts = [int(hex_colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_of_a_chart_are_told_apart_by_everybody(theme: str) -> None:
    # 2.3 is what an eye just notices of two patches side by side; thin lines need more, and differ in dashes besides.
    blocks = re.findall(r"\{([^}]*--llm-p50[^}]*)\}", (WEB / "live.css").read_text())
    colours = dict(re.findall(r"--llm-(p50|p95|p99|tpot|paper): (#\w{6})", blocks[theme == "dark"]))
    paper = linear(colours.pop("paper"))
    assert set(colours) == {"p50", "p95", "p99", "tpot"}
    for eyes, matrix in SEEN_BY.items():
        seen = {
            name: lab([sum(a * b for a, b in zip(row, linear(code), strict=True)) for row in matrix])
            for name, code in colours.items()
        }
        for one, other in combinations(seen, 2):
            apart = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
            assert apart > 15, (theme, eyes, one, other, round(apart))
    for name, code in colours.items():
        lights = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (linear(code), paper))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 3, f"{name} is too pale on the {theme} paper"
