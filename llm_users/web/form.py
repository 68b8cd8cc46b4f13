"""Locust's start form: options in the order of the table, with the values of the last start and without secrets.

By default, Locust fills the form from the command line each time, so a reload would lose edits.
"""

from __future__ import annotations

from typing import Any

from werkzeug.datastructures import ImmutableMultiDict

from llm_users.secrets import mask_option

_OURS = "llm_"


def prepare_form(web_ui: Any) -> None:
    """Show the options of the extension in the form in the order of the table, with their current values."""
    # By default, Jinja sorts the keys of JSON in a page, which would sort the options by name.
    policies = web_ui.app.jinja_env.policies
    policies["json.dumps_kwargs"] = {**policies["json.dumps_kwargs"], "sort_keys": False}
    update = web_ui.update_template_args

    def update_and_keep() -> None:
        update()
        parsed = web_ui.environment.parsed_options
        for name, option in (web_ui.template_args.get("extra_options") or {}).items():
            if name.startswith(_OURS):
                option["default_value"] = mask_option(getattr(parsed, name, option.get("default_value")))

    web_ui.update_template_args = update_and_keep


def unmasked(form: Any, parsed: Any) -> Any:
    """Return the form with original values in place of masked ones that the user left unchanged."""
    changed = {}
    for name in form:
        current = getattr(parsed, name, None) if name.startswith(_OURS) else None
        text = _joined(current)
        if isinstance(text, str) and form[name] == _joined(mask_option(current)) != text:
            changed[name] = text
    if not changed:
        return form
    kept = {**form.to_dict(flat=False), **{name: [text] for name, text in changed.items()}}
    return ImmutableMultiDict([(name, value) for name, values in kept.items() for value in values])


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value
