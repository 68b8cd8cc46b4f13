"""The way from one row of a run to one cell of LLMPerf's table: `python -m tests.unit.reports.path_of_a_cell`.

The tool writes a run in which one request has by far the largest time to first token and prints its tables with
``llm-report PREFIX --format md``. That time is the cell "Max" of the first table, and nothing else that is printed
shows it. Meanwhile the tool watches every call of a function of the product, from the reading of the rows to the end.

A file is on the path of the value if one of its functions passes the value on: the function returns rows, a run, a
group, figures, a table or a text that contains the value to a function that passes it on as well, or it prints the
text. A file whose functions only look at such an object, for example to count errors, is not on the path.
"""

from __future__ import annotations

import contextlib
import csv
import io
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from pandas import DataFrame, Series

from llm_users.record import REQUEST_COLUMNS, RequestRecord, cell
from llm_users.run_files import REQUESTS_CSV, path_of
from tests.project import ROOT

VALUE_S = 7.654321
CELL = "7.65"
CARRIERS = ("Run", "Group", "Summary", "Row", "Table", "Content", "Report")
"""The classes of the product in which the value travels, besides columns, rows and texts."""

_PRODUCT = (ROOT / "reports" / "llm_reports", ROOT / "llm_users")
_VARIABLE_ARGUMENTS = 0x04  # inspect.CO_VARARGS


@dataclass(eq=False)
class Call:
    """One call of a function of the product. ``caller`` is the nearest call of the product above it."""

    file: str
    function: str
    caller: Call | None
    receives: bool
    """Whether an argument contains the value."""
    passes: bool = False
    """Whether what it returns or yields contains the value, or whether it prints it."""


@dataclass(frozen=True)
class Trace:
    """The calls in the order of their beginnings, what was printed, and the classes that contained the value."""

    calls: list[Call]
    printed: str
    carriers: set[str]

    def path(self) -> dict[str, list[str]]:
        """The files that pass the value on, in the order of their first execution, with the functions that do it."""
        (printing,) = [call for call in self.calls if call.passes and call.function == "_print"]
        commands = set(_with_callers(printing.caller))
        found: dict[str, list[str]] = {}
        for call in self.calls:
            # A caller that does not pass on what it gets ends the way, unless it is the command that prints it.
            to_the_end = all(above.passes or above in commands for above in _with_callers(call.caller))
            if call.passes and to_the_end and call.function not in found.setdefault(call.file, []):
                found[call.file].append(call.function)
        return {file: functions for file, functions in found.items() if functions}

    def lookers(self) -> list[str]:
        """The other files in which a function gets an object that contains the value."""
        on_path = self.path()
        return list(dict.fromkeys(call.file for call in self.calls if call.receives and call.file not in on_path))


def write_run(folder: Path) -> Path:
    """Write a run of one stage in which the largest time to first token is ``VALUE_S``; returns its prefix."""
    prefix = folder / "run"
    with path_of(prefix, REQUESTS_CSV).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in REQUEST_COLUMNS])
        for i in range(200):
            record = RequestRecord(
                request_id=f"r{i}", stage=1, concurrency=1, measured=1, phase="measure", framework="openai", model="m",
                started_at=1.75e9 + 10 * i, ttft_s=VALUE_S if i == 100 else 0.1 + 0.001 * (i * 37 % 100),
                end_to_end_latency_s=9.0, output_tokens=100,
            )  # fmt: skip
            writer.writerow([cell(value) for value in record.row()])
    return prefix


def trace(folder: Path) -> Trace:
    """Print the tables of such a run and record the calls."""
    from llm_reports.input.rows import read_requests
    from llm_reports.main import main

    arguments = [str(write_run(folder)), "--format", "md"]
    output = io.StringIO()
    calls: list[Call] = []
    carriers: set[str] = set()
    by_frame: dict[FrameType, Call] = {}

    def watch(frame: FrameType, event: str, value: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event not in ("call", "return") or not any(path.is_relative_to(package) for package in _PRODUCT):
            return
        if event == "call" and frame not in by_frame:
            given = [frame.f_locals.get(name) for name in _arguments(frame)]
            caller = next((by_frame[above] for above in _above(frame) if above in by_frame), None)
            receives = any(_contains(argument, carriers) for argument in given)
            by_frame[frame] = Call(str(path.relative_to(ROOT)), frame.f_code.co_qualname, caller, receives)
            calls.append(by_frame[frame])
        elif event == "return":
            call = by_frame[frame]
            printed = frame.f_code.co_name == "_print" and CELL in output.getvalue()
            call.passes = call.passes or printed or _contains(value, carriers)

    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        sys.setprofile(watch)
        try:
            main(arguments)
        finally:
            sys.setprofile(None)
    first = next(place for place, call in enumerate(calls) if call.function == read_requests.__name__)
    # What is done before the rows are read, such as the options, is not part of the way; its callers are.
    callers = set(_with_callers(calls[first]))
    way = [call for place, call in enumerate(calls) if place > first or call in callers]
    return Trace(way, output.getvalue(), carriers)


def lines(made: Trace) -> Iterator[str]:
    """The path for a reader: the files with their functions, and below them the files that only look."""
    path = made.path()
    for number, (file, functions) in enumerate(path.items(), 1):
        yield f"{number:>3}  {file:<44} {', '.join(functions)}"
    executed = {call.file for call in made.calls}
    yield f"\nThe value passes through {len(path)} of {len(executed)} files. These only look at what contains it:"
    yield from (f"     {file}" for file in made.lookers())


def _with_callers(call: Call | None) -> Iterator[Call]:
    while call is not None:
        yield call
        call = call.caller


def _above(frame: FrameType) -> Iterator[FrameType]:
    above = frame.f_back
    while above is not None:
        yield above
        above = above.f_back


def _arguments(frame: FrameType) -> tuple[str, ...]:
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & _VARIABLE_ARGUMENTS)
    return code.co_varnames[:count]


def _contains(value: Any, carriers: set[str]) -> bool:
    """Whether an object contains the value; adds the class of one that does to ``carriers``."""
    if isinstance(value, str):
        return CELL in value
    if isinstance(value, float):
        return value == VALUE_S
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" and bool((value == VALUE_S).any())
    if isinstance(value, Series):
        return value.dtype.kind == "f" and bool((value == VALUE_S).any())
    if isinstance(value, DataFrame):
        return any(_contains(value[name], carriers) for name in value)
    if isinstance(value, Mapping):
        return any(_contains(one, carriers) for one in value.values())
    if isinstance(value, list | tuple):
        return any(_contains(one, carriers) for one in value)
    if type(value).__name__ in CARRIERS and any(_contains(getattr(value, one.name), carriers) for one in fields(value)):
        carriers.add(type(value).__name__)
        return True
    return False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print("\n".join(lines(trace(Path(temporary)))))
