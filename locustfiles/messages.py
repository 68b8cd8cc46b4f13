"""Sweep Claude by Anthropic's own API, or a server that speaks it: no code needed, everything is an option.

    ANTHROPIC_API_KEY=... locust -f locustfiles/messages.py --headless --host https://api.anthropic.com \
        --llm-model MODEL --llm-sweep 1,2,4 --llm-requests 50 --csv out/run --llm-report

`llm-bench --llm-api messages` is the same without a checkout. Claude on Bedrock: locustfiles/bedrock.py.
"""

from locust import task

from llm_users import AnthropicUser


class Messages(AnthropicUser):
    """Asks one prompt after the other."""

    @task
    def ask(self) -> None:
        self.message()
