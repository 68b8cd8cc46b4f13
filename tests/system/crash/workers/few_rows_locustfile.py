"""The coordinator takes 10 rows a second from all workers together: what else ends stays in their spools."""

from locust import task

from llm_users import OpenAIUser
from llm_users.load.coordinator import worker_pool

worker_pool.MOST_ROWS_PER_S = 10.0


class Asker(OpenAIUser):
    @task
    def ask(self) -> None:
        self.chat()
