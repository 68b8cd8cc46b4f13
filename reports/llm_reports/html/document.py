"""The frame of every report page: one file that works without a network, with its head, styles and scripts.

A content security policy forbids all requests and all scripts except the page's own, so that a message from a server
has no effect even if it is not escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from llm_reports.charts.assets import REPORT_SCRIPTS, REPORT_STYLES, asset
from llm_reports.charts.figures import Figures, as_json
from llm_reports.html.elements import Markup, element, escaped, joined, listed

_UNSCRIPTED = "A script draws the figures, but scripts do not run here. All tables are complete without it."


def document(title: str, body: Markup, figures: Figures | None = None) -> str:
    """Return the page as text; it contains a script only if there are figures to draw."""
    style = "\n".join(asset(name) for name in REPORT_STYLES)
    script = "\n".join(asset(name) for name in REPORT_SCRIPTS) if figures is not None else ""
    drawing = ""
    if figures is not None:
        drawing = f"""<script type="application/json" id="llm-data">{as_json(figures)}</script>
<script>{script}</script>
"""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body class="llm">
<main class="page">
{body}
</main>
{drawing}</body>
</html>
"""


def top(title: str, parts: Mapping[str, str]) -> Markup:
    """Return the head of a page: its title, buttons, and links to its sections."""
    buttons = Markup(
        '<div><button type="button" id="theme">Dark</button> <button type="button" id="print">Print</button></div>'
    )
    links = (element("a", label, href=f"#{name}") for name, label in parts.items())
    return joined(
        [
            element("div", joined([element("h1", title), buttons]), class_="top"),
            element("nav", listed(links, class_=""), aria_label="Sections"),
            element("p", _UNSCRIPTED, id="unscripted"),
        ]
    )


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    allowed = f"script-src 'sha256-{digest}'; " if script else ""
    return f"default-src 'none'; {allowed}style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
