"""The script that prints the size of an installation counts what is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.project import ROOT


def add_distribution(packages: Path, name: str, megabytes: int, *requirements: str) -> None:
    """What an installer leaves of a package: its files, its metadata, and the list of both."""
    info = packages / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    requires = "".join(f"Requires-Dist: {requirement}\n" for requirement in requirements)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}")
    (packages / f"{name}.bin").write_bytes(b"\1" * megabytes * 1_000_000)
    (info / "RECORD").write_text(f"{name}.bin,,\n{info.name}/METADATA,,\nremoved.py,,\n")


def test_the_script_prints_each_large_distribution_and_what_requires_it(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    add_distribution(packages, "locust-llm", 2, "large>=1", 'for-tests; extra == "dev"', "socket-library[client]")
    add_distribution(packages, "large", 5, "small")
    add_distribution(packages, "small", 0)
    add_distribution(packages, "socket-library", 0, 'client-library; extra == "client"', "small; python_version < '3'")
    add_distribution(packages, "client-library", 1)
    add_distribution(packages, "pip", 9)
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.deploy.installation_size", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["5", "distributions,", "8", "MB"],
        [],
        ["MB", "distribution", "required", "by"],
        ["5.0", "large", "locust-llm"],
        ["2.0", "locust-llm"],
        ["1.0", "client-library", "socket-library"],
    ]
