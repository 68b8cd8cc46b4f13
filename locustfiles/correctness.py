"""Check whether answers are correct, also under load. The model gets numbers in words and must answer with the digits.

    locust -f locustfiles/correctness.py --headless --host https://HOST/v1 --llm-model NAME \
        --llm-sweep 1,8,32 --llm-requests 400 --csv out/right --llm-report --llm-slo "mismatches<0.01"

This is LLMPerf's second test. Together with another locustfile (-f locustfiles/correctness.py,locustfiles/sweep.py) it
checks answers under the load of that locustfile.
"""

from random import Random
from typing import Any, ClassVar

from locust import task

from llm_users import Answer, AnswerCheck, OpenAIUser, Prompt
from llm_users.number_words import has_number, in_words, is_only_number

LARGEST = 10_000
QUESTION = "{words}: write this number in digits. Begin your answer with the number."


class Correctness(OpenAIUser):
    """Asks for one number after another. --llm-seed and the run key determine the numbers."""

    default_body: ClassVar[dict[str, Any]] = {"temperature": 0}  # --llm-extra-body can replace it

    def make_prompt(self) -> Prompt:
        index = self.next_prompt_index()
        return Prompt(index, QUESTION.format(words=in_words(self.number(index)).capitalize()))

    def check_answer(self, prompt: Prompt, answer: Answer) -> AnswerCheck:
        number = self.number(prompt.index)
        return AnswerCheck(str(number), has_number(answer.text, number), is_only_number(answer.text, number))

    def number(self, index: int) -> int:
        return int(Random(f"{self.seed}:{index}:number").random() * (LARGEST + 1))

    @task
    def next_number(self) -> None:
        self.ask()
