"""``--tags`` and ``--exclude-tags``: a user class without a remaining task gets no users."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

from locust.runners import WorkerRunner

logger = logging.getLogger(__name__)

UNUSABLE = 2


def drop_classes_without_tasks(environment: Any) -> None:
    """Remove classes without a remaining task. Ends the process with exit code 2 if no class remains.

    Called at the start and, on a worker, again when a test starts, because the master sends the tags then.
    """
    options = environment.parsed_options
    tags, exclude_tags = (
        getattr(environment, name) or getattr(options, name, None) for name in ("tags", "exclude_tags")
    )
    if not tags and not exclude_tags:
        return
    classes = list(environment.user_classes)
    all_tags = sorted({tag for user_class in classes for tag in _tags_of(user_class)})
    had_tasks = {user_class for user_class in classes if user_class.tasks}
    environment._filter_tasks_by_tags()
    empty = [user_class for user_class in classes if user_class in had_tasks and not user_class.tasks]
    if not empty:
        return
    given = " ".join(
        f"--{option} {' '.join(sorted(values))}"
        for option, values in (("tags", tags), ("exclude-tags", exclude_tags))
        if values
    )
    names = ", ".join(user_class.__name__ for user_class in empty)
    hint = f"the tasks of this locustfile have the tags {', '.join(all_tags)}" if all_tags else "no task has a tag"
    remaining = [user_class for user_class in classes if user_class not in empty]
    is_worker = isinstance(environment.runner, WorkerRunner)  # the master reports the rest
    if not remaining and not is_worker:
        print(f"locust-llm: {given} leaves no task of {names}; {hint}", file=sys.stderr)
        sys.exit(UNUSABLE)
    environment.user_classes = remaining or classes
    if not is_worker:
        logger.warning("%s leaves no task of %s, so no user of that class starts; %s", given, names, hint)


def _tags_of(holder: Any) -> Iterator[str]:
    """Yield the tags of all tasks, including tasks of nested task sets."""
    for task in holder.tasks:
        yield from getattr(task, "locust_tag_set", ())
        if hasattr(task, "tasks"):
            yield from _tags_of(task)
