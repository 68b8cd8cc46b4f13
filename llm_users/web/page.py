"""The page of the LLM tab: its files, its stand-alone page, and their integration into Locust's web interface.

This module does not depend on runs: the page itself requests the figures (``state.json``).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, abort, request

from llm_users.run_files import REPORT_HTML, SUMMARY_CSV
from llm_users.web.html_section import inject

TITLE = "LLM"
KEY = "llm"
"""The tab's name in addresses: ``?tab=llm``."""

# The package that contains a file. The charts come from the report package, which this module reads as package data.
_OWN, _CHARTS = "llm_users.web", "llm_reports.charts"
STYLES = {"uPlot.min.css": _CHARTS, "charts.css": _CHARTS, "live.css": _OWN}
SCRIPTS = {
    "uPlot.iife.min.js": _CHARTS,
    "chart_marks.js": _CHARTS,
    "chart_paint.js": _CHARTS,
    "charts.js": _CHARTS,
    "live_dom.js": _OWN,
    "live_history.js": _OWN,
    "live_poll.js": _OWN,
    "live_charts.js": _OWN,
    "live_parts.js": _OWN,
    "live.js": _OWN,
}
FILES = {**STYLES, **SCRIPTS, "tab.js": _OWN, "alone.js": _OWN, "alone.css": _OWN}
"""All files that are served, in the order in which pages load them."""

DOWNLOADS = (
    ("rows.csv", "Download LLM requests CSV"),
    ("stages.csv", "Download LLM stages CSV"),
    (SUMMARY_CSV, "Download LLM percentiles CSV"),
    (REPORT_HTML, "Download LLM report"),
)
"""Additions to Locust's own list of downloads. Without a run, the addresses answer 404 with the reason."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def install(web_ui: Any) -> None:
    """Add the tab, its files and ``/llm`` to Locust's web interface, under its base path and behind its login.

    Call this function once, at ``init``, before the web interface serves its first request.
    """
    app = web_ui.app
    blueprint = Blueprint("llm_page", __name__, url_prefix=app.blueprints["locust"].url_prefix)

    def alone() -> Response:
        response = Response(alone_page(), mimetype="text/html")
        response.headers["Content-Security-Policy"] = _POLICY
        return _fresh(response)

    def asset(name: str) -> Response:
        if name not in FILES:
            abort(404)
        return _fresh(Response(text_of(name), mimetype=_kind(name)))

    def with_tab(response: Response) -> Response:
        if request.endpoint == "locust.index" and response.status_code == 200 and response.mimetype == "text/html":
            response.set_data(inject(response.get_data(as_text=True), tab_tag()))
        return response

    blueprint.add_url_rule("/llm", view_func=web_ui.auth_required_if_enabled(alone))
    blueprint.add_url_rule("/llm/assets/<name>", view_func=web_ui.auth_required_if_enabled(asset))
    app.after_request(with_tab)
    app.register_blueprint(blueprint)
    _extend(web_ui.template_args, "extended_tabs", [{"title": TITLE, "key": KEY}])
    downloads = [{"href": f"./llm/download/{kind}", "title": title} for kind, title in DOWNLOADS]
    _extend(web_ui.template_args, "extended_csv_files", [*downloads, {"href": "./llm", "title": "LLM live view"}])


def alone_page() -> str:
    """Return the HTML of the stand-alone page. All addresses in it are relative to Locust's root."""
    styles = "\n    ".join(f'<link rel="stylesheet" href="llm/assets/{name}" />' for name in [*STYLES, "alone.css"])
    names = [*SCRIPTS, "alone.js"]
    scripts = "\n    ".join(f'<script src="llm/assets/{name}"></script>' for name in names)
    page = _read(_OWN, "alone.html")
    return page.replace("<!-- styles -->", styles).replace("<!-- scripts -->", scripts)


def tab_tag() -> str:
    """Return the element that loads the tab's content into Locust's page.

    Its addresses are relative, as in Locust's page.
    """
    return (
        f'<script defer src="llm/assets/tab.js" data-title="{TITLE}" data-styles="{" ".join(STYLES)}" '
        f'data-scripts="{" ".join(SCRIPTS)}"></script>'
    )


def text_of(name: str) -> str:
    """Return the text of one of ``FILES``."""
    return _read(FILES[name], name)


@cache
def _read(package: str, name: str) -> str:
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


def _kind(name: str) -> str:
    return "text/css" if name.endswith(".css") else "text/javascript"


def _fresh(response: Response) -> Response:
    """Make the browser validate the file on each request, so that a new version never runs with old scripts."""
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.add_etag()
    response.make_conditional(request)
    return response


def _extend(template_args: dict[str, Any], name: str, more: list[dict[str, str]]) -> None:
    """Add entries to a list that a locustfile may have created."""
    template_args[name] = [*(template_args.get(name) or []), *more]
