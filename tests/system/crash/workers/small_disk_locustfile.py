"""The sweep on a disk that takes no file larger than SMALL_DISK bytes; workers have all they need."""

import os
import resource
import sys
from typing import Any

from locust import events, task
from locust.runners import WorkerRunner

from llm_users import OpenAIUser


class Asker(OpenAIUser):
    @task
    def ask(self) -> None:
        self.chat()


@events.init.add_listener
def limit_files(environment: Any, **_: Any) -> None:
    if not isinstance(environment.runner, WorkerRunner):
        size = int(os.environ["SMALL_DISK"])
        sys.dont_write_bytecode = True  # Python would keep truncated compiled modules
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
