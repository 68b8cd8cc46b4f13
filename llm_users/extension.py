"""Connects the extension to Locust: options, listeners, messages, exit code. The first User class loads this module.

Only this module and ``wiring`` know both the coordinator side and the worker side of a run. ``load`` and ``collect``
implement the two sides.
"""

from __future__ import annotations

import argparse
import gc
import logging
from typing import Any
from weakref import WeakKeyDictionary

import gevent
import locust
from locust.env import Environment
from locust.event import EventHook
from locust.runners import MasterRunner, WorkerRunner

from llm_users import secrets
from llm_users.collect.files import check_prefix, move_aside
from llm_users.collect.prefix_lock import hold
from llm_users.options import command_line
from llm_users.options.parsers import OptionError
from llm_users.run_files import LOCUST_SUFFIXES
from llm_users.transport import endpoint
from llm_users.wiring.coordinator import CoordinatorRole
from llm_users.wiring.locust_csv import tolerate_full_disk
from llm_users.wiring.locust_delays import avoid_repeated_work, await_forked_workers, quit_when_workers_have_left
from llm_users.wiring.preload import import_sdks, load_before_fork, load_for_users
from llm_users.wiring.repeated_errors import RepeatedErrors
from llm_users.wiring.start_checks import StartChecks, check_port_numbers
from llm_users.wiring.tagged_tasks import drop_classes_without_tasks
from llm_users.wiring.telemetry import after_fork, check_installed, close_providers, prepare, start_tracing
from llm_users.wiring.worker import WorkerRole


def register(events: Any) -> None:
    """Register listeners on Locust's global events. Further calls have no effect."""
    if getattr(events, "_llm_users_registered", False):
        return
    events._llm_users_registered = True
    secrets.remember_environment()
    secrets.redact_logs()
    tolerate_full_disk()
    avoid_repeated_work()
    _add_events(events)
    events.init_command_line_parser.add_listener(_on_parser)
    events.init.add_listener(_on_init)
    # The SDK's HTTP layer logs one line per request, which would hide Locust's own output.
    for name in ("httpx2", "httpcore2"):
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)


_start_checks = StartChecks()
_WITHOUT_RUN = ("list_commands", "show_task_ratio", "show_task_ratio_json")
"""Options with which Locust only prints something."""


def _on_parser(parser: Any) -> None:
    command_line.add_options(parser)
    check_port_numbers(parser)
    # Locust creates the folder of --csv and prints a traceback if it cannot, so check the folder first.
    for action in parser._actions:
        if action.dest == "csv_prefix":
            action.type = _writable_prefix
    parse = parser.parse_args

    def parse_args(*args: Any, **kwargs: Any) -> Any:
        """Reject options that cannot be used, and move files of an earlier run with the ``--csv`` prefix aside.

        Locust has no event between the parsing of its options and the moment when it truncates its own ``--csv`` files
        and forks workers. Only after the parsing are the options of all listeners known.
        """
        parsed = parse(*args, **kwargs)
        command_line.refuse_unknown_variables(parser)
        prepare(parsed)
        runs = not any(getattr(parsed, name, None) for name in _WITHOUT_RUN)
        if runs:
            try:
                if not parsed.worker:
                    command_line.read_options(parsed)
                _start_checks.run(parsed)
            except OptionError as error:
                parser.error(str(error))
        if getattr(parsed, "processes", None):
            load_before_fork(parsed)
        if runs and not parsed.worker and parsed.csv_prefix:
            try:
                lock = hold(parsed.csv_prefix)
                if not lock.looked_for_locust:
                    lock.looked_for_locust = True
                    move_aside(parsed.csv_prefix, LOCUST_SUFFIXES)
            except OSError as error:
                parser.error(str(error))
        return parsed

    parser.parse_args = parse_args


def _writable_prefix(prefix: str) -> str:
    try:
        check_prefix(prefix)
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return prefix


def attach(environment: Environment) -> None:
    """Use the extension with Locust as a library. Call it before ``create_local_runner`` or a similar method.

    ``environment.parsed_options`` can be None (defaults) or hold the options as attributes (``llm_model`` ...).
    """
    _add_events(environment.events)
    environment.events.init.add_listener(_on_init)
    if environment.runner is not None:
        _on_init(environment)
        return
    # A program that uses Locust as a library creates the runner itself and does not fire ``init``.
    create = environment._create_runner

    def create_and_wire(*args: Any, **kwargs: Any) -> Any:
        runner = create(*args, **kwargs)
        _on_init(environment)
        return runner

    environment._create_runner = create_and_wire  # type: ignore[method-assign]


