"""Sweep Claude on AWS Bedrock with Anthropic's Messages API. You need no code: all settings are options.

    AWS_PROFILE=... locust -f locustfiles/bedrock_messages.py --headless --llm-region us-east-1 --llm-model MODEL_ID \
        --llm-sweep 1,2,4,8 --llm-requests 100 --csv out/run --llm-report

`llm-bench --llm-api bedrock-messages` does the same without a checkout; --llm-simulator needs no account.
"""

from locust import task

from llm_users import BedrockAnthropicUser


class BedrockMessages(BedrockAnthropicUser):
    """Sends one prompt after another."""

    @task
    def next_prompt(self) -> None:
        self.ask()
