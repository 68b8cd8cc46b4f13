"""The LLM section in the report that Locust writes with ``--html``, and in the one that its web interface shows."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

_MARK = 'id="llm-section"'
_END = "</body>"


def with_section(page: str, section: str) -> str:
    """The page with the section as the last thing of its body; unchanged when it has one."""
    if _MARK in page or not section:
        return page
    head, end, rest = page.rpartition(_END)
    return f"{head}{section}{end}{rest}" if end else page + section


def append_to_file(path: str, section: str, *, not_before: float) -> bool:
    """Add the section to the file that Locust wrote; False when it did not write one since ``not_before`` (unix s)."""
    file = Path(path)
    try:
        if file.stat().st_mtime < not_before:
            return False  # of an earlier run: Locust writes none when it is terminated
        page = file.read_text(encoding="utf-8")
        part = file.with_name(file.name + ".part")
        part.write_text(with_section(page, section), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        logger.error("the LLM section could not be added to %s: %s", path, error.strerror or error)
        return False
    return True
