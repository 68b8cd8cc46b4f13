"""The expected usage of a run, logged before a run that costs money: on a paid endpoint, or with a price file."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from llm_users.load.coordinator.expected_usage import TokensPerRequest, expected_text
from llm_users.load.worker.thread_pool import in_thread
from llm_users.options.table import Options
from llm_users.prices import PriceError
from llm_users.prompts import PromptError

logger = logging.getLogger(__name__)

_PAID_HOSTS = ("api.openai.com", "api.anthropic.com")
_PAID_DOMAINS = (".openai.azure.com", ".amazonaws.com", ".api.aws")


def is_paid(options: Options, user_classes: Iterable[Any], host: str | None) -> bool:
    """Return whether requests of these LLM user classes go to a provider that charges for them."""
    if options.simulator is not None:
        return False
    classes = list(user_classes)
    target_urls: list[str | None] = [target.url for target in options.targets if target.url]
    urls = target_urls or [c.host or host for c in classes]
    # A class that needs no host knows the endpoint of its provider (Bedrock).
    return any(map(is_paid_url, filter(None, urls))) or (not all(urls) and any(not c.needs_host() for c in classes))


def log_expected_usage(
    options: Options,
    user_classes: Iterable[Any],
    host: str | None,
    *,
    workers: int,
    users: int,
    replayed: tuple[int, TokensPerRequest] | None,
    has_users: bool,
) -> None:
    """Log the expected usage if the run costs money. Only a process with users reads files with prompts."""
    classes = [c for c in user_classes if hasattr(c, "prepare_process")]
    if options.prices is None and not is_paid(options, classes, host):
        return
    text = partial(
        expected_text,
        options,
        workers=workers,
        users=users,
        replayed=replayed,
        has_conversations=bool(classes) and all(c.holds_conversations for c in classes),
        counts_prompts=has_users,
    )
    try:
        logger.info("%s", in_thread(text))
    except (PromptError, PriceError, OSError) as error:
        logger.warning("the expected usage of the run is unknown: %s", error)


def is_paid_url(url: str) -> bool:
    """Return whether a provider that charges for requests serves this base URL."""
    name = urlsplit(url).hostname or ""
    return name in _PAID_HOSTS or name.endswith(_PAID_DOMAINS)
