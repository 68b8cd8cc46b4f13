"""Loads what all requests of a process need, before its users start: the SDKs of the user classes and the tokenizer.

The tokenizer loads in a thread while the SDKs are imported, because its library releases the interpreter lock. With
``--processes``, the parent loads both before it forks its workers, which share the memory.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator
from typing import Any

import gevent
from locust import User, argument_parser

from llm_users.prompts import load_tokenizer


def import_sdks(user_classes: Iterable[Any]) -> None:
    """Import the SDKs of these user classes."""
    for user_class in user_classes:
        if hasattr(user_class, "import_sdk"):
            user_class.import_sdk()


def load_for_users(user_classes: Iterable[Any], *, tokenizer: str | None) -> None:
    """Import the SDKs of these user classes and load the tokenizer. An invalid tokenizer is reported later."""
    loading = gevent.get_hub().threadpool.spawn(_load, tokenizer)
    import_sdks(user_classes)
    loading.get()


def load_before_fork(parsed: Any) -> None:
    """Load what the workers of ``--processes`` need. They load another tokenizer themselves, after its check."""
    if getattr(parsed, "llm_tokenizer", None) is None:
        load_for_users(_declared(User), tokenizer=None)
    else:
        import_sdks(_declared(User))
    argument_parser.default_args_dict()  # kept for the workers (``locust_delays``)
    gc.freeze()  # Locust collects garbage now, and nothing above is garbage


def _declared(base: Any) -> Iterator[Any]:
    """Yield the user classes that locustfiles have declared so far."""
    for user_class in base.__subclasses__():
        if not user_class.__dict__.get("abstract"):
            yield user_class
        yield from _declared(user_class)


def _load(tokenizer: str | None) -> None:
    with contextlib.suppress(Exception):
        load_tokenizer(tokenizer)
