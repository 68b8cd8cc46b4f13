"""The smallest locustfile: a user with a task of its own.

    locust -f locustfiles/chat.py --headless -u 2 -r 2 --llm-requests 10 --llm-simulator

Without --llm-sweep, users and spawn rate are Locust's own and the run is one stage.
"""

from locust import between, task

from llm_users import OpenAIUser


class Chat(OpenAIUser):
    """Asks two fixed questions, then one from the prompt source; pauses between its rounds as a person would."""

    wait_time = between(0.1, 0.5)

    @task
    def ask(self) -> None:
        self.chat("Why is the sky blue?", max_tokens=40)
        self.chat(messages=[{"role": "user", "content": "Name three rivers."}], temperature=0, max_tokens=40)
        answer = self.chat()  # the next prompt of --llm-prompts, else of the sonnets
        if answer.record.ok and answer.finish_reason not in ("stop", "length"):
            print(f"unusual end: {answer.finish_reason}")
