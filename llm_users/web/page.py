"""The page of the LLM tab: its files, the page of its own, and the way of both into Locust's web interface.

Knows nothing of runs and figures: the page asks for those itself (``state.json``, served beside it).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, abort, request

from llm_users.web.html_section import inject

TITLE = "LLM"
KEY = "llm"
"""The tab's name in addresses: ``?tab=llm``."""

# Where a file is: the charts are those of the report, package data that is read, not code that is run.
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
"""Every file that is served, in the order in which pages load them; nothing else is."""

DOWNLOADS = (
    ("rows.csv", "Download LLM requests CSV"),
    ("stages.csv", "Download LLM stages CSV"),
    ("summary.csv", "Download LLM percentiles CSV"),
    ("report.html", "Download LLM report"),
)
"""What Locust's own list of downloads gets besides; without a run the address answers 404 with a sentence."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def install(web_ui: Any) -> None:
    """Give Locust's web interface the tab, its files and ``/llm``, under its base path and behind its login.

    Call once, at ``init``: before the web interface takes its first request.
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
    """The HTML of the page of its own; every address in it is relative to Locust's root."""
    styles = "\n    ".join(f'<link rel="stylesheet" href="llm/assets/{name}" />' for name in [*STYLES, "alone.css"])
    names = [*SCRIPTS, "alone.js"]
    scripts = "\n    ".join(f'<script src="llm/assets/{name}"></script>' for name in names)
    page = _read(_OWN, "alone.html")
    return page.replace("<!-- styles -->", styles).replace("<!-- scripts -->", scripts)


def tab_tag() -> str:
    """The element that brings the tab's content into Locust's page; relative, as Locust's own scripts are."""
    return (
        f'<script defer src="llm/assets/tab.js" data-title="{TITLE}" data-styles="{" ".join(STYLES)}" '
        f'data-scripts="{" ".join(SCRIPTS)}"></script>'
    )


def text_of(name: str) -> str:
    """The text of one of FILES."""
    return _read(FILES[name], name)


@cache
def _read(package: str, name: str) -> str:
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


def _kind(name: str) -> str:
    return "text/css" if name.endswith(".css") else "text/javascript"


def _fresh(response: Response) -> Response:
    """Asked for anew each time, sent again only when it changed: a new version must not meet old scripts."""
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.add_etag()
    response.make_conditional(request)
    return response


def _extend(template_args: dict[str, Any], name: str, more: list[dict[str, str]]) -> None:
    """Add to a list that a locustfile may have begun."""
    template_args[name] = [*(template_args.get(name) or []), *more]
