"""Sweep a model on AWS Bedrock. You need no code: all settings are options. boto3 finds the credentials.

    AWS_PROFILE=... locust -f locustfiles/bedrock.py --headless --llm-region us-east-1 --llm-model MODEL_ID \
        --llm-sweep 1,2,4,8 --llm-requests 100 --csv out/run --llm-report

--llm-api invoke uses InvokeModelWithResponseStream instead of ConverseStream; --llm-simulator needs no account.
"""

from locust import task

from llm_users import BedrockUser


class Bedrock(BedrockUser):
    """Sends one prompt after another with the API that --llm-api names (converse or invoke)."""

    @task
    def next_prompt(self) -> None:
        self.ask()
