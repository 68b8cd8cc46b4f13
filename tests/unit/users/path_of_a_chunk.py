"""The way of one chunk from the socket to the row of its request: `python -m tests.unit.users.path_of_a_chunk`.

The tool sends one streamed chat request to the simulated endpoint, over real sockets, and follows the first chunk of
the answer. It watches every call of a function of the product in the event loop and in the greenlet of the user, from
the read of the socket that brings the chunk to the end of ``RunFiles.write_request``, which writes the row.

A file is on the path of the chunk if one of its functions passes the chunk on: the function returns or yields an object
that contains the chunk; or an argument contains the chunk at its end and did not contain it at its beginning; or it
gives such an object to a function that passes it on. An object contains the chunk if it has its text or the time of its
arrival; a record or a row contains it if it has the time to first token. A file whose functions only look at such an
object, for example to detect buffering, is not on the path.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import gevent

from llm_users.simulator.launch import launch
from llm_users.transport.clock import Stamp, kernel_ns
from tests.project import ROOT
from tests.unit.users.rig import Rig, at

CARRIERS = {
    "_AnswerDecoder": ("buffer",),
    "_CompletionStream": ("events",),
    "Answer": ("record",),
    "Chunks": ("clocks_ns",),
    "Exchange": ("_stamps_ns", "_clocks_ns", "_unparsed"),
    "OpenAIEvents": ("chunks",),
    "RequestRecord": ("ttft_s",),
    "ResponseParser": ("body",),
}
"""The objects of the product in which the chunk travels, besides numbers, bytes, lists and tuples."""

_CONTENT = re.compile(rb'"content":\s*"([^"\\]+)"')
_PRODUCT = ROOT / "llm_users"


@dataclass(eq=False)
class Call:
    """One call of a function of the product. ``caller`` is the nearest call of the product above it."""

    file: str
    function: str
    caller: Call | None
    empty: list[int]
    """The positions of the arguments that did not contain the chunk at the beginning."""
    receives: bool
    """Whether the other arguments, if there are any, contained it."""
    returned: int = 0
    """The last number that it returned before the chunk was found."""
    passes: bool = False


@dataclass
class Trace:
    """The calls in the order of their beginnings, and the time to first token in the row."""

    calls: list[Call] = field(default_factory=list)
    ttft_s: float | None = None

    def path(self) -> dict[str, list[str]]:
        """The files that pass the chunk on, in the order of their first execution, with the functions that do it."""
        on_path = {call for call in self.calls if call.passes}
        for call in list(on_path):
            while (caller := call.caller) is not None and caller.receives:
                on_path.add(caller)
                call = caller  # noqa: PLW2901 - one step up
        found: dict[str, list[str]] = {}
        for call in self.calls:
            if call in on_path and call.function not in found.setdefault(call.file, []):
                found[call.file].append(call.function)
        return {file: functions for file, functions in found.items() if functions}

    def lookers(self) -> list[str]:
        """The other files in which a function gets an object that contains the chunk."""
        on_path = self.path()
        return list(dict.fromkeys(call.file for call in self.calls if call.receives and call.file not in on_path))


class _Watch:
    """The profile function. It finds the chunk in the first read of the socket that contains text of the answer."""

    def __init__(self) -> None:
        self.trace = Trace()
        self._greenlets = (gevent.get_hub(), gevent.getcurrent())
        self._by_frame: dict[FrameType, Call] = {}
        self._stamps_ns: tuple[int, ...] = ()
        self._stamp = self._text = b""
        self._ttft_s: float | None = None
        self._is_over = False

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if self._is_over or gevent.getcurrent() not in self._greenlets or not path.is_relative_to(_PRODUCT):
            return
        if event == "call" and frame not in self._by_frame:
            full = [self._has(argument) for argument in _arguments(frame)]
            empty = [place for place, contains in enumerate(full) if not contains]
            caller = next((self._by_frame[above] for above in _above(frame) if above in self._by_frame), None)
            name = frame.f_code.co_qualname
            call = self._by_frame[frame] = Call(str(path.relative_to(ROOT)), name, caller, empty, any(full))
            self.trace.calls.append(call)
            if name == "Exchange._on_read" and not self._stamps_ns:
                self._begin(call, *_arguments(frame))
        elif event == "return" and (call := self._by_frame.get(frame)) is not None:
            self._end(call, _arguments(frame), value)

    def _begin(self, call: Call, exchange: Any, stamp: Stamp, clock_ns: int, data: bytes) -> None:
        """Begin with the read that contains text of the answer."""
        if content := _CONTENT.search(data):
            offset_ns = exchange.sent_wall_ns - exchange.sent_ns
            self._stamps_ns = kernel_ns(stamp), kernel_ns(stamp) - offset_ns, clock_ns
            self._stamp, self._text = stamp, content[0]
            call.passes = True
            for earlier in self.trace.calls:
                earlier.passes |= earlier is call.caller or earlier.returned in self._stamps_ns

    def _end(self, call: Call, arguments: list[Any], value: Any) -> None:
        if not self._stamps_ns:
            call.returned = value if type(value) is int else 0
        else:
            self._is_over = call.function == "RunFiles.write_request"
            call.passes |= self._is_over or self._has(value) or any(self._has(arguments[place]) for place in call.empty)

    def _has(self, value: Any) -> bool:
        """Whether an object contains the chunk."""
        if not self._stamps_ns:
            return False
        if isinstance(value, int):
            return value in self._stamps_ns
        if isinstance(value, float):
            return value == self._ttft_s
        if isinstance(value, bytes | bytearray):
            return self._text in value or value == self._stamp
        if isinstance(value, list | tuple):
            return any(map(self._has, value))
        if type(value).__name__ == "RequestRecord":
            self._ttft_s = self._ttft_s or value.ttft_s
        return any(self._has(getattr(value, name)) for name in CARRIERS.get(type(value).__name__, ()))


def _arguments(frame: FrameType) -> list[Any]:
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    return [frame.f_locals.get(name) for name in code.co_varnames[:count]]


def _above(frame: FrameType) -> Iterator[FrameType]:
    above = frame.f_back
    while above is not None:
        yield above
        above = above.f_back


def _set_profile(profile: _Watch | None) -> None:
    """Set the profile function of this greenlet and of the event loop."""
    gevent.get_hub().loop.run_callback(sys.setprofile, profile)
    gevent.sleep(0)
    sys.setprofile(profile)


def trace(folder: Path) -> Trace:
    """Send such a request and record the calls."""

    def ask(user: Any) -> Trace:
        user.chat("hello", max_tokens=6)  # clients and connections exist now; so few chunks never count as buffered
        watch = _Watch()
        _set_profile(watch)
        try:
            answer = user.chat("hello", max_tokens=6)
        finally:
            _set_profile(None)
        watch.trace.ttft_s = answer.record.ttft_s
        return watch.trace

    rig = Rig(folder)
    try:
        with launch("ttft=50ms,itl=5ms", max_seconds=60) as simulator:
            made: Trace = rig.call(at(simulator.url, ask))
    finally:
        rig.stop()
    return made


def lines(made: Trace) -> Iterator[str]:
    """The path for a reader: the files with their functions, and below them the files that only look."""
    path = made.path()
    for number, (file, functions) in enumerate(path.items(), 1):
        yield f"{number:>3}  {file:<36} {', '.join(functions)}"
    executed = {call.file for call in made.calls}
    yield f"\nThe chunk passes through {len(path)} of {len(executed)} files. These only look at what contains it:"
    yield from (f"     {file}" for file in made.lookers())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print("\n".join(lines(trace(Path(temporary)))))
