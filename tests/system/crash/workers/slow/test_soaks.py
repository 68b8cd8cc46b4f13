"""Long runs: memory that must not grow, and workers that die, leave, freeze and lose their network.

``make test-system SUITE=crash SLOW=1`` runs both; MINUTES sets their length, the default is 20 and 15 minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.project import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("module", "minutes"), [("soak", 20.0), ("churn", 15.0)])
def test_a_long_run_keeps_its_memory_and_its_rows(module: str, minutes: float) -> None:
    minutes = float(os.environ.get("MINUTES") or minutes)
    done = subprocess.run(
        [sys.executable, "-m", f"tests.system.crash.workers.{module}", "--minutes", str(minutes)],
        cwd=ROOT,
        timeout=60 * minutes + 600,
        check=False,
    )
    assert done.returncode == 0
