"""The extension's events: print the slowest requests at the end of a run, and the longest pauses between their tokens.

    locust -f locustfiles/listener.py --headless -u 4 -r 4 --llm-requests 20 --llm-simulator jitter=0.5

Listeners take keyword arguments. A request's record has the columns of docs/columns.md as attributes.
"""

from collections import defaultdict
from itertools import pairwise
from typing import Any

from locust import events, task

from llm_users import OpenAIUser, RequestRecord

SHOWN = 3
first_token_s: list[float] = []
stamps_ns: dict[str, list[int]] = defaultdict(list)
slowest: list[tuple[float, RequestRecord, list[int]]] = []


class Listened(OpenAIUser):
    @task
    def ask(self) -> None:
        self.chat()


@events.llm_first_token.add_listener
def on_first_token(ttft_s: float, **_kwargs: Any) -> None:
    first_token_s.append(ttft_s)


@events.llm_token.add_listener  # fires only if it has a listener; costs CPU for every chunk
def on_token(request_id: str, stamp_ns: int, **_kwargs: Any) -> None:
    stamps_ns[request_id].append(stamp_ns)


@events.llm_request.add_listener  # once per request, with any outcome
def on_request(record: RequestRecord, **_kwargs: Any) -> None:
    stamps = stamps_ns.pop(record.request_id, [])
    if record.ok and record.measured and record.end_to_end_latency_s is not None:
        slowest.append((record.end_to_end_latency_s, record, stamps))
        slowest.sort(key=lambda entry: entry[0], reverse=True)
        del slowest[SHOWN:]


@events.quitting.add_listener  # in a distributed run: in each worker, for its own requests
def on_quitting(**_kwargs: Any) -> None:
    print(f"{len(first_token_s)} first tokens; the slowest requests:")
    for latency_s, record, stamps in slowest:
        gaps_ms = [(late - early) / 1e6 for early, late in pairwise(stamps)]
        first = "an unknown time" if record.ttft_s is None else f"{record.ttft_s:.3f} s"  # a buffered answer
        print(
            f"{record.request_id}: {latency_s:.2f} s, first token after {first}, "
            f"{record.output_tokens} tokens, longest pause {max(gaps_ms, default=0):.0f} ms"
        )
