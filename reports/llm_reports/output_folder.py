"""Writing of the files of a report. A folder is created if it does not exist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llm_reports.errors import InputError


def write_files(files: Mapping[str, str | bytes], folder: Path) -> list[Path]:
    """Write files by name and content and return their paths; raises ``InputError`` when a file cannot be written."""
    written = []
    for name, content in files.items():
        if Path(name).name != name or name in ("", ".."):  # names come from data, but must stay inside the folder
            raise InputError(f"{name!r} is not a valid file name; files are only written inside {folder}.")
        written.append(write_file(folder / name, content, "Specify a writable folder with --out."))
    return written


def write_file(path: Path, content: str | bytes, advice: str, *, append: bool = False) -> Path:
    """Write a file, or append to it; raises ``InputError`` with the advice when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if append else "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}). {advice}") from error
    return path
