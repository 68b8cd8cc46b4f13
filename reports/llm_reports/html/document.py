"""The frame of every page that reports write: one file that needs no network, its head, its styles and scripts.

A page forbids itself every request and every script but its own by a content security policy, so that a message from a
server could do nothing even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from llm_reports.charts.assets import REPORT_SCRIPTS, REPORT_STYLES, asset
from llm_reports.charts.figures import Figures, as_json
from llm_reports.html.elements import Markup, element, escaped, joined, listed

_UNSCRIPTED = "Figures are drawn by a script, which does not run here. All tables are complete without it."


def document(title: str, body: Markup, made: Figures | None = None) -> str:
    """The page as text; with figures it has the script that draws them, without it has none."""
    style = "\n".join(asset(name) for name in REPORT_STYLES)
    script = "\n".join(asset(name) for name in REPORT_SCRIPTS) if made is not None else ""
    drawing = ""
    if made is not None:
        drawing = f"""<script type="application/json" id="llm-data">{as_json(made)}</script>
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
    """The head of a page: its title, buttons, and links to its sections."""
    buttons = Markup(
        '<div><button type="button" id="theme">Dark</button> <button type="button" id="print">Print</button></div>'
    )
    links = (element("a", name_of_part, href=f"#{name}") for name, name_of_part in parts.items())
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
