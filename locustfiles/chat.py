"""A minimal locustfile: a user class with a task.

    locust -f locustfiles/chat.py --headless -u 2 -r 2 --llm-requests 10 --llm-simulator

Without --llm-sweep, Locust's own options set the users and the spawn rate, and the run has one stage.
"""

from locust import between, task

from llm_users import OpenAIUser


class Chat(OpenAIUser):
    """Asks two fixed questions, then one from the prompt source, and pauses between tasks as a person would."""

    wait_time = between(0.1, 0.5)

    @task
    def ask(self) -> None:
        self.chat("Why is the sky blue?", max_tokens=40)
        self.chat(messages=[{"role": "user", "content": "Name three rivers."}], temperature=0, max_tokens=40)
        answer = self.chat()  # the next prompt from --llm-prompts, or from the sonnets
        if answer.record.ok and answer.finish_reason not in ("stop", "length"):
            print(f"unusual finish reason: {answer.finish_reason}")
