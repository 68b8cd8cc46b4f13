"""Checks the options of a run and reads the files that they name before anything starts.

Only the report side can parse an expression of objectives, so these checks are not part of the options package. An
invalid file causes a one-line message and exit code 2. Each worker reads the files again, on its own machine. The only
process of a local run keeps them in memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from llm_users.load.coordinator.expected_usage import TokensPerRequest
from llm_users.load.coordinator.stages import StageSpec, trace_stage
from llm_users.load.worker.prompt_queue import trace_of
from llm_users.load.worker.thread_pool import in_thread
from llm_users.options.parsers import OptionError
from llm_users.options.table import Options
from llm_users.prices import PriceError
from llm_users.prompts import (
    HUB,
    forget_items,
    forget_scripts,
    load_tokenizer,
    packaged_identity,
    read_items,
    read_scripts,
)
from llm_users.transport import endpoint


def checked(options: Options, user_classes: list[Any], shape: Any = None) -> Options:
    """Return the options after checking that their objectives are valid and that the users support the options.

    ``shape`` is the LoadTestShape of the locustfile, if it has one. Raises ``OptionError``.
    """
    if options.staged and shape is not None:
        raise OptionError(
            f"the locustfile has a LoadTestShape ({type(shape).__name__}), and --llm-sweep, --llm-rate, --llm-find and "
            "--llm-trace define stages too; leave out one of the two. Without these options each number of users of "
            "the shape becomes a stage with its own figures"
        )
    others = sorted(c.__name__ for c in user_classes if not hasattr(c, "prepare_process"))
    if options.open_loop and others:
        raise OptionError(
            f"an open loop (--llm-rate, --llm-trace) supports only LLM user classes, not {', '.join(others)}; remove "
            "other classes from the locustfile, or name the classes to run after Locust's options"
        )
    empty = sorted(c.__name__ for c in user_classes if hasattr(c, "prepare_process") and not c.tasks)
    if empty:
        raise OptionError(
            f"the locustfile has a user class without tasks ({', '.join(empty)}): add a method with the decorator "
            "@task, for example one that calls self.chat(), or set abstract = True in a class that is only a base class"
        )
    for flag, expression in (("--llm-slo", options.slo), ("--llm-find", options.find)):
        if expression is None:
            continue
        import llm_reports

        try:
            objectives = llm_reports.parse_objectives(expression)
        except llm_reports.InputError as error:
            raise OptionError(f"{flag}: {error}") from None
        for objective in objectives.all:
            if options.no_stream and objective.kind.needs_stream:
                raise OptionError(f"{flag}: {objective.without_stream}")
    if options.prices is not None:
        try:
            for model in (options.model, *(target.model for target in options.targets)):
                options.prices.of_model(model or "")
        except PriceError as error:
            raise OptionError(f"--llm-prices: {error}") from None
    return options


def check_keys(options: Options, user_classes: list[Any], host: str | None) -> None:
    """Check that this process has the keys that the endpoints of a run require. Raises ``OptionError``."""
    try:
        headers = endpoint.headers_from_environment(options.header_env)
        for user_class in user_classes:
            if not hasattr(user_class, "key_problem"):
                continue
            targets = options.targets if user_class.model is None else ()
            own = user_class.host or host
            for url in [target.url or own for target in targets] or [own]:
                if not url and user_class.needs_host():
                    continue
                if problem := user_class.key_problem(endpoint.clean_url(url) if url else "", headers):
                    raise OptionError(problem)
    except OptionError:
        raise
    except ValueError as error:
        raise OptionError(str(error)) from None


def tokenizer_identity(options: Options) -> dict[str, str]:
    """Return the name and digest of the tokenizer for the manifest. A master does not load the packaged default."""
    try:
        if options.tokenizer is None:
            name, digest = packaged_identity()
        else:
            tokenizer = load_tokenizer(options.tokenizer)
            name, digest = tokenizer.name, tokenizer.digest
    except ValueError as error:
        return {"name": options.tokenizer or "default", "error": str(error)}
    return {"name": name, "digest": digest}


def check_input_files(options: Options, *, has_users: bool) -> None:
    """Read the files that the options name, in a thread. ``Replay`` reads the trace. Raises ``OptionError``.

    A master has no users, so it keeps nothing in memory. It leaves to its workers what only they may have: datasets and
    tokenizers of the hub, and files that need packages which are not installed on the master.
    """
    readers: list[tuple[str, str | Path | None, Callable[[Any], Any]]] = [
        ("--llm-tokenizer", options.tokenizer, load_tokenizer),
        ("--llm-prompts", options.prompts, read_items),
        ("--llm-conversations", options.conversations, read_scripts),
    ]
    for flag, name, read in readers:
        if name is None:
            continue
        is_tokenizer = read is load_tokenizer
        may_be_a_file = Path(name).expanduser().exists() if is_tokenizer else not str(name).startswith(HUB)
        if not (has_users or may_be_a_file):
            continue
        try:
            in_thread(partial(read, name))
        except (OSError, ValueError) as error:
            if has_users or not isinstance(error.__cause__, ImportError):
                raise OptionError(f"{flag}: {error}") from None
    if not has_users:
        forget_items()
        forget_scripts()


logger = logging.getLogger(__name__)


class Replay:
    """The trace of a run, if it has one: its description, its stage, and the times of its entries."""

    def __init__(self) -> None:
        self.spec: StageSpec | None = None
        self.about: str | None = None
        self.usage: tuple[int, TokensPerRequest] | None = None
        """The number of requests and their mean tokens."""
        self._source: object = None

    def read(self, options: Options) -> None:
        """Read the trace in a thread, unless it was read with the same options before. Raises ``OptionError``."""
        if options.trace is None:
            self.spec = self.about = self.usage = self._source = None
            return
        try:
            status = os.stat(os.path.expanduser(options.trace))  # noqa: PTH111, PTH116 - Path raises for odd names
            source = (options, status.st_mtime_ns)
            if source == self._source:
                return
            trace = in_thread(partial(trace_of, options))
            assert trace is not None
        except (OSError, ValueError) as error:
            raise OptionError(f"--llm-trace: {error}") from None
        self._source, self.spec, self.about = source, trace_stage(options, trace), trace.describe()
        requests = self.spec.requests or len(trace.entries)
        self.usage = requests, TokensPerRequest.of_trace(trace, requests)
        logger.info("%s", self.about)
        for guess in trace.guesses:  # log them before anything is sent; the workers send notes for the tables
            logger.warning("%s", guess)
