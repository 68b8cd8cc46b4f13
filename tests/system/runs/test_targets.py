"""Several models in one run: how they share the users, and their figures, against the simulators' own logs."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from llm_users.simulator.launch import launch
from tests.system.locust_runs import Locust

USERS = 4
TOKENS = 20


def test_log_and_report_say_how_many_users_each_model_had(locust: Locust, tmp_path: Path) -> None:
    """Large takes three times as long as small and gets a third of its requests: each model has half of the users."""
    logs = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    with (
        launch("ttft=100ms,itl=5ms", log=logs[0], max_seconds=120) as small,
        launch("ttft=300ms,itl=15ms", log=logs[1], max_seconds=120) as large,
    ):
        done = locust.run("--llm-targets", f"small@{small.url}=3,large@{large.url}=1", "--llm-sweep", f"2,{USERS}",
                          "--llm-requests", "48", "--llm-warmup", "0", "--llm-output-tokens", f"{TOKENS},0",
                          "--llm-report")  # fmt: skip
    assert done.code == 0, done.err
    for text in (done.err, done.out.replace("\n  ", " ")):
        found = re.search(rf"of {USERS} users, large had (\d\.\d) and small (\d\.\d) on average", text) or re.search(
            rf"of {USERS} users, small had (\d\.\d) and large (\d\.\d) on average", text
        )
        assert found is not None, text
        assert [float(number) for number in found.groups()] == pytest.approx([USERS / 2, USERS / 2], abs=0.3)

    # Each model has the gaps that its server sent, and its own line in the table of gaps.
    report = (done.prefix.parent / f"{done.prefix.name}_report" / "report.html").read_text()
    table = report[report.index('id="gaps-table"') :]
    table = table[: table.index("</table>")]
    for name, log in zip(("small", "large"), logs, strict=True):
        sent = [entry["sent_ns"] for entry in map(json.loads, log.read_text().splitlines())]
        gaps_ms = sorted((after - before) / 1e6 for times in sent for before, after in pairwise(times))
        rows = [row for row in done.rows("gaps") if row["model"] == name]
        assert sum(int(row["count"]) for row in rows) == len(gaps_ms)
        by_size = sorted(rows, key=lambda row: float(row["lower_s"]))
        counts = [float(row["lower_s"]) * 1e3 for row in by_size for _ in range(int(row["count"]))]
        assert counts[len(counts) // 2] == pytest.approx(gaps_ms[len(gaps_ms) // 2], abs=0.5)
        assert len(re.findall(rf">{name} concurrency (?:2|{USERS})<", table)) == 2
