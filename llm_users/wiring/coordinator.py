"""The coordinator in Locust: checks options and endpoint, installs the shape, sets the exit code, prints the report.

This module runs on the master, or in the only process of a local run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shlex
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, cast

import gevent
from locust.runners import MasterRunner

from llm_users.collect.files import check_prefix
from llm_users.collect.prefix_lock import PrefixInUseError, PrefixLock, hold
from llm_users.collect.stage_stats import StageBook
from llm_users.collect.writer import RowObserver, RunWriter, start_writing
from llm_users.load.coordinator.coordinator import Coordinator
from llm_users.load.coordinator.locust_users import StageDispatcher, SweepShape
from llm_users.load.coordinator.stages import StageSequence, listed_stages
from llm_users.load.protocol import messages
from llm_users.load.protocol.messages import CoordinatorInbox, MessageT
from llm_users.options.command_line import as_given, read_options
from llm_users.options.parsers import OptionError
from llm_users.options.table import SIMULATOR_DEFAULTS, Options
from llm_users.quick.server import versioned_url
from llm_users.record import STEADINESS_REQUESTS, RequestRecord
from llm_users.run_files import GATE_XML, RUN_FILES_PATTERN, absolute, default_prefix, from_here, path_of
from llm_users.secrets import mask_named, mask_options, redact, remember, remember_named
from llm_users.transport import endpoint
from llm_users.users.url_advice import with_version
from llm_users.wiring import run_report
from llm_users.wiring.interrupts import Interrupts
from llm_users.wiring.load_search import SearchStages
from llm_users.wiring.locust_log import RampLines
from llm_users.wiring.paid_endpoints import log_expected_usage
from llm_users.wiring.repeated_texts import RepeatedTexts
from llm_users.wiring.run_options import Replay, check_input_files, check_keys, checked, tokenizer_identity
from llm_users.wiring.server_metrics import RunServerMetrics
from llm_users.wiring.start_checks import end_forked_workers
from llm_users.wiring.telemetry import RunMetrics, start_metrics
from llm_users.wiring.worker_views import WorkerViews

logger = logging.getLogger(__name__)

REFUSED, LOST, NOT_PASSED = 2, 3, 3

_COMPLETED = "OPENAI_BASE_URL"
"""The users of OpenAI's API have this variable for their host. Other APIs have no version in their base URL."""

INTERRUPTED_GRACE_S = 10.0
"""Grace period after Ctrl-C, SIGTERM or the stop button, without --stop-timeout. Most answers end in this time, and it
is short enough for a user to wait."""


def _refuse(error: Exception, parsed: Any) -> NoReturn:
    """End the process before a run exists."""
    print(f"locust-llm: {redact(str(error))}", file=sys.stderr)
    logging.getLogger("locust").setLevel(logging.ERROR)  # the reason is the last line
    if getattr(parsed, "processes", None):
        end_forked_workers(os.getpid(), signal.SIGKILL)  # they have started nothing, and would log how they end
    sys.exit(REFUSED)


def _check_url(name: str, url: str | None) -> None:
    """Check a base URL, which an option or a class has under this name. Raises ``OptionError``."""
    if url and (problem := endpoint.check_url(url)):
        raise OptionError(redact(f"{name} {url}: {problem}"))


def steadiness_of(starts: array[float], ends: array[float], measured: array[int], is_open: bool) -> str:
    """Return ``steady``, ``unsteady`` or "" (unknown). The first call after a stage with enough requests loads numpy.

    Without a free file descriptor the import fails and the result is "", so that the stage is written in any case.
    """
    if sum(measured) < STEADINESS_REQUESTS:
        return ""
    try:
        import numpy as np

        from llm_reports.metrics.steadiness import steadiness
    except (ImportError, OSError):
        return ""
    return steadiness(np.array(starts), np.array(ends), np.array(measured), is_open=is_open)


