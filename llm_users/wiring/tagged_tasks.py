"""``--tags`` and ``--exclude-tags``: a user class that they leave without a task gets no users."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

from locust.runners import WorkerRunner

logger = logging.getLogger(__name__)

UNUSABLE = 2


def drop_classes_without_tasks(environment: Any) -> None:
    """Take such classes out of the environment. Ends the process with exit code 2 when no class is left.

    Called at the start, and on a worker once more when a test starts: the master tells it the tags.
    """
    options = environment.parsed_options
    tags, exclude_tags = (
        getattr(environment, name) or getattr(options, name, None) for name in ("tags", "exclude_tags")
    )
    if not tags and not exclude_tags:
        return
    classes = list(environment.user_classes)
    known = sorted({tag for user_class in classes for tag in _tags_of(user_class)})
    had_tasks = {user_class for user_class in classes if user_class.tasks}
    environment._filter_tasks_by_tags()
    empty = [user_class for user_class in classes if user_class in had_tasks and not user_class.tasks]
    if not empty:
        return
    asked = " ".join(
        f"--{option} {' '.join(sorted(given))}"
        for option, given in (("tags", tags), ("exclude-tags", exclude_tags))
        if given
    )
    names = ", ".join(user_class.__name__ for user_class in empty)
    there = f"the tasks of this locustfile have the tags {', '.join(known)}" if known else "no task here has a tag"
    left = [user_class for user_class in classes if user_class not in empty]
    is_worker = isinstance(environment.runner, WorkerRunner)  # its master says the rest
    if not left and not is_worker:
        print(f"locust-llm: {asked} leaves no task of {names}; {there}", file=sys.stderr)
        sys.exit(UNUSABLE)
    environment.user_classes = left or classes
    if not is_worker:
        logger.warning("%s leaves no task of %s, so no user of that class is started; %s", asked, names, there)


def _tags_of(holder: Any) -> Iterator[str]:
    """The tags of all tasks, those of nested task sets too."""
    for task in holder.tasks:
        yield from getattr(task, "locust_tag_set", ())
        if hasattr(task, "tasks"):
            yield from _tags_of(task)
