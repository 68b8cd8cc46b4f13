"""The models that an endpoint lists, for advice about a model that it does not have."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import gevent

LIST_S = 5.0
"""Timeout of the request for the list. A server that has just refused a request answers sooner."""

_MOST_SHOWN = 5


class ModelNames:
    """The lists of a process in one run. Each endpoint is asked once, after it has refused a request."""

    def __init__(self) -> None:
        self._lists: dict[str, gevent.Greenlet[..., list[str]]] = {}

    def advice(self, model: str, host: str, list_models: Callable[[], list[str]]) -> str | None:
        """Return what to do if the endpoint lists other models and not this one; None otherwise."""
        if host not in self._lists:
            self._lists[host] = gevent.spawn(_listed, list_models)
        self._lists[host].join()
        return advice_for(model, self._lists[host].value or [])


def _listed(list_models: Callable[[], list[str]]) -> list[str]:
    """Return the listed models, or an empty list if the endpoint does not list them."""
    try:
        with gevent.Timeout(LIST_S, TimeoutError):
            return list_models()
    except Exception:  # the errors of the SDKs have no common base class
        return []


def advice_for(model: str, listed: list[str]) -> str | None:
    """Return the advice for a model that is not in this list; None without a list."""
    if not listed or model in listed:
        return None
    by_lower_case = {name.lower(): name for name in listed}
    similar = difflib.get_close_matches(model.lower(), by_lower_case, n=1)
    if not similar:  # "llama3" for "meta-llama/llama-3"
        similar = [name for name in by_lower_case if difflib.get_close_matches(model.lower(), [name.split("/")[-1]])]
    if similar:
        return f"the server has no model {model!r}; did you mean {by_lower_case[similar[0]]!r}?"
    more = ", ..." if len(listed) > _MOST_SHOWN else ""
    return f"the server has no model {model!r}; it has {', '.join(sorted(listed)[:_MOST_SHOWN])}{more}"
