"""The addresses of the LLM tab in Locust's web interface, under its base path and behind its login."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import msgspec
from flask import Response, request

from llm_users.web.downloads import Downloads
from llm_users.web.form import prepare_form
from llm_users.web.html_section import with_section
from llm_users.web.run_view import Course
from llm_users.web.start_form import Starting
from llm_users.web.state import LiveState, Surroundings


class LiveTab:
    """The objects of the tab in a process: the state of the run, its routes, its downloads."""

    def __init__(
        self, environment: Any, coordinator: Course, objectives: Callable[[str], list[dict[str, Any]]]
    ) -> None:
        runner = environment.runner
        around = Surroundings(
            state=lambda: str(runner.state),
            host=lambda: environment.host,
            objectives=objectives,
        )
        self.state = LiveState(coordinator, around)
        self.downloads = Downloads(self.state)
        environment.events.reset_stats.add_listener(lambda **_: self.state.forget_samples())
        self._add_routes(environment.web_ui)
        environment.web_ui.app.after_request(Starting(runner).corrected)
        self.state.start()

    def close(self) -> None:
        """Stop the state updates and delete the downloads."""
        self.state.stop()
        self.downloads.close()

    def _add_routes(self, web_ui: Any) -> None:
        def state_json() -> Response:
            since = request.args.get("since", "")
            seq = int(since) if since.isdecimal() and len(since) < 17 else None
            state = self.state.json(request.args.get("run") or None, seq)
            state["downloads"] = self.downloads.offered()
            response = Response(msgspec.json.encode(state), mimetype="application/json")
            response.headers["Cache-Control"] = "no-store"
            return response

        def download(kind: str) -> Response:
            return self.downloads.response(kind)

        def with_llm_section(response: Response) -> Response:
            if request.endpoint == "locust.stats_report" and response.status_code == 200:
                response.set_data(with_section(response.get_data(as_text=True), self.downloads.section()))
            return response

        web_ui.app.after_request(with_llm_section)
        prepare_form(web_ui)

        base = base_path(web_ui)
        for rule, view in (("/llm/state.json", state_json), ("/llm/download/<kind>", download)):
            web_ui.app.add_url_rule(base + rule, f"llm_{view.__name__}", web_ui.auth_required_if_enabled(view))


def base_path(web_ui: Any) -> str:
    """Return ``--web-base-path`` as a prefix of routes: "" or "/path"."""
    prefix: str | None = web_ui.app.blueprints["locust"].url_prefix
    return (prefix or "").rstrip("/")


def install(environment: Any, coordinator: Course, objectives: Callable[[str], list[dict[str, Any]]]) -> LiveTab:
    """Add the LLM tab to the environment's web interface. Call this function before it serves its first page."""
    tab = LiveTab(environment, coordinator, objectives)
    if importlib.util.find_spec("llm_users.web.page") is not None:
        importlib.import_module("llm_users.web.page").install(environment.web_ui)
    return tab
