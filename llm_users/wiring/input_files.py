"""Reads the datasets, the conversations and the tokenizer of a run before anything starts.

An invalid file causes a one-line message and exit code 2. Each worker reads the files again, on its own machine. The
only process of a local run keeps them in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from llm_users.load.worker.thread_pool import in_thread
from llm_users.options.parsers import OptionError
from llm_users.options.table import Options
from llm_users.prompts import HUB, forget_items, forget_scripts, load_tokenizer, read_items, read_scripts


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
        if name is None or not (has_users or _may_be_a_file(flag, name)):
            continue
        try:
            in_thread(partial(read, name))
        except (OSError, ValueError) as error:
            if has_users or not isinstance(error.__cause__, ImportError):
                raise OptionError(f"{flag}: {error}") from None
    if not has_users:
        forget_items()
        forget_scripts()


def _may_be_a_file(flag: str, name: str | Path) -> bool:
    """Return whether the name can refer to a local file."""
    if flag == "--llm-tokenizer":
        return Path(name).expanduser().exists()
    return not str(name).startswith(HUB)
