"""Adds an element to a finished HTML page. Knows nothing of Locust; what is added is trusted."""

from __future__ import annotations


def inject(html: str, element: str) -> str:
    """The page with the element at the end of its body, or at its very end when it has no such tag."""
    before, end, after = html.rpartition("</body>")
    return f"{before}{element}{end}{after}" if end else f"{html}{element}"
