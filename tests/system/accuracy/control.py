"""The control: what a plain aiohttp client with uvloop and orjson costs per token under the same load.

Run as a program: URL of the API, number of streams, number of measured requests, ramp in seconds, tokens per answer. It
prints one JSON object. It sends chat completions like the product does: the streams start evenly over the ramp, each
sends one warm-up request, and then they take turns until all measured requests have started. It reads what arrives,
splits it into events, decodes each event and counts the tokens. It takes no timestamps of tokens and writes no rows.

The window is the product's: it opens when the first measured request starts and closes when the last one starts. It
stays open until the last measured request has ended if it would be shorter than half a mean latency. The CPU time is
that of the whole process between these two moments, and the tokens are those that arrived between them. The program
imports nothing of the project.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
import orjson
import uvloop

_PROMPT = "x " * 100


@dataclass(slots=True)
class Counts:
    """What the control counts. Moments are nanoseconds of the monotonic clock, as in the logs of the servers."""

    requests: int = 0
    tokens: int = 0
    window_requests: int = 0
    window_tokens: int = 0
    window_cpu_s: float = 0.0
    window_start_ns: int = 0
    window_end_ns: int = 0


class Control:
    """The streams of one run and their window."""

    def __init__(self, session: aiohttp.ClientSession, url: str, requests: int, tokens: int) -> None:
        self._session, self._url, self._tokens = session, f"{url}/chat/completions", tokens
        self._to_start = self._to_end = requests
        self._latency_s = 0.0
        self._short = False
        self.counts = Counts()

    async def stream(self, delay_s: float) -> None:
        """Send one request after another: a warm-up request, then measured requests while there are any to start."""
        await asyncio.sleep(delay_s)
        await self._ask()
        while self._to_start:
            self._start_measured()
            start_s = time.monotonic()
            await self._ask()
            self._end_measured(time.monotonic() - start_s)

    async def _ask(self) -> None:
        body = {
            "model": "control",
            "messages": [{"role": "user", "content": _PROMPT}],
            "max_tokens": self._tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        counts, unread = self.counts, b""
        async with self._session.post(self._url, data=orjson.dumps(body)) as response:
            response.raise_for_status()
            async for data in response.content.iter_any():
                *events, unread = (unread + data).split(b"\n\n")
                for event in events:
                    if event == b"data: [DONE]":
                        break
                    choices: list[dict[str, Any]] = orjson.loads(event.removeprefix(b"data: "))["choices"]
                    if choices and choices[0]["delta"].get("content"):
                        counts.tokens += 1
        counts.requests += 1

    def _start_measured(self) -> None:
        counts = self.counts
        if not counts.window_start_ns:
            counts.window_start_ns, counts.window_tokens = time.monotonic_ns(), -counts.tokens
            counts.window_cpu_s = -time.process_time()
        self._to_start -= 1
        if not self._to_start:
            length_s = (time.monotonic_ns() - counts.window_start_ns) / 1e9
            ended = counts.window_requests
            self._short = not ended or length_s < 0.5 * self._latency_s / ended
            if not self._short:
                self._close()

    def _end_measured(self, latency_s: float) -> None:
        self.counts.window_requests += 1
        self._latency_s += latency_s
        self._to_end -= 1
        if not self._to_end and self._short:
            self._close()

    def _close(self) -> None:
        counts = self.counts
        counts.window_end_ns = time.monotonic_ns()
        counts.window_cpu_s += time.process_time()
        counts.window_tokens += counts.tokens


async def _run(url: str, streams: int, requests: int, ramp_s: float, tokens: int) -> Counts:
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
    headers = {"Authorization": "Bearer control", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        control = Control(session, url, requests, tokens)
        await asyncio.gather(*(control.stream(ramp_s * index / streams) for index in range(streams)))
    return control.counts


if __name__ == "__main__":
    _url, _streams, _requests, _ramp_s, _tokens = sys.argv[1:]
    _counts = uvloop.run(_run(_url, int(_streams), int(_requests), float(_ramp_s), int(_tokens)))
    print(orjson.dumps(asdict(_counts)).decode())
