"""The addresses of the LLM tab in Locust's web interface, under its base path and behind its login.

The page itself requests its figures (``state.json``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import msgspec
from flask import Blueprint, Response, abort, request

from llm_users.load.protocol.messages import Live
from llm_users.run_files import REPORT_HTML, SUMMARY_CSV
from llm_users.web.downloads import Downloads
from llm_users.web.html_section import inject, with_section
from llm_users.web.prometheus import PrometheusMetrics
from llm_users.web.server_lines import ServerSamples
from llm_users.web.start_form import Starting, form_groups, prepare_form
from llm_users.web.state import Course, LiveState

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
FILES = {
    **STYLES,
    **SCRIPTS,
    "tab.js": _OWN,
    "form.js": _OWN,
    "form.css": _OWN,
    "alone.js": _OWN,
    "alone.css": _OWN,
}
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


class LiveTab:
    """The objects of the tab in a process: the state of the run, its metrics, its routes, its downloads.

    Create it once, at ``init``, before the web interface serves its first request.
    """

    def __init__(
        self,
        environment: Any,
        coordinator: Course,
        objectives: Callable[[str], list[dict[str, Any]]],
        search: Callable[[], dict[str, Any] | None],
        servers: ServerSamples | None = None,
    ) -> None:
        self.state = LiveState(coordinator, environment, objectives, search, servers)
        self.metrics = PrometheusMetrics(coordinator, environment, self.state)
        self.downloads = Downloads(self.state)
        environment.events.reset_stats.add_listener(lambda **_: self.state.forget_samples())
        self._add_routes(environment.web_ui)
        environment.web_ui.app.after_request(Starting(environment.runner).corrected)
        self.state.start()

    def on_live(self, message: Live) -> None:
        """Add the live metrics of a worker of the present run."""
        self.state.on_live(message)
        self.metrics.on_live(message)

    def close(self) -> None:
        """Stop the state updates and delete the downloads."""
        self.state.stop()
        self.downloads.close()

    def _add_routes(self, web_ui: Any) -> None:
        """Add the tab, its files, its figures and ``/llm`` to Locust's web interface."""
        app = web_ui.app
        blueprint = Blueprint("llm_tab", __name__, url_prefix=app.blueprints["locust"].url_prefix)

        def state_json() -> Response:
            since = request.args.get("since", "")
            seq = int(since) if since.isdecimal() and len(since) < 17 else None
            state = self.state.json(request.args.get("run") or None, seq)
            state["downloads"] = self.downloads.offered()
            response = Response(msgspec.json.encode(state), mimetype="application/json")
            response.headers["Cache-Control"] = "no-store"
            return response

        def alone() -> Response:
            response = Response(alone_page(), mimetype="text/html")
            response.headers["Content-Security-Policy"] = _POLICY
            return _fresh(response)

        def prometheus() -> Response:
            body, content_type = self.metrics.page(request.headers.get("Accept", ""))
            response = Response(body, content_type=content_type)
            response.headers["Cache-Control"] = "no-store"
            return response

        def asset(name: str) -> Response:
            if name not in FILES:
                abort(404)
            kind = "text/css" if name.endswith(".css") else "text/javascript"
            return _fresh(Response(_read(FILES[name], name), mimetype=kind))

        def extended(response: Response) -> Response:
            """Add the tab to Locust's page, and the LLM section to its report."""
            if response.status_code == 200 and response.mimetype == "text/html":
                if request.endpoint == "locust.index":
                    response.set_data(inject(response.get_data(as_text=True), form_tags() + tab_tag()))
                elif request.endpoint == "locust.stats_report":
                    response.set_data(with_section(response.get_data(as_text=True), self.downloads.section()))
            return response

        views: dict[str, Callable[..., Response]] = {
            "/llm": alone,
            "/llm/assets/<name>": asset,
            "/llm/state.json": state_json,
            "/llm/metrics": prometheus,
            "/llm/download/<kind>": self.downloads.response,
        }
        for rule, view in views.items():
            blueprint.add_url_rule(rule, view_func=web_ui.auth_required_if_enabled(view))
        app.register_blueprint(blueprint)
        app.after_request(extended)
        prepare_form(web_ui)
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


def form_tags() -> str:
    """Return the elements that group the options of the extension in Locust's start form."""
    groups = escape(msgspec.json.encode(form_groups()).decode())
    return (
        '<link rel="stylesheet" href="llm/assets/form.css" />'
        f'<script defer src="llm/assets/form.js" data-groups="{groups}"></script>'
    )


def tab_tag() -> str:
    """Return the element that loads the tab's content into Locust's page.

    Its addresses are relative, as in Locust's page.
    """
    return (
        f'<script defer src="llm/assets/tab.js" data-title="{TITLE}" data-styles="{" ".join(STYLES)}" '
        f'data-scripts="{" ".join(SCRIPTS)}"></script>'
    )


@cache
def _read(package: str, name: str) -> str:
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


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
