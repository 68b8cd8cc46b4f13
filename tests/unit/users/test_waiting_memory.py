"""What a request that waits for its first token keeps in memory."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from llm_users.users.chunks import Chunks
from tests.stream_bytes import CHUNKED, head
from tests.unit.users.rig import Rig, at
from tests.wire_server import HOLD, Wire, send

MakeRig = Callable[..., Rig]
TEXT = "a prompt of this test only"


def _objects(*kinds: type) -> list[Any]:
    gc.collect()
    return [value for value in gc.get_objects() if type(value) in kinds]


@pytest.mark.parametrize("answer", [b"", head(CHUNKED)], ids=["request", "headers"])
def test_a_waiting_request_keeps_no_chunks(make_rig: MakeRig, wire: Wire, answer: bytes) -> None:
    earlier = set(map(id, _objects(Chunks)))
    port = wire.serve([send(answer), HOLD])
    _wait_for_the_server(make_rig(), port)
    assert [chunks for chunks in _objects(Chunks) if id(chunks) not in earlier] == []


def test_a_request_whose_headers_arrived_keeps_no_body(make_rig: MakeRig, wire: Wire) -> None:
    port = wire.serve([send(head(CHUNKED)), HOLD])
    _wait_for_the_server(make_rig(), port)
    bodies = [value for value in _objects(dict) if {"messages", "stream"} <= value.keys()]
    assert [body for body in bodies if TEXT in str(body["messages"])] == []


def test_the_task_queue_of_an_llm_user_is_small_and_in_order(rig: Rig) -> None:
    def schedule(user: Any) -> list[Any]:
        task_set = user._taskset_instance
        queue = task_set._task_queue
        assert not isinstance(queue, deque)
        for name, first in (("b", False), ("c", False), ("a", True)):
            task_set.schedule_task(name, first=first)
        return [queue.popleft() for _ in range(3)]

    assert rig.call(schedule) == ["a", "b", "c"]


def _wait_for_the_server(rig: Rig, port: Any) -> None:
    rig.send(at(port.url, lambda user: user.chat(TEXT)))
    with gevent.Timeout(5):
        while not port.requests():
            gevent.sleep(0.02)
    gevent.sleep(0.2)  # the headers arrive
