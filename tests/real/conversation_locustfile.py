"""A user who sends whole conversations, as an application does."""

from locust import task

from llm_users import OpenAIUser


class Conversation(OpenAIUser):
    """Asks a follow-up question; the server sees three turns."""

    @task
    def follow_up(self) -> None:
        self.chat(
            messages=[
                {"role": "system", "content": "You answer in one sentence."},
                {"role": "user", "content": "What is the capital of France?"},
                {"role": "assistant", "content": "Paris."},
                {"role": "user", "content": "And what is it known for? \N{FACE WITH TEARS OF JOY}"},
            ],
            max_tokens=24,
            temperature=0,
        )
