"""Checks a start from the web form before Locust handles it: cleans and validates the form.

The checks run after Locust has matched the route and checked the login, so a request that Locust rejects has no effect.
"""

from __future__ import annotations

import contextlib
import os
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from flask import request
from locust.runners import STATE_RUNNING, STATE_SPAWNING
from werkzeug.datastructures import ImmutableMultiDict

from llm_users.load.coordinator.locust_users import SweepShape
from llm_users.options import parsers
from llm_users.options.parsers import OptionError
from llm_users.options.table import PREFIX, READS_LOCAL, STAGING, Options
from llm_users.secrets import redact
from llm_users.transport import endpoint
from llm_users.web.protection import SWARM, UPDATE_USER, Protection, origin_of
from llm_users.web.start_form import unmasked

_SAFE_WAYS = "add --web-login, or make the page local with --web-host 127.0.0.1"


class WebStart:
    """The checks of one web interface. Create it once, before the web interface serves its first request.

    ``options`` are the options with which the process started. ``check_options`` raises ``OptionError`` if a run cannot
    start with the given options of Locust.
    """

    def __init__(
        self,
        environment: Any,
        options: Options,
        *,
        install_shape: Callable[..., None],
        check_options: Callable[[Any], None],
    ) -> None:
        self._environment = environment
        self._install_shape = install_shape
        self._check_options = check_options
        parsed = environment.parsed_options
        self._protection = Protection(environment.web_ui, options.web_origin)
        self._protection.install()
        self._protection.before(SWARM, self._prepare)
        self._protection.before(UPDATE_USER, self._check_user)
        # The origins of the endpoints that the command line, the environment and the locustfile name.
        urls = [environment.host, *(user_class.host for user_class in environment.user_classes)]
        urls += [os.environ.get(getattr(c, "host_variable", ""), "") for c in environment.user_classes]
        urls += [target.url for target in options.targets]
        self._named = {origin_of(url) for url in urls if url}
        values = {name: getattr(parsed, name, None) for name in READS_LOCAL}
        self._local_values = {
            name: ",".join(map(str, value)) if isinstance(value, list) else str(value or "")
            for name, value in values.items()
        }
        self.withholds_keys = False
        """Whether the run goes to an endpoint that must not receive keys, because an exposed page named it."""

    def _prepare(self) -> str | None:
        """Clean the form. Return the reason for a rejection of the start, or None."""
        request.form = unmasked(request.form, self._environment.parsed_options)
        if request.form.get("host"):
            # Locust shows the host and sends it to workers unchanged.
            try:
                host = endpoint.clean_url(request.form["host"])
            except ValueError as error:
                return f"the host is not a URL ({error}); write for example https://HOST/v1"
            if (problem := endpoint.check_url(host)) is not None:
                return redact(f"the host {host}: {problem}")
            fields = {**request.form.to_dict(flat=False), "host": [host]}
            request.form = ImmutableMultiDict([(key, text) for key, values in fields.items() for text in values])
        if self._protection.exposed and (reason := self._local_value_problem()):
            return reason
        if "llm_sweep" in request.form and (reason := self._option_problem()):
            return reason
        self.withholds_keys = self._protection.exposed and not self._typed_origins() <= self._named
        if "llm_sweep" in request.form:
            staged = any(request.form.get(name) for name in STAGING)
            runner = self._environment.runner
            # Locust would change a running test instead of starting a new one.
            is_running = runner.shape_greenlet is not None or runner.state in (STATE_SPAWNING, STATE_RUNNING)
            if is_running and staged != isinstance(self._environment.shape_class, SweepShape):
                return "a test is running; stop it before you start one with (or without) a sweep"
            self._install_shape(staged=staged)
        return None

    def _option_problem(self) -> str | None:
        """Return why a run cannot start with the options of the form, or None. The form keeps what the user typed."""
        posted: dict[str, Any] = {
            name: ",".join(request.form.getlist(name)) for name in request.form if name.startswith(PREFIX)
        }
        posted["host"] = request.form.get("host", "")
        if (count := request.form.get("user_count", "")).isdecimal():
            posted["num_users"] = int(count)
        try:
            self._check_options(Namespace(**{**vars(self._environment.parsed_options), **posted}))
        except OptionError as error:
            return redact(str(error))
        return None

    def _check_user(self) -> str | None:
        """Return why a change of a user class is rejected, or None.

        A change could send the keys of a running test elsewhere.
        """
        settings = request.get_json(force=True, silent=True) or {}
        host = settings.get("host") if isinstance(settings, dict) else None
        if self._protection.exposed and host and origin_of(str(host)) not in self._named:
            return (
                "the host of a user class cannot be changed to an endpoint that was not named at the start, because "
                f"this page is open to the network without a login. Name it with --host, {_SAFE_WAYS}."
            )
        return None

    def _local_value_problem(self) -> str | None:
        """Return why a posted value of an option that reads files or environment variables is rejected, or None."""
        for name, at_start in self._local_values.items():
            posted = ",".join(value for value in request.form.getlist(name) if value)
            if name in request.form and posted != at_start:
                flag = "--" + name.replace("_", "-")
                return (
                    f"{flag} reads files or environment variables of this machine, and this page is open to the "
                    f"network without a login. Give {flag} on the command line, {_SAFE_WAYS}."
                )
        return None

    def _typed_origins(self) -> set[Any]:
        """Return the origins of the endpoints that the posted form names."""
        urls = [request.form.get("host", "")]
        if targets := request.form.get("llm_targets", ""):
            with contextlib.suppress(OptionError):  # the start itself reports the error
                urls += [target.url or "" for target in parsers.targets(targets)]
        return {origin_of(url) for url in urls if url}
