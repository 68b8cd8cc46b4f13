"""AWS's JavaScript packages, installed once per session into a folder of their own, as the lock file has them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Any], Any]:
    """Call it with a script of this folder and what its input shall be, JSON both ways."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are needed to ask AWS's JavaScript packages; install Node.js 20 or newer")
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "package-lock.json", "codec.mjs", "sdk.mjs"):
        shutil.copy(HERE / name, folder)
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, f"npm ci failed: {done.stderr[-2000:]}"

    def run(script: str, what: Any) -> Any:
        done = subprocess.run(
            [node, folder / script],
            cwd=folder,
            input=json.dumps(what),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=False,
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return run
