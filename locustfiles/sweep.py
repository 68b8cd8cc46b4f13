"""Sweep an OpenAI-compatible endpoint. You need no code: all settings are options.

    OPENAI_API_KEY=... locust -f locustfiles/sweep.py --headless --host https://HOST/v1 --llm-model NAME \
        --llm-sweep 1,2,4,8 --llm-requests 100 --csv out/run --llm-report
"""

from locust import task

from llm_users import OpenAIUser


class SweepUser(OpenAIUser):
    """Sends one prompt after another with the API that --llm-api names (chat, completions or responses)."""

    @task
    def next_prompt(self) -> None:
        self.ask()