class CoordinatorRole:
    """Connects a ``Coordinator`` to the environment. Ends the process with exit code 2 if the options are invalid."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.runner = environment.runner
        self._created_at = time.time()
        self._gate_text = self._search_text = self._gate_line = ""
        self._search: SearchStages | None = None
        self._beginning: gevent.Greenlet[..., None] | None = None
        self._simulator: Any = None
        self._replay = Replay()
        self._repeated: RepeatedTexts | None = None
        self._metrics: RunMetrics | None = None
        self._own_shape = environment.shape_class
        parsed = environment.parsed_options
        given = getattr(parsed, "csv_prefix", None)
        self._prefix: str = given or default_prefix()
        self._whole_prefix = absolute(self._prefix)
        self._lock: PrefixLock | None = None
        try:
            if given:
                check_prefix(given)
                self._lock = hold(given)
            self._given, self._options = as_given(parsed), self._checked_options()
            options = self._options
            self._read_files(options)
            self._start_simulator(options)
            self._check_host(all_named=bool(options.targets) and all(target.url for target in options.targets))
            if self._starts_by_itself:
                self._check_keys(options)
        except (OptionError, OSError) as error:
            _refuse(error, parsed)
        remember_named([options.extra_body, options.metadata])
        self._stop_timeout = environment.stop_timeout or options.timeout_s
        self.worker_views: WorkerViews | None = None
        self._server_metrics = RunServerMetrics(self._endpoints)
        self.coordinator = coordinator = Coordinator(
            self._send,
            self._clients,
            self._make_writer,
            make_stages=self._make_stages,
            stop_run=self.stop_run,
            before_stage=self._admit_workers,
            on_silence=self._on_silence,
            reserves_quota=any(getattr(c, "reserves_quota", False) for c in environment.user_classes),
            observer=self._server_metrics,
        )
        self._inbox = CoordinatorInbox(coordinator.rank_in_run, coordinator.on_foreign)
        self._register_handlers()
        if isinstance(self.runner, MasterRunner):
            environment.events.worker_report.add_listener(self._on_worker_report)
            self.worker_views = WorkerViews(self.runner, coordinator, self._give_up)
        else:
            environment.dispatcher_class = partial(
                StageDispatcher, holds=lambda _client: False, on_target=coordinator.on_target
            )
        environment.events.spawning_complete.add_listener(self._on_spawning_complete)
        self._install_shape(staged=options.staged)
        RampLines(lambda: isinstance(environment.shape_class, SweepShape)).install()
        self._is_starting, self._reported = True, False
        self._interrupts = Interrupts(
            is_stopping=lambda: self.coordinator.finishing,
            cut=coordinator.abort,
            leave=self._leave_waiting,
            stays_open=lambda: bool(getattr(parsed, "autostart", False)) and not self.coordinator.active,
        )
        if environment.locustfile:  # None if a program uses Locust as a library
            self._interrupts.install()
        self._tab = self._web_start = cast(Any, None)  # until a web interface exists
        self.show_in_web()

    def started(self) -> None:
        """Note that the process has started everything and Locust begins to wait for a run, or runs it."""
        self._is_starting = False

    @property
    def prefix(self) -> str:
        """Return the prefix of the run's files, as it was given unless the working directory has changed."""
        return from_here(self._prefix, self._whole_prefix)

    # Records of the only process.

    def keep(self, record: RequestRecord, offsets_s: list[float]) -> None:
        """Write a record of this process."""
        if self.coordinator.writer is not None:
            self.coordinator.writer.add(record, offsets_s)

    def kept(self) -> int:
        """Return how many records of this process were written."""
        return self.coordinator.writer.received[0] if self.coordinator.writer is not None else 0

    # The phases of a run.

    def begin_run(self) -> bool:
        """Start a run unless one is active or its options are invalid. Return whether a run is active."""
        coordinator, parsed = self.coordinator, self.environment.parsed_options
        self._await_beginning()
        if self.coordinator.active:
            return True
        try:
            if self.environment.web_ui is not None or as_given(parsed) != self._given:
                # The web form may have changed options, and a user may have changed files that options name.
                self._given, self._options = as_given(parsed), self._checked_options()
            options = self._options
            remember_named([options.extra_body, options.metadata])
            self._read_files(options)
            if not self.withholds_keys:
                self._check_keys(options)
        except OptionError as error:
            coordinator.refused = str(error)
            logger.error("the run is refused: %s", error)
            return False
        if self.worker_views is not None:
            self.worker_views.await_hellos()
        if self._interrupts.installed:
            self._interrupts.install()  # Locust installs its SIGTERM handler late in its start
        if not self._clients():
            logger.error("no worker is ready, so the run cannot start; try again when a worker is ready")
            return False
        if self.environment.host:
            self._set_host(self.environment.host)  # the web form may have changed the host
        root = self._complete_host()
        self.environment.stop_timeout = self._stop_timeout
        run_s = getattr(parsed, "run_time", None) if options.staged else None
        self._repeated = RepeatedTexts(options, self.environment.user_classes, self.environment.host)
        log_expected_usage(
            options,
            self.environment.user_classes,
            self.environment.host,
            workers=len(self._clients()),
            users=self.runner.target_user_count,
            replayed=self._replay.usage,
            has_users=not isinstance(self.runner, MasterRunner),
        )
        self._metrics = self._metrics or start_metrics(self.environment, coordinator)
        # Use another greenlet, because Locust kills this one when the test stops or restarts in the meantime.
        self._beginning = gevent.spawn(
            coordinator.begin,
            options,
            users=self.runner.target_user_count,
            run_s=float(run_s) if run_s else None,
            withhold_keys=self.withholds_keys,
        )
        self._beginning.get()
        if coordinator.active and (note := self._repeated.note()):
            coordinator.note(note)
        if coordinator.active and root:
            coordinator.note(
                f"--host {root} is the root of a server; the run uses its API at {self.environment.host}",
                is_warning=False,
            )
        return coordinator.active

    def finish(self) -> None:
        """Stop the run: start nothing new, and let requests in flight end within the stop timeout.

        Without a stop timeout, a run that ended on its own waits for the request timeout. After Ctrl-C or the stop
        button the wait is ``INTERRUPTED_GRACE_S``; another Ctrl-C ends the wait.
        """
        self._await_beginning()
        if not self.coordinator.active:
            return
        by_shape = self.runner.shape_greenlet is not None and self.runner.shape_greenlet is gevent.getcurrent()
        ended_by_itself = self.coordinator.ended_by_itself or self.coordinator.refused is not None
        interrupted = not (ended_by_itself or self._run_time_is_over() or by_shape)
        grace_s = self._stop_timeout
        if interrupted and not getattr(self.environment.parsed_options, "stop_timeout", 0):
            grace_s = min(grace_s, INTERRUPTED_GRACE_S)
        if interrupted:
            logger.info(
                "stopping: requests in flight have %g s to finish; press Ctrl-C again to stop immediately", grace_s
            )
        restore = self._listen_for_another_interrupt()
        try:
            # In the web interface the stop button is a normal end; a pipeline needs to know that the run was cut short.
            cut_short = interrupted and self._starts_by_itself
            self.coordinator.finish(abort=False, grace_s=grace_s, interrupted=cut_short)
            self.coordinator.ended_by_itself = not interrupted
        finally:
            restore()
        self.environment.stop_timeout = 0.0  # no request is in flight; Locust would wait for frozen workers
        if self._metrics is not None:
            self._metrics.end_run(self.coordinator.note)
        writer, search = self.coordinator.writer, self._search
        if self._repeated is not None and writer is not None and writer.book.started:
            self._repeated.remember()
        if search is not None and writer is not None and writer.book.started and not self._search_text:
            if self.coordinator.run_time_is_over:
                search.ended_by_run_time(float(self.environment.parsed_options.run_time))
            writer.write_manifest(find=search.entry())
            logger.info("%s", search.said)
            self._search_text = run_report.publish_search(self.prefix)

    def set_verdict(self) -> None:
        """Set the exit code while Locust is quitting."""
        if self._interrupts.installed:
            self._interrupts.install()
        self._await_beginning()
        if self.coordinator.active:
            self.runner.stop()  # on Ctrl-C, Locust has stopped nothing at this point
            self.finish()
        self._interrupts.run_is_over()
        if self._refused_before_requests and self._is_headless:
            self._publish_refusal()
            self.close()
            sys.exit(REFUSED)  # the reason is in the log, and Locust would print empty tables
        code = self._verdict()
        if not code:
            code = self._judge() or self._judge_search()
        elif self.coordinator.unusable is not None:
            self._judge()  # the JUnit file and the job summary say why nothing was measured; the exit code stays
        if code and not self.environment.process_exit_code:
            self.environment.process_exit_code = code

    def close(self) -> None:
        """Close and name the files, and print the tables, at the end of the process."""
        if self._simulator is not None:
            self._simulator.stop()
        if self._tab is not None:
            self._tab.close()
        writer, parsed = self.coordinator.writer, self.environment.parsed_options
        if writer is not None and not self._reported:
            self._reported = True
            writer.close()
            options, html = self.coordinator.options, getattr(parsed, "html_file", None)
            if writer.book.started and html:
                run_report.add_to_html(self.prefix, options, html, not_before=self._created_at)
            run_report.print_end(self.prefix, options, parsed, writer, (self._search_text, self._gate_text))
            if not self._refused_before_requests:
                print(f"Rows, stages and manifest: {self.prefix}{RUN_FILES_PATTERN}", file=sys.stderr)
                if writer.book.started and not options.report:
                    command = shlex.join(["llm-report", self.prefix, "--format", "md,csv,html"])
                    print(f"Report with charts: {command}", file=sys.stderr)
            if self._gate_line:
                print(self._gate_line, file=sys.stderr)  # the last line, because logs of pipelines show their end first
            if (problem := self.coordinator.unusable) is not None:  # the last line
                print(f"{problem[0].upper()}{problem[1:]}", file=sys.stderr)
        if self._lock is not None:
            self._lock.release()

    def show_in_web(self) -> None:
        """Add the LLM tab once a web interface exists. A program that uses Locust as a library may create it later."""
        web_ui = self.environment.web_ui
        if web_ui is None or self._tab is not None:
            return
        from llm_users.web.routes import LiveTab
        from llm_users.wiring.web_start import WebStart

        self._web_start = WebStart(
            self.environment, self._options, install_shape=self._install_shape, check_options=self._check_form
        )
        self._tab = LiveTab(
            self.environment, self.coordinator, run_report.objectives_of, self._search_entry, self._server_metrics
        )
        self._register(messages.Live, self._tab.on_live)

    @property
    def withholds_keys(self) -> bool:
        """Return whether a web page that is open to the network named the endpoint of the run."""
        return self._web_start is not None and bool(self._web_start.withholds_keys)

    # Internal methods.

    def _await_beginning(self) -> None:
        """Wait while a run is starting: a run that has started in part can neither be stopped nor started."""
        if self._beginning is not None and self._beginning is not gevent.getcurrent():
            self._beginning.join()

    def _on_spawning_complete(self, **_kwargs: Any) -> None:
        """Tell the coordinator how many of the users that Locust has started send LLM requests."""
        dispatcher = self.runner._users_dispatcher
        if not isinstance(dispatcher, StageDispatcher):
            return
        ours = {c.__name__ for c in self.environment.user_classes if hasattr(c, "prepare_process")}
        counts = dispatcher.users_by_class
        users = sum(count for name, count in counts.items() if name in ours)
        self.coordinator.on_spawned(self.runner.target_user_count, users, sum(counts.values()) - users)

    def _verdict(self) -> int:
        coordinator = self.coordinator
        if coordinator.refused or coordinator.unusable:
            return REFUSED
        writer = coordinator.writer
        if writer is None and not getattr(self.environment.parsed_options, "headless", False):
            return 0  # no test was started in the web interface
        if writer is None:
            logger.error(
                "nothing was measured: the run ended before its test started; check whether --run-time is long enough"
            )
            return LOST
        problem = writer.problem()
        if coordinator.incomplete and not problem:
            problem = f"no row is missing, but workers {coordinator.incomplete} did not report at the end"
        if problem:
            logger.error("%s; see the manifest %s", problem, writer.manifest_path)
            return LOST
        if writer.book.started == 0:
            logger.error("nothing was measured: no request was started")
            return LOST
        if coordinator.shortfall:
            count = len(coordinator.shortfall)
            where = "the error above" if count == 1 else f"the {count} errors above"
            logger.error("the run did not measure everything that was requested; see %s", where)
            return LOST
        if writer.book.measured == 0:
            logger.error(
                "nothing was measured: the run ended during warm-up or ramp, before the first measured request ended"
            )
            return LOST
        shortfalls = [stage.shortfall for stage in writer.stages]
        missing = [short for short in shortfalls if short is not None and short.users_missing]
        if missing and len(missing) == len(shortfalls):
            logger.error("no stage ran with the requested number of users; see the warnings of the stages")
            return LOST
        return 0

    def _judge(self) -> int:
        """Judge ``--llm-slo`` over the rows on disk, and return the exit code."""
        options, writer = self.coordinator.options, self.coordinator.writer
        if options.slo is None or writer is None:
            return 0
        import llm_reports
        from llm_reports.metrics.load_search import gate_of_runs

        writer.flush()
        try:
            groups = llm_reports.groups([llm_reports.load(self.prefix)])
            gate = gate_of_runs(groups, llm_reports.parse_objectives(options.slo), options.slo_stage)
            self._gate_text = llm_reports.gate_text(gate)
            self._gate_line = f"Gate {gate.verdict}: {'; '.join(gate.reasons) or gate.objectives.text}"
            llm_reports.publish_gate(gate, path_of(self.prefix, GATE_XML))
        except llm_reports.InputError as error:
            logger.error("--llm-slo: %s", error)
            return NOT_PASSED
        if not gate.passed:
            logger.error("--llm-slo: gate %s: %s", gate.verdict, "; ".join(gate.reasons))
            return NOT_PASSED
        judges_errors = any(objective.name == "errors" for objective in gate.objectives.all)
        if judges_errors and not self.runner.exceptions and self.environment.process_exit_code is None:
            self.environment.process_exit_code = 0  # failures within the objective must not cause Locust's exit code 1
        return 0

    def _publish_refusal(self) -> None:
        """Write why the run was refused to the JUnit file and the job summary, where a pipeline expects the verdict."""
        slo, cause = self.coordinator.options.slo, self.coordinator.refused
        if slo is None or cause is None or self.coordinator.writer is None:
            return
        import llm_reports

        try:
            llm_reports.publish_unmeasured(slo, cause, path_of(self.prefix, GATE_XML))
        except llm_reports.InputError as error:
            logger.error("--llm-slo: %s", error)

    def _judge_search(self) -> int:
        """Return the exit code of ``--llm-find``.

        A search without a result does not pass; failures are a normal part of it.
        """
        if self._search is None:
            return 0
        if not self._search.conclusive:
            logger.error("--llm-find: %s", self._search.said)
            return NOT_PASSED
        if not self.runner.exceptions and self.environment.process_exit_code is None:
            self.environment.process_exit_code = 0
        return 0

    def _make_stages(self, options: Options) -> StageSequence:
        self._search_text = ""
        self._search = SearchStages(options) if options.find is not None else None
        return self._search or listed_stages(options, self._replay.spec)

    def _search_entry(self) -> dict[str, Any] | None:
        return self._search.entry() if self._search is not None else None

    def _run_time_is_over(self) -> bool:
        """Return whether --run-time is over. Locust ends a run without a sweep after it and fires no event."""
        coordinator = self.coordinator
        run_s = getattr(self.environment.parsed_options, "run_time", None)
        if not run_s or coordinator.writer is None or coordinator.options.staged:
            return False
        return time.time() - coordinator.writer.started_at >= float(run_s) - 0.5

    def _checked_options(self, parsed: Any = None) -> Options:
        """Read Locust's parsed options, or other options in their form. Raises ``OptionError``."""
        environment = self.environment
        options = read_options(parsed or environment.parsed_options)
        return checked(options, environment.user_classes, self._own_shape)

    def _check_form(self, parsed: Any) -> None:
        """Check the options of a start from the web form. Raises ``OptionError``."""
        options = self._checked_options(parsed)
        if self.coordinator.active:  # the form changes the users of a running test
            return
        self._read_files(options)
        if not parsed.host and not (options.targets and all(target.url for target in options.targets)):
            self._refuse_without_host()
        sequence = SearchStages(options) if options.find is not None else listed_stages(options, self._replay.spec)
        users = getattr(parsed, "num_users", None) or 1
        if problem := self.coordinator.why_refused(options, sequence.next(None), users=users):
            raise OptionError(problem)
        try:
            check_prefix(self.prefix)
        except OSError as error:
            raise OptionError(str(error)) from None

    def _read_files(self, options: Options) -> None:
        """Read the files that the options name, before anything starts. Raises ``OptionError``."""
        self._replay.read(options)
        check_input_files(options, has_users=not isinstance(self.runner, MasterRunner))

    def _start_simulator(self, options: Options) -> None:
        if options.simulator is None:
            return
        from llm_users.simulator.launch import SimulatorError, launch

        try:
            self._simulator = launch("" if options.simulator == SIMULATOR_DEFAULTS else options.simulator)
        except (ValueError, SimulatorError) as error:
            raise OptionError(f"--llm-simulator: {error}") from None
        for secret in self._simulator.spec.secrets:
            remember(secret)
        self._set_host(self._simulator.url)
        logger.info("simulated endpoint at %s", self._simulator.url)

    def _check_host(self, *, all_named: bool) -> None:
        """Require a base URL, because a default of api.openai.com would cost money.

        Bedrock's users and targets may not need one.
        """
        classes = [c for c in self.environment.user_classes if hasattr(c, "prepare_process")]
        for user_class in classes:
            _check_url(f"{user_class.__name__}.host", user_class.host)
        for target in self._options.targets:
            _check_url("--llm-targets", target.url)
        hostless = [c for c in classes if c.needs_host()]
        variables = {c.host_variable: None for c in hostless or classes} or {"OPENAI_BASE_URL": None}
        named = next(filter(None, (os.environ.get(variable) for variable in variables)), None)
        host = self.environment.host or named
        if host:
            _check_url("--host", host)
            self._set_host(host)
        elif not all_named and self.environment.web_ui is None:  # the web form can give the host
            self._refuse_without_host()

    def _refuse_without_host(self) -> None:
        """Raise ``OptionError`` if a user class needs a base URL."""
        classes = [c for c in self.environment.user_classes if hasattr(c, "prepare_process") and c.needs_host()]
        variables = list(dict.fromkeys(c.host_variable for c in classes))
        if not any(os.environ.get(variable) for variable in variables) and classes:
            raise OptionError(
                f"no endpoint: give its base URL with --host https://HOST/v1 (or {', '.join(variables)}), "
                "or --llm-simulator"
            )

    def _check_keys(self, options: Options) -> None:
        """Check the keys if this process or its forked workers send the requests. Raises ``OptionError``."""
        environment = self.environment
        if not isinstance(self.runner, MasterRunner) or getattr(environment.parsed_options, "processes", None):
            check_keys(options, environment.user_classes, environment.host)

    def _endpoints(self, options: Options) -> list[str]:
        """Return the base URLs of the requests, as far as they are known."""
        host = self.environment.host
        classes = [c for c in self.environment.user_classes if hasattr(c, "prepare_process")]
        hosts = [c.host or host for c in classes if not options.targets]
        return [url for url in (*hosts, *(target.url or host for target in options.targets)) if url]

    def _give_up(self, why: str) -> None:
        """End a headless start that cannot succeed, while Locust waits for its workers."""
        self.coordinator.refused = why
        logger.error("the run is refused: %s", why)
        self.environment.process_exit_code = REFUSED
        self.runner.quit()
        hub: Any = gevent.get_hub()
        hub.loop.run_callback(hub.parent.throw, SystemExit(REFUSED))  # the main greenlet waits for workers

    def _set_host(self, url: str) -> None:
        """Set the host. Credentials and query of the base URL stay in this process's memory."""
        clean = endpoint.clean_url(url)
        self.environment.host = clean
        if self.environment.parsed_options is not None:
            self.environment.parsed_options.host = clean

    def _complete_host(self) -> str | None:
        """Add ``/v1`` to the host if it is the root of a server whose API is there. Return the root, or None.

        An ``HttpUser`` of the locustfile has the same host, so the host stays if the run has users of other packages.
        """
        classes, root = self.environment.user_classes, self.environment.host
        if not root or not all(getattr(c, "host_variable", None) == _COMPLETED for c in classes):
            return None
        if with_version(root) is None:
            return None
        key = "" if self.withholds_keys else os.environ.get("OPENAI_API_KEY", "").strip()
        url = versioned_url(root, key)
        if url is None:
            return None
        self._set_host(url)
        return str(root)

    def _listen_for_another_interrupt(self) -> Callable[[], object]:
        """Make Ctrl-C cut off requests while they drain. Return a function that restores the old handler."""
        if self._interrupts.installed or threading.current_thread() is not threading.main_thread():
            return lambda: None
        loop, abort = gevent.get_hub().loop, self.coordinator.abort
        old = signal.signal(signal.SIGINT, lambda *_: loop.run_callback_threadsafe(gevent.spawn, abort))
        return partial(signal.signal, signal.SIGINT, old or signal.default_int_handler)

    def _install_shape(self, *, staged: bool) -> None:
        """Install the shape of this package for stages, or restore the locustfile's own shape."""
        environment = self.environment
        if staged:
            environment.shape_class = SweepShape(self.runner, self._tick, self.coordinator.await_change)
        elif isinstance(environment.shape_class, SweepShape):
            environment.shape_class = self._own_shape

    def _tick(self) -> tuple[int, float] | None:
        if self.begin_run():
            return self.coordinator.tick()
        self._quiet_locust()
        return None

    @property
    def _is_headless(self) -> bool:
        return bool(getattr(self.environment.parsed_options, "headless", False))

    @property
    def _starts_by_itself(self) -> bool:
        """Return whether the run starts without the start button."""
        return self._is_headless or bool(getattr(self.environment.parsed_options, "autostart", False))

    @property
    def _refused_before_requests(self) -> bool:
        writer = self.coordinator.writer
        return self.coordinator.refused is not None and (writer is None or not writer.book.started)

    def _quiet_locust(self) -> None:
        """Log only Locust's errors after a refusal that ends the process, so that the reason is the last line."""
        if self.coordinator.refused is not None and self._is_headless:
            logging.getLogger("locust").setLevel(logging.ERROR)

    def _leave_waiting(self) -> bool:
        """End a process that still starts, or a headless master that waits for workers: Locust handles no Ctrl-C there.

        Return whether this was the case.
        """
        if self._is_starting:
            logger.error("nothing was measured: the process was ended while it started")
            self.close()
            return True
        parsed, runner = self.environment.parsed_options, self.runner
        if self.coordinator.writer is not None or not self._starts_by_itself or not isinstance(runner, MasterRunner):
            return False
        if runner.worker_count >= parsed.expect_workers:
            return False
        logger.error(
            "nothing was measured: the run was ended while %d of %d workers (--expect-workers) were connected",
            runner.worker_count, parsed.expect_workers,
        )  # fmt: skip
        runner.quit()
        self.close()
        return True

    def _make_writer(self, run_id: str, options: Options, observer: RowObserver) -> RunWriter:
        parsed = self.environment.parsed_options
        about = {
            "host": self.environment.host,
            "model": options.model,
            "framework": options.framework,
            "options": json.loads(redact(json.dumps(mask_options(as_given(parsed)), default=str))),
            "users": getattr(parsed, "num_users", None),
            "locustfile": self.environment.locustfile,
            "metadata": mask_named(options.metadata),
            "simulator": self._simulator is not None,
            "clock": "CLOCK_MONOTONIC; arrivals by SO_TIMESTAMPNS where the kernel stamps them",
            "tokenizer": tokenizer_identity(options),
            "trace": self._replay.about,
        }
        if self.coordinator.writer is not None:
            self.coordinator.writer.close()
        self._lock = self._lock or self._hold_unnamed()
        self._lock.claim(self, lambda: self.coordinator.active)
        book = StageBook(steadiness_of)
        return start_writing(self.prefix, run_id, about, offsets=options.chunk_times, observer=observer, book=book)

    def _hold_unnamed(self) -> PrefixLock:
        """Lock the default prefix, which contains the present second, or one with a number if another run has it."""
        folder, name = os.path.split(self._prefix)
        for number in itertools.count(1):
            self._prefix = f"{folder}-{number}/{name}" if number > 1 else self._prefix
            self._whole_prefix = absolute(self._prefix)
            check_prefix(self._prefix)
            with contextlib.suppress(PrefixInUseError):
                return hold(self._prefix)
        raise AssertionError("unreachable")

    def _admit_workers(self) -> None:
        """Let workers that joined during a stage take part in the next one."""
        if self.worker_views is not None:
            self.worker_views.admit()

    def _on_silence(self, silent: set[str | None], others: bool) -> None:
        if self.worker_views is not None:
            self.worker_views.on_silence(silent, others)

    def _clients(self) -> list[str | None]:
        return [*self.worker_views.present] if self.worker_views is not None else [None]

    def _register_handlers(self) -> None:
        coordinator = self.coordinator
        self._register(messages.Preparing, coordinator.on_preparing)
        self._register(messages.Ready, coordinator.on_ready)
        self._register(messages.Done, coordinator.on_done)
        self._register(messages.Final, coordinator.on_final)
        self._register(messages.Count, coordinator.on_count)
        self._register(messages.Back, coordinator.on_back)
        self._register(messages.Note, coordinator.on_note)
        self._register(messages.Refused, coordinator.on_refused)
        self._register(messages.Rows, coordinator.on_rows)

    def _register(self, message_type: type[MessageT], handler: Callable[[MessageT], None]) -> None:
        self.runner.register_message(message_type.kind, self._inbox.listener(message_type, handler))

    def _send(self, message: messages.Message, client_id: str | None) -> None:
        self.runner.send_message(message.kind, message.encoded(), client_id=client_id)

    def _on_worker_report(self, data: dict[str, Any], client_id: str = "", **_kwargs: Any) -> None:
        kind = messages.Rows.kind
        rows = self._inbox.read(messages.Rows, data.pop(kind), client_id) if kind in data else None
        if rows is not None:
            self.coordinator.on_rows(rows)

    def stop_run(self) -> None:
        """Stop the test, and also the process when it is headless."""
        self._quiet_locust()
        if getattr(self.environment.parsed_options, "headless", True):
            self.runner.quit()
        else:
            self.runner.stop()
