"""Sweep a model on AWS Bedrock with OpenAI's APIs. You need no code: all settings are options.

    AWS_PROFILE=... locust -f locustfiles/bedrock_openai.py --headless --llm-region us-east-1 --llm-model MODEL_ID \
        --llm-sweep 1,2,4,8 --llm-requests 100 --csv out/run --llm-report

--llm-api bedrock-responses uses the Responses API, --llm-bedrock-endpoint mantle the endpoint bedrock-mantle.
`llm-bench --llm-api bedrock-chat` does the same without a checkout; --llm-simulator needs no account.
"""

from locust import task

from llm_users import BedrockOpenAIUser


class BedrockOpenAI(BedrockOpenAIUser):
    """Sends one prompt after another with the API that --llm-api names (bedrock-chat or bedrock-responses)."""

    @task
    def next_prompt(self) -> None:
        self.ask()
