"""The locustfile with an image on the page of recipes, run with an image that exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.project import ROOT

PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def test_the_locustfile_with_an_image_runs(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "described.py").write_text(block)
    (tmp_path / "cat.png").write_bytes(PNG)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("locust"), "-f", "described.py", "--headless", "--only-summary", "-u", "1",
            "--llm-requests", "2", "--llm-simulator", "ttft=5ms,itl=1ms", "--csv", "out/run",
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "OPENAI_"))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "run_llm_requests.csv").read_text().count("\n") >= 3
