"""Locust's start form: options in the order of the table, with the values of the last start and without secrets.

Locust fills the form from the command line each time, so edits would be lost after a reload.
"""

from __future__ import annotations

from typing import Any

from werkzeug.datastructures import ImmutableMultiDict

from llm_users.secrets import mask_option

_OURS = "llm_"


def prepare_form(web_ui: Any) -> None:
    """Make the form show the options of the extension in their order, with their current values."""
    # Jinja sorts the keys of the JSON that it writes into a page by default, so the options by their names.
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
    """The form as it was meant: a value that came back masked, as it was shown, is the one that it stands for."""
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
