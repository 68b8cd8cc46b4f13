"""Answers with an injected fault. Each class wraps a good answer and passes on its bytes until the fault begins.

This module depends on bytes and HTTP chunks; the only part of an API that it needs is the start of an event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import ClassVar

from llm_users.simulator import http_wire
from llm_users.simulator.answer import Answer
from llm_users.simulator.spec import Fault, Spec

_MIB = b"x" * (1 << 20)
_GIANT_MIB = 64
_BOMB_LINES = b"".join(b"x-filler-%03d: %s\r\n" % (i, b"y" * 1000) for i in range(64))
_BOMB_WRITES = 1024  # 64 MiB
_FOREVER = 1 << 40
_NOT_HTTP = b"\x16\x03\x00\xff what is this?\r\n\r\n"
_NOT_A_CHUNK = b"zz what is this?\r\n"
_UNASKED = http_wire.response(200, b'{"unasked": true}')


def met(spec: Spec, answer: Answer, event_start: bytes) -> Answer:
    """Return the answer, wrapped in the fault of its request if there is one.

    ``event_start`` is the start of an event that never ends, for the fault ``giant``.
    """
    fault = spec.fault_of(answer.number)
    if fault is None or not answer.streamed or (fault.after or 0) > answer.tokens:
        return answer
    make = (_BEFORE_ANSWER if fault.after is None else _IN_ANSWER)[fault.kind]
    return make(answer, fault, event_start)


@dataclass(eq=False)
class _Faulty:
    """Sends the good answer up to the fault, then what ``last`` makes of the next bytes of the good answer.

    Without ``last``, nothing follows the good answer. Without ``headers``, the answer has no headers.
    """

    more_tokens: ClassVar[int] = 0
    """The number of pieces after the good answer."""

    good: Answer
    injected: Fault
    event_start: bytes
    _: KW_ONLY
    outcome: str = "cut"
    close: bool = True
    headers: bool = True
    last: Callable[[bytes], bytes] | None = None

    def __post_init__(self) -> None:
        self.fault = str(self.injected)
        self.number = self.good.number
        self.response_id = self.good.response_id
        self.prompt_tokens = self.good.prompt_tokens
        self.streamed = True
        self.answered = self.good.answered
        self.after = self.injected.after or 0
        self.tokens = self.after + self.more_tokens
        self._head = self.good.opening()
        self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in self._head

    def opening(self) -> bytes:
        return self._head if self.headers else b""

    def comment(self) -> bytes:
        return b""

    def piece(self, start: int) -> tuple[bytes, int]:
        return (b"", 0) if start >= self.tokens else self.good.piece(start)

    def closing(self) -> bytes:
        return b"" if self.last is None else self.last(self.good.piece(self.after)[0] or self.good.closing())


class _Giant(_Faulty):
    more_tokens = _GIANT_MIB

    def piece(self, start: int) -> tuple[bytes, int]:
        if start < self.after:
            return self.good.piece(start)
        pieces = (self.event_start, _MIB) if start == self.after else (_MIB,)
        return b"".join(http_wire.chunk(piece) if self._chunked else piece for piece in pieces), 1


class _Endless(_Faulty):
    more_tokens = _FOREVER
    _repeated = b""

    def piece(self, start: int) -> tuple[bytes, int]:
        if start < max(1, self.after):
            self._repeated, count = self.good.piece(start)
            return self._repeated, count
        return self._repeated, 1


class _HeaderBomb(_Faulty):
    more_tokens = _BOMB_WRITES

    def opening(self) -> bytes:
        return b"HTTP/1.1 200 OK\r\n"

    def piece(self, start: int) -> tuple[bytes, int]:  # noqa: ARG002 - always the same
        return _BOMB_LINES, 1


class _Slow(_Faulty):
    """Sends the complete good answer, and its headers byte by byte."""

    def __init__(self, good: Answer, fault: Fault, event_start: bytes) -> None:
        super().__init__(good, fault, event_start, outcome=good.outcome, close=good.close, headers=False)
        self._head_tokens = self._head.index(b"\r\n\r\n") + 4
        self.tokens = self._head_tokens + good.tokens

    def piece(self, start: int) -> tuple[bytes, int]:
        if start < self._head_tokens - 1:
            return self._head[start : start + 1], 1
        if start == self._head_tokens - 1:
            return self._head[start:], 1
        return self.good.piece(start - self._head_tokens)

    def closing(self) -> bytes:
        return self.good.closing()


class _Unasked(_Faulty):
    """Sends the complete good answer, and a second response one token gap after its end."""

    def __init__(self, good: Answer, fault: Fault, event_start: bytes) -> None:
        super().__init__(good, fault, event_start, outcome=good.outcome, close=good.close)
        self.tokens = good.tokens + 1

    def piece(self, start: int) -> tuple[bytes, int]:
        if start >= self.good.tokens:
            return _UNASKED, 1
        data, count = self.good.piece(start)
        return (data + self.good.closing() if start + count >= self.good.tokens else data), count


_BEFORE_ANSWER: dict[str, Callable[[Answer, Fault, bytes], _Faulty]] = {
    "reset": partial(_Faulty, outcome="reset", headers=False),
    "stall": partial(_Faulty, outcome="stalled", close=False, headers=False),
    "garbage": partial(_Faulty, headers=False, last=lambda _data: _NOT_HTTP),
    "slow": _Slow,
    "bomb": _HeaderBomb,
    "unasked": _Unasked,
}
_IN_ANSWER: dict[str, Callable[[Answer, Fault, bytes], _Faulty]] = {
    "reset": partial(_Faulty, outcome="reset"),
    "stall": partial(_Faulty, outcome="stalled", close=False),
    "half": partial(_Faulty, last=lambda data: data[: len(data) // 2]),
    "flip": partial(_Faulty, last=lambda data: data.replace(b"{", b"[", 1)),
    "garbage": partial(_Faulty, last=lambda _data: _NOT_A_CHUNK),
    "giant": _Giant,
    "endless": _Endless,
}
