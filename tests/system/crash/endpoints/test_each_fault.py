"""Each fault alone: its requests and their healthy neighbours all have rows, in time, within bounded memory."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.crash.endpoints import table
from tests.system.crash.endpoints.cases import BEDROCK, CASES, Case
from tests.system.crash.endpoints.conftest import Endpoints
from tests.system.crash.endpoints.memory import forget_peak, now_mib, peak_mib
from tests.unit.users.rig import Rig, at, eventually

FAULTY = HEALTHY = 4
MOST_MORE_MIB = 192
"""Four streams that are refused at 16 MiB each, and what the kernel's and Python's buffers add."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_fault_has_its_rows_and_the_neighbours_theirs(
    case: Case, endpoints: Endpoints, rig_with: Callable[..., Rig]
) -> None:
    rig = rig_with(case.api, case.timeout)
    urls = [case.url(endpoints)] * FAULTY + [endpoints.simulator("")] * HEALTHY
    before = rows_of(rig)
    forget_peak()
    start_mib, start_s = now_mib(), time.monotonic()
    answers = [each.get(timeout=60) for each in [rig.send(asking(case, url)) for url in urls]]
    took_s, more_mib = time.monotonic() - start_s, peak_mib() - start_mib

    found = rows_of(rig)[len(before) :]
    messages = {row["error_message"] for row in found if row["error_code"]}
    table.note(case.name, f"{FAULTY} requests, {HEALTHY} healthy beside", len(urls), len(found), "; ".join(messages))
    assert len(found) == len(urls)
    assert len({row["request_id"] for row in found}) == len(urls)
    for answer in answers[:FAULTY]:
        record = answer.record
        assert record.error_code in case.codes, record
        for word in case.words:
            assert word in (record.error_message or ""), record
        if case.text is not None:
            assert answer.text == case.text
    for answer in answers[FAULTY:]:
        assert answer.record.error_code is None, answer.record
        assert answer.record.chunks == answer.record.output_tokens
        assert answer.record.chunks in (8, 150)  # what the simulator gives, and what we ask Bedrock for
    assert took_s < 30
    assert more_mib < MOST_MORE_MIB
    assert rig.call(lambda user: user.run_context.gate.in_flight) == 0


def asking(case: Case, url: str) -> Callable[[Any], Any]:
    if case.api == BEDROCK:
        return at(url.removesuffix("/v1"), lambda user: user.converse("hello"))
    return at(url, lambda user: user.chat("hello"))


def rows_of(rig: Rig) -> list[dict[str, str]]:
    """What is on disk."""
    from llm_users.extension import wiring_of

    wiring = wiring_of(rig.environment)
    assert wiring is not None
    assert wiring.coordinating is not None
    coordinator = wiring.coordinating.coordinator
    writer = eventually(lambda: coordinator.writer, within_s=30)
    writer.flush()
    with Path(f"{writer.prefix}_llm_requests.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
