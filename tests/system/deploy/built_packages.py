"""Builds the sdist of this checkout, and the wheel from the sdist, without the network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.project import ROOT

NOT_PACKAGED = shutil.ignore_patterns(".git", ".venv", "out", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
# Without build isolation, which needs the network: setuptools is there already.
_BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_{kind}(sys.argv[1]))"


def build_sdist(folder: Path) -> Path:
    """Build the sdist from a copy of the checkout, so that the checkout stays as it is."""
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=NOT_PACKAGED)
    return _build("sdist", tree, folder)


def build_wheel(sdist: Path, folder: Path) -> Path:
    """Build the wheel from the sdist, which therefore must carry everything."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return _build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)


def _build(kind: str, source: Path, folder: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", _BUILD.format(kind=kind), str(folder)],
        cwd=source, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]
