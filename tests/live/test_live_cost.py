"""The LLM tab of a master with four busy processes costs it little; ``python -m tests.live.cost`` says how little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.cost import BOUND

pytestmark = pytest.mark.slow


def test_page_json_and_merging_stay_below_three_percent_of_a_core() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.live.cost", "--seconds", "8", "--json"],
        capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["answers"] >= 4, "the page did ask"
    assert found["beat_bytes"] < 50_000
    assert found["answer_bytes"] < 20_000
    assert found["master_share"] < BOUND
