"""Sweep Claude with Anthropic's API, or a server with a compatible API. You need no code: all settings are options.

    ANTHROPIC_API_KEY=... locust -f locustfiles/messages.py --headless --host https://api.anthropic.com \
        --llm-model MODEL --llm-sweep 1,2,4 --llm-requests 50 --csv out/run --llm-report

`llm-bench --llm-api messages` does the same without a checkout. For Claude on Bedrock, use locustfiles/bedrock.py.
"""

from locust import task

from llm_users import AnthropicUser


class Messages(AnthropicUser):
    """Sends one prompt after another."""

    @task
    def next_prompt(self) -> None:
        self.ask()
