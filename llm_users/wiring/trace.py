"""The trace that a run replays, as the coordinator needs it: looked into before anything starts.

Its entries are read by each worker for itself.
"""

from __future__ import annotations

import logging
import os
from functools import partial

from llm_users.load.coordinator.stages import StageSpec, trace_stage
from llm_users.load.worker.prompt_queue import trace_of
from llm_users.load.worker.thread_pool import in_thread
from llm_users.options.parsers import OptionError
from llm_users.options.table import Options

logger = logging.getLogger(__name__)


class Replay:
    """The trace of a run, if it has one: what it is, and its stage, and the times of its entries."""

    def __init__(self) -> None:
        self.spec: StageSpec | None = None
        self.about: str | None = None
        self._known: object = None

    def read(self, options: Options) -> None:
        """Read it in a thread, unless that was done with the same options. Raises ``OptionError``."""
        if options.trace is None:
            self.spec = self.about = self._known = None
            return
        try:
            found = os.stat(os.path.expanduser(options.trace))  # noqa: PTH111, PTH116 - Path's raise for odd names
            wanted = (options, found.st_mtime_ns)
            if wanted == self._known:
                return
            trace = in_thread(partial(trace_of, options))
            assert trace is not None
        except (OSError, ValueError) as error:
            raise OptionError(f"--llm-trace: {error}") from None
        self._known, self.spec, self.about = wanted, trace_stage(options, trace), trace.describe()
        logger.info("%s", self.about)
        for guess in trace.guesses:  # before anything is sent; the workers note them for the tables
            logger.warning("%s", guess)
