"""Answers with an injected fault. Each class wraps a good answer and passes on its bytes until the fault begins.

This module depends on bytes and HTTP chunks; the only part of an API that it needs is the start of an event.
"""

from __future__ import annotations

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
    kinds = _BEFORE if fault.after is None else _INSIDE
    return kinds[fault.kind](answer, fault, event_start)


class _Faulty:
    """Sends the good answer up to ``tokens``, which subclasses set, then the bytes of ``closing``."""

    outcome = "cut"
    close = True

    def __init__(self, good: Answer, fault: Fault, event_start: bytes) -> None:
        self.good = good
        self.fault = str(fault)
        self.number = good.number
        self.response_id = good.response_id
        self.prompt_tokens = good.prompt_tokens
        self.streamed = True
        self.answered = good.answered
        self.tokens = self.after = fault.after or 0
        self._event_start = event_start
        self._head = good.opening()
        self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in self._head

    def opening(self) -> bytes:
        return self._head

    def comment(self) -> bytes:
        return b""

    def piece(self, start: int) -> tuple[bytes, int]:
        return (b"", 0) if start >= self.tokens else self.good.piece(start)

    def closing(self) -> bytes:
        return b""

    def _framed(self, data: bytes) -> bytes:
        return http_wire.chunk(data) if self._chunked else data

    def _next(self) -> bytes:
        """Return the bytes that the good answer would send next."""
        return self.good.piece(self.after)[0] or self.good.closing()


class _Reset(_Faulty):
    outcome = "reset"


class _Stall(_Faulty):
    outcome = "stalled"
    close = False


class _Half(_Faulty):
    def closing(self) -> bytes:
        data = self._next()
        return data[: len(data) // 2]


class _Flip(_Faulty):
    def closing(self) -> bytes:
        return self._next().replace(b"{", b"[", 1)


class _Garbage(_Faulty):
    def closing(self) -> bytes:
        return _NOT_A_CHUNK


class _Giant(_Faulty):
    def __init__(self, good: Answer, fault: Fault, event_start: bytes) -> None:
        super().__init__(good, fault, event_start)
        self.tokens = self.after + _GIANT_MIB
        self._mib = self._framed(_MIB)

    def piece(self, start: int) -> tuple[bytes, int]:
        if start < self.after:
            return self.good.piece(start)
        return (self._framed(self._event_start) if start == self.after else b"") + self._mib, 1


class _Endless(_Faulty):
    _repeated = b""

    def __init__(self, good: Answer, fault: Fault, event_start: bytes) -> None:
        super().__init__(good, fault, event_start)
        self.tokens = _FOREVER

    def piece(self, start: int) -> tuple[bytes, int]:
        if start < max(1, self.after):
            self._repeated, count = self.good.piece(start)
            return self._repeated, count
        return self._repeated, 1


class _NoHeaders:
    """Mixin for faults before the headers: sends no headers."""

    def opening(self) -> bytes:
        return b""


class _ResetBeforeHeaders(_NoHeaders, _Reset):
    pass


class _StallBeforeHeaders(_NoHeaders, _Stall):
    pass


class _NotHttp(_NoHeaders, _Faulty):
    def closing(self) -> bytes:
        return _NOT_HTTP


class _HeaderBomb(_Faulty):
    def __init__(self, good: Answer, fault: Fault, event_start: bytes) -> None:
        super().__init__(good, fault, event_start)
        self.tokens = _BOMB_WRITES

    def opening(self) -> bytes:
        return b"HTTP/1.1 200 OK\r\n"

    def piece(self, start: int) -> tuple[bytes, int]:  # noqa: ARG002 - always the same
        return _BOMB_LINES, 1


class _Whole(_Faulty):
    """Sends the complete good answer; subclasses add a fault to it."""

    def __init__(self, good: Answer, fault: Fault, event_start: bytes) -> None:
        super().__init__(good, fault, event_start)
        self.outcome, self.close = good.outcome, good.close

    def closing(self) -> bytes:
        return self.good.closing()


class _Slow(_NoHeaders, _Whole):
    def __init__(self, good: Answer, fault: Fault, event_start: bytes) -> None:
        super().__init__(good, fault, event_start)
        self._head_tokens = self._head.index(b"\r\n\r\n") + 4
        self.tokens = self._head_tokens + good.tokens

    def piece(self, start: int) -> tuple[bytes, int]:
        if start < self._head_tokens - 1:
            return self._head[start : start + 1], 1
        if start == self._head_tokens - 1:
            return self._head[start:], 1
        return self.good.piece(start - self._head_tokens)


class _Unasked(_Whole):
    """Sends a second response one token gap after the end of the first."""

    def __init__(self, good: Answer, fault: Fault, event_start: bytes) -> None:
        super().__init__(good, fault, event_start)
        self.tokens = good.tokens + 1

    def piece(self, start: int) -> tuple[bytes, int]:
        if start >= self.good.tokens:
            return _UNASKED, 1
        data, count = self.good.piece(start)
        return (data + self.good.closing() if start + count >= self.good.tokens else data), count

    def closing(self) -> bytes:
        return b""


_BEFORE: dict[str, type[_Faulty]] = {
    "reset": _ResetBeforeHeaders,
    "stall": _StallBeforeHeaders,
    "garbage": _NotHttp,
    "slow": _Slow,
    "bomb": _HeaderBomb,
    "unasked": _Unasked,
}
_INSIDE: dict[str, type[_Faulty]] = {
    "reset": _Reset,
    "stall": _Stall,
    "half": _Half,
    "flip": _Flip,
    "garbage": _Garbage,
    "giant": _Giant,
    "endless": _Endless,
}
