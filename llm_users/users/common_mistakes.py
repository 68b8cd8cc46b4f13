"""Errors for code that works with Locust's HTTP users but not with LLM users; they say what to write instead."""

from __future__ import annotations

MOST_CALLS = 1000
"""Limit on the waiting and running calls of one user. Only a task that never waits for its calls exceeds it."""

ASKING = "call self.chat(...), or self.ask() for the API of --llm-api; it returns the answer"

NOT_IN_A_WITH = (
    "an answer is not a context manager: write `answer = self.chat(...)` without `with` and `catch_response`; "
    "answer.record.error_code is set if the call failed; override check_answer(prompt, answer) to check the text"
)

_IN_ANSWERS = {
    "success": "calls are counted automatically; answer.record.ok is True if this call succeeded",
    "failure": "override check_answer(prompt, answer) to mark an answer as wrong",
    "status_code": "the HTTP status is answer.record.http_status",
    "ok": "answer.record.ok is True if the call succeeded",
    "content": "the text of the answer is answer.text",
    "json": "the text of the answer is answer.text; json.loads(answer.text) if it is JSON",
    "elapsed": "times are in answer.record: ttft_s, end_to_end_latency_s",
}


class TooManyCalls(RuntimeError):
    """A user has more concurrent calls than any useful task needs."""

    def __init__(self, class_name: str) -> None:
        super().__init__(
            f"a user of {class_name} has {MOST_CALLS} calls at the same time: its task starts calls and does not wait "
            "for them. Wait with gevent.joinall(...), or use --llm-rate for arrivals at a fixed rate"
        )


def missing_attribute(class_name: str, name: str) -> str:
    """Return the error message for an attribute that a user does not have."""
    text = f"'{class_name}' object has no attribute '{name}'"
    if name == "client":
        return f"{text}: {ASKING}. For plain HTTP requests add a class of Locust's HttpUser to the locustfile"
    return text


def missing_in_answer(name: str) -> str:
    """Return the error message for an attribute that an answer does not have."""
    text = f"'Answer' object has no attribute '{name}'"
    return f"{text}: {_IN_ANSWERS[name]}" if name in _IN_ANSWERS else text
