"""HTML elements that the project adds to Locust's pages: the LLM section in its report, the LLM tab in its start page.

This project renders the elements, so they are trusted.
"""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

_MARK = 'id="llm-section"'
_END = "</body>"


def inject(page: str, element: str) -> str:
    """Return the page with the element at the end of its body, or at its end if it has no body tag."""
    head, end, rest = page.rpartition(_END)
    return f"{head}{element}{end}{rest}" if end else f"{page}{element}"


def with_section(page: str, section: str) -> str:
    """Return the page with the section at the end of its body, or unchanged if the page has a section already."""
    return page if _MARK in page or not section else inject(page, section)


def append_to_file(path: str, section: str, *, not_before: float) -> bool:
    """Add the section to the file that Locust wrote.

    Return False if Locust wrote no file since ``not_before`` (unix s).
    """
    file = Path(path)
    try:
        if file.stat().st_mtime < not_before:
            return False  # from an earlier run: Locust writes no file when it is terminated
        page = file.read_text(encoding="utf-8")
        part = file.with_name(file.name + ".part")
        part.write_text(with_section(page, section), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        logger.error("the LLM section could not be added to %s: %s", path, error.strerror or error)
        return False
    return True
