"""Writing the files of a report into a folder, which is made when it is not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llm_reports.errors import InputError


def write_files(files: Mapping[str, str | bytes], folder: Path) -> list[Path]:
    """Write files by name and content; returns their paths, raises ``InputError`` when one cannot be written."""
    written = []
    for name, content in files.items():
        if Path(name).name != name or name in ("", ".."):  # whatever a name was made of, it stays in the folder
            raise InputError(f"{name!r} is no name of a file: nothing is written outside of {folder}.")
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror or error}). Name a folder you may write to with --out."
            ) from error
        written.append(path)
    return written
