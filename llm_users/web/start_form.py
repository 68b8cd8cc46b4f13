"""Locust's start form: the options of the extension in it, and the change from the form to the page of a running test.

The form shows the options in their groups. ``assets/form.js`` adds the headings and hides the rarely used options. By
default, Locust fills the form from the command line each time, so a reload would lose edits. The page returns to the
form when it reads the state "ready" after a start. Locust reports "ready" until it spawns users, and for about two
seconds more, because it caches its answer. On a busy machine the page reads that answer and shows the form although the
test runs. This module does not depend on runs.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from flask import Response, request
from werkzeug.datastructures import ImmutableMultiDict

from llm_users.options.table import GROUPS, OPTIONS, PREFIX
from llm_users.secrets import mask_option

_LONGEST_S = 15.0
"""Maximum duration of a start. After this time the module no longer corrects "ready"."""

_READY, _SPAWNING = "ready", "spawning"


def form_groups() -> list[dict[str, Any]]:
    """Return the groups of the form: the title of each group, and its options, the common ones first."""
    groups = []
    for title in GROUPS:
        options = sorted((option for option in OPTIONS if option.group == title), key=lambda option: not option.common)
        fields = [
            {
                "name": option.dest,
                "details": option.details,
                "default": option.default or "",
                "common": option.common,
            }
            for option in options
        ]
        groups.append({"title": f"LLM: {title}", "options": fields})
    return groups


def prepare_form(web_ui: Any) -> None:
    """Show the options of the extension in the form by group, the common ones first, with their current values."""
    order = [option["name"] for group in form_groups() for option in group["options"]]
    # By default, Jinja sorts the keys of JSON in a page, which would sort the options by name.
    policies = web_ui.app.jinja_env.policies
    policies["json.dumps_kwargs"] = {**policies["json.dumps_kwargs"], "sort_keys": False}
    update = web_ui.update_template_args

    def update_and_keep() -> None:
        update()
        parsed = web_ui.environment.parsed_options
        options = web_ui.template_args.get("extra_options") or {}
        for name, option in options.items():
            if name.startswith(PREFIX):
                option["default_value"] = mask_option(getattr(parsed, name, option.get("default_value")))
        # The options of the locustfile come first: behind a group they would look like a part of it.
        ours = {name: options[name] for name in order if name in options}
        others = {name: option for name, option in options.items() if name not in ours}
        web_ui.template_args["extra_options"] = {**others, **ours}

    web_ui.update_template_args = update_and_keep


def unmasked(form: Any, parsed: Any) -> Any:
    """Return the form with original values in place of masked ones that the user left unchanged."""
    changed = {}
    for name in form:
        current = getattr(parsed, name, None) if name.startswith(PREFIX) else None
        text = _joined(current)
        if isinstance(text, str) and form[name] == _joined(mask_option(current)) != text:
            changed[name] = text
    if not changed:
        return form
    kept = {**form.to_dict(flat=False), **{name: [text] for name, text in changed.items()}}
    return ImmutableMultiDict([(name, value) for name, values in kept.items() for value in values])


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


class Starting:
    """Remembers when Locust accepted a start."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._accepted_s: float | None = None

    def corrected(self, response: Response) -> Response:
        """Correct the state in the figures for Locust's page (an ``after_request`` function)."""
        if response.status_code != 200 or request.endpoint not in ("locust.swarm", "locust.request_stats"):
            return response
        if request.endpoint == "locust.swarm":
            answer = response.get_json(silent=True) or {}
            self._accepted_s = time.monotonic() if answer.get("success") else None
            return response
        if self._accepted_s is None or time.monotonic() > self._accepted_s + _LONGEST_S:
            return response
        answer = response.get_json(silent=True) or {}
        if answer.get("state") != _READY:
            return response
        now = str(self._runner.state)
        answer["state"] = _SPAWNING if now == _READY else now
        # Return a new response and do not change this one, because Locust caches it.
        return Response(msgspec.json.encode(answer), mimetype="application/json")