def _add_events(events: Any) -> None:
    """Add the extension's own events. docs/python-api.md describes their arguments."""
    for name in ("llm_first_token", "llm_token", "llm_request"):
        if not hasattr(events, name):
            setattr(events, name, EventHook())


_wired: WeakKeyDictionary[Any, Wiring] = WeakKeyDictionary()


def _on_init(environment: Any, **_kwargs: Any) -> None:
    if environment not in _wired:
        _wired[environment] = Wiring(environment)
    elif (role := _wired[environment].coordinating) is not None:
        role.show_in_web()  # a library program creates the web interface after the runner


def wiring_of(environment: Any) -> Wiring | None:
    """Return the extension's wiring of an environment, or None before it is initialized."""
    return _wired.get(environment)


class Wiring:
    """The extension's objects in one environment: the coordinator role, the worker role, or both."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        runner = environment.runner
        secrets.redact_logs()  # again: Locust has created its handlers by now
        secrets.redact_exceptions(runner)
        after_fork()
        check_installed(environment)
        self.coordinating: CoordinatorRole | None = None
        self.loading: WorkerRole | None = None
        self._repeated_errors = RepeatedErrors()
        self._repeated_errors.install()
        drop_classes_without_tasks(environment)
        if environment.host:
            environment.host = endpoint.clean_url(environment.host)
        for user_class in environment.user_classes:
            if user_class.host and hasattr(user_class, "prepare_process"):  # Locust's pages show the host
                user_class.host = endpoint.clean_url(user_class.host)
        if not isinstance(runner, WorkerRunner):
            self.coordinating = CoordinatorRole(environment)
        if not isinstance(runner, MasterRunner):
            role, tracing = self.coordinating, start_tracing(environment)
            self.loading = (
                WorkerRole(environment, role.keep, role.kept, lambda: role.coordinator.options, tracing)
                if role
                else WorkerRole(environment, tracing=tracing)
            )
        if self.coordinating is None:  # the options of a worker arrive with its first run
            import_sdks(environment.user_classes)
        elif self.loading is not None:
            tokenizer = getattr(environment.parsed_options, "llm_tokenizer", None)
            load_for_users(environment.user_classes, tokenizer=tokenizer)
        # Locust's --run-time begins now. gevent would count it from the loop's last iteration, which may be several
        # seconds ago because of the imports.
        gevent.get_hub().loop.update_now()
        hooks = environment.events
        hooks.test_start.add_listener(self._on_test_start)
        hooks.test_stopping.add_listener(self._on_test_stopping)
        hooks.quitting.add_listener(self._on_quitting)
        hooks.quit.add_listener(self._on_quit)
        if isinstance(runner, MasterRunner):
            quit_when_workers_have_left(runner)
            parsed = environment.parsed_options
            if getattr(parsed, "processes", None) and (parsed.headless or parsed.autostart):
                await_forked_workers(runner)
        if self.coordinating is not None:
            self.coordinating.started()

    def _on_test_start(self, **_kwargs: Any) -> None:
        role = self.coordinating
        if role is not None and not role.begin_run():
            role.stop_run()
        elif self.loading is not None:
            if role is None:
                drop_classes_without_tasks(self._environment)
            self.loading.process.on_test_start()

    def _on_test_stopping(self, **_kwargs: Any) -> None:
        if self.coordinating is not None:
            self.coordinating.finish()
        elif self.loading is not None:
            self.loading.abort()

    def _on_quitting(self, **_kwargs: Any) -> None:
        _start_checks.ends_in_order()
        self._repeated_errors.end()
        if self.coordinating is not None:
            self.coordinating.set_verdict()
        elif self.loading is not None:
            self.loading.abort()

    def _on_quit(self, **_kwargs: Any) -> None:
        # The process ends now. Without this, the interpreter looks for garbage among the modules, for 0.25 s.
        gc.freeze()
        if self.coordinating is not None:
            self.coordinating.close()
        elif self.loading is not None:
            self.loading.close()
        close_providers()
        gc.freeze()  # the modules of the report too


register(locust.events)
