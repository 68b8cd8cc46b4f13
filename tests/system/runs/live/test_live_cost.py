"""The LLM tab costs a master with four busy workers little CPU; ``tests.system.runs.live.cost`` measures it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.project import ROOT
from tests.system.runs.live.cost import BOUND

pytestmark = pytest.mark.slow


def test_page_json_and_merging_stay_below_three_percent_of_a_core() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.runs.live.cost", "--seconds", "8", "--json"],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["answers"] >= 4, "the page did ask"
    assert found["live_metrics_bytes"] < 50_000
    assert found["answer_bytes"] < 20_000
    assert found["master_share"] < BOUND
