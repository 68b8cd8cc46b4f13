"""The clock: offsets, stamps, and what happens when the wall clock is moved."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from llm_users.transport import clock
from llm_users.transport.exchange import Exchange
from llm_users.transport.pool import Pool
from llm_users.users.chunks import Chunks
from tests.stream_bytes import stream
from tests.unit.transport.test_exchange import begun
from tests.wire_server import Wire


def test_the_offset_leads_from_one_clock_to_the_other() -> None:
    offset_ns = clock.wall_offset_ns()
    assert abs(time.time_ns() - (time.monotonic_ns() + offset_ns)) < 1_000_000
    assert abs(clock.wall_offset_ns() - offset_ns) < 1_000_000


def test_the_stamp_of_a_read_is_its_timespec() -> None:
    stamp = clock.stamp_of([(socket.SOL_SOCKET, clock.SO_TIMESTAMPNS, struct.pack("@qq", 12, 34))])
    assert clock.kernel_ns(stamp) == 12_000_000_034
    assert clock.kernel_ns(clock.stamp_of([])) == 0
    assert clock.kernel_ns(b"short") == 0


def test_many_stamps_are_converted_like_single_ones() -> None:
    first, second = struct.pack("@qq", 12, 34), struct.pack("@qq", 13, 5)
    assert clock.monotonic_ns([first, second], 1_000) == [11_999_999_034, 12_999_999_005]
    assert clock.monotonic_ns([first, b"", second], 1_000) == [11_999_999_034, 0, 12_999_999_005]
    assert clock.monotonic_ns([first, b"", second + first], 1_000)[:2] == [11_999_999_034, 0]
    assert clock.monotonic_ns([], 1_000) == []


@pytest.mark.parametrize(("moved_ns", "moved"), [(0, False), (500_000, False), (5_000_000, True), (-(10**12), True)])
def test_a_wall_clock_that_was_moved_is_noticed(
    wire: Wire, pool: Pool, monkeypatch: pytest.MonkeyPatch, moved_ns: int, moved: bool
) -> None:
    offset_ns = clock.wall_offset_ns()
    monkeypatch.setattr(clock, "wall_offset_ns", lambda: offset_ns)
    exchange: Exchange = begun(pool, wire.serve(stream([b"x"])))
    assert list(exchange.arrivals())
    monkeypatch.setattr(clock, "wall_offset_ns", lambda: offset_ns + moved_ns)
    assert exchange.clock_moved() is moved


def test_stamps_are_the_kernel_s_only_if_all_of_them_are() -> None:
    chunks = Chunks()
    chunks.add(100, 110, "a", "")
    chunks.add(200, 210, "b", "")
    assert chunks.trusted_stamps_ns(clock_moved=False) == ([100, 200], "kernel")
    assert chunks.trusted_stamps_ns(clock_moved=True) == ([110, 210], "user")
    chunks.add(0, 310, "c", "")
    assert chunks.trusted_stamps_ns(clock_moved=False) == ([110, 210, 310], "user")
