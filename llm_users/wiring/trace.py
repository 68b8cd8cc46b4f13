"""The trace that a run replays, as the coordinator needs it. The coordinator reads it before anything starts.

Each worker reads the entries itself.
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
    """The trace of a run, if it has one: its description, its stage, and the times of its entries."""

    def __init__(self) -> None:
        self.spec: StageSpec | None = None
        self.about: str | None = None
        self._source: object = None

    def read(self, options: Options) -> None:
        """Read the trace in a thread, unless it was read with the same options before. Raises ``OptionError``."""
        if options.trace is None:
            self.spec = self.about = self._source = None
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
        logger.info("%s", self.about)
        for guess in trace.guesses:  # log them before anything is sent; the workers send notes for the tables
            logger.warning("%s", guess)
