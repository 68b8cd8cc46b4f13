"""Writing of the files of a report to a folder, which is created if it does not exist."""

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
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror or error}). Specify a writable folder with --out."
            ) from error
        written.append(path)
    return written
