"""After a start Locust's page is never told "ready", or it would show the form while the test runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flask import Blueprint, Flask, Response, jsonify

from llm_users.web.start_form import Starting


def test_ready_is_not_said_after_an_accepted_start() -> None:
    runner = SimpleNamespace(state="ready")
    accepted = {"success": False}
    kept: list[Response] = []  # as Locust keeps its answers
    app, locust = Flask("test"), Blueprint("locust", "test")

    @locust.route("/swarm", methods=["POST"])
    def swarm() -> Any:
        return jsonify(accepted)

    @locust.route("/stats/requests")
    def request_stats() -> Any:
        if not kept:
            kept.append(jsonify({"state": "ready", "total_rps": 1.5}))
        return kept[0]

    app.register_blueprint(locust)
    app.after_request(Starting(runner).corrected)
    page = app.test_client()

    def told() -> Any:
        return page.get("/stats/requests").get_json()

    assert told() == {"state": "ready", "total_rps": 1.5}
    page.post("/swarm")
    assert told()["state"] == "ready", "a start that was refused"
    accepted["success"] = True
    page.post("/swarm")
    assert told() == {"state": "spawning", "total_rps": 1.5}
    runner.state = "running"
    assert told()["state"] == "running", "an answer that was kept from before"
