"""Which installed distribution requires which, from their metadata."""

from __future__ import annotations

import importlib.metadata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required_by(roots: Iterable[str], installed: Mapping[str, Distribution]) -> dict[str, set[str]]:
    """Return each distribution that the root requirements need, directly or not, with the names of those that need it.

    ``roots`` are requirements such as ``locust>=2.43`` or ``python-socketio[client]``. ``installed`` has the
    distributions by canonical name.
    """
    graph: dict[str, set[str]] = defaultdict(set)
    followed: set[tuple[str, str]] = set()
    waiting = [("", Requirement(text), "") for text in roots]
    while waiting:
        parent, requirement, extra_of_parent = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra_of_parent}):
            continue
        name = canonicalize_name(requirement.name)
        graph[name].update({parent} - {""})
        for extra in {"", *requirement.extras}:
            if (name, extra) not in followed:
                followed.add((name, extra))
                waiting += [(name, Requirement(text), extra) for text in installed[name].requires or ()]
    return dict(graph)


def distributions(path: str | None = None) -> dict[str, Distribution]:
    """Return the distributions of a folder, or of this interpreter, by canonical name."""
    found = importlib.metadata.distributions(path=[path]) if path else importlib.metadata.distributions()
    return {canonicalize_name(distribution.name): distribution for distribution in found}
