"""Prints the size of an installation: its distributions, their megabytes on the disk, and what requires each.

    python -m tests.system.deploy.installation_size [ENVIRONMENT]

Without ENVIRONMENT, it installs this checkout into a new environment, with the versions of constraints.txt.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path

from tests.project import ROOT
from tests.requirement_graph import distributions, required_by
from tests.system.deploy.built_packages import build_sdist, build_wheel

OF_THE_ENVIRONMENT = {"pip", "setuptools"}
"""The distributions that venv itself installs: setuptools up to Python 3.11."""
LEAST_MB = 1.0
"""Smaller distributions are counted and have no line."""


@dataclass(frozen=True)
class Installed:
    """One distribution of an installation."""

    name: str
    megabytes: float
    required_by: tuple[str, ...]


def install(what: str | Path, folder: Path, python: str | Path = sys.executable) -> Path:
    """Install something from the package index into a new environment, and return the environment's Python."""
    _run(python, "-m", "venv", folder)
    inner = folder / "bin" / "python"
    _run(inner, "-m", "pip", "install", "-qq", "--constraint", ROOT / "constraints.txt", what)
    return inner


def measure(environment: Path) -> list[Installed]:
    """Return what is installed in an environment, without pip and setuptools; the largest is first."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    found = distributions(str(packages))
    needed_by = required_by(["locust-llm"], found)
    installed = [
        Installed(name, _bytes_of(distribution) / 1e6, tuple(sorted(needed_by.get(name, ()))))
        for name, distribution in found.items()
        if name not in OF_THE_ENVIRONMENT
    ]
    return sorted(installed, key=lambda distribution: distribution.megabytes, reverse=True)


def report(installed: list[Installed]) -> str:
    """Return the sum, and a line for each distribution that is not small."""
    megabytes = sum(each.megabytes for each in installed)
    lines = [f"{len(installed)} distributions, {megabytes:.0f} MB", "", f"{'MB':>6}  {'distribution':20}  required by"]
    lines += [
        f"{each.megabytes:6.1f}  {each.name:20}  {', '.join(each.required_by)}"
        for each in installed
        if each.megabytes >= LEAST_MB
    ]
    return "\n".join(lines)


def _bytes_of(distribution: Distribution) -> int:
    """The blocks of the files, compiled modules included."""
    files = {Path(str(file.locate())) for file in distribution.files or ()}
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("environment", nargs="?", type=Path, metavar="ENVIRONMENT")
    environment = parser.parse_args().environment
    if environment:
        print(report(measure(environment)))
        return
    with tempfile.TemporaryDirectory() as folder:
        built, installed = Path(folder, "built"), Path(folder, "installed")
        install(build_wheel(build_sdist(built), built), installed)
        print(report(measure(installed)))


if __name__ == "__main__":
    main()
