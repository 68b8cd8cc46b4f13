"""Bodies of errors: decoded as far as a bound, whatever they were compressed with; put into words in little time."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable

import gevent
import pytest

from llm_users.transport.exchange import MAX_ERROR_BYTES
from tests.stream_bytes import reply
from tests.unit.users.rig import Rig, at
from tests.wire_server import Wire

SECRET = "sk-secret-0123456789"
_SAID = json.dumps({"error": {"message": "the queue is full"}}).encode()


@pytest.fixture(scope="module", params=["fast", "sdk"])
def either(request: pytest.FixtureRequest, make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(llm_transport=request.param, llm_timeout="20s")


def _deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def _bomb(mib: int) -> bytes:
    compressor = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    parts = [compressor.compress(b"too much. " * 104_858) for _ in range(mib)]
    return b"".join([*parts, compressor.flush()])


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", gzip.compress(_SAID), "the queue is full"),
        ("deflate", zlib.compress(_SAID), "the queue is full"),
        ("deflate", _deflate(_SAID), "the queue is full"),
        ("none", _SAID, "the queue is full"),
        ("br", b"\x0b\x02\x80", "compressed (br)"),
        ("gzip", b"no gzip at all", "Busy"),
    ],
    ids=["gzip", "zlib", "deflate", "none", "unknown", "wrong"],
)
def test_a_compressed_error_is_read(either: Rig, wire: Wire, encoding: str, body: bytes, words: str) -> None:
    port = wire.serve(reply("503 Busy", body, more=f"Content-Encoding: {encoding}\r\n"))
    record = either.ask(port.url).record
    assert record.error_code == "503"
    assert words in (record.error_message or "")


def test_what_it_becomes_is_bounded(either: Rig, wire: Wire) -> None:
    body = _bomb(100)
    assert len(body) < MAX_ERROR_BYTES  # so that its own length does not end it
    port = wire.serve(reply("500 Oops", body, kind="text/plain", more="Content-Encoding: gzip\r\n"))
    started_s = time.process_time()
    record = either.ask(port.url).record
    assert record.error_code == "500"
    assert (record.error_message or "").startswith("too much.")
    assert time.process_time() - started_s < 1.0  # 100 MiB take several seconds


@pytest.mark.parametrize(
    "unit", ["eyJ-", "eyJaaaaaaaa.", "bearer ", "://a:", "?key-", "sk-", "<script ", "<", "<script", '"', "a."]
)
def test_an_error_of_a_mebibyte_is_put_into_words_quickly(rig: Rig, wire: Wire, unit: str) -> None:
    text = (unit * (1 << 20))[: (1 << 20) - 10]
    port = wire.serve(reply("500 Oops", "<p>" + text if unit.startswith("<") else text, kind="text/html"))
    longest_s = 0.0

    def watch() -> None:
        nonlocal longest_s
        while True:
            cpu_s = time.process_time()
            gevent.sleep(0.001)
            longest_s = max(longest_s, time.process_time() - cpu_s)

    watching = gevent.spawn(watch)
    record = rig.call(at(port.url, lambda user: user.chat("hi"))).record
    watching.kill()
    assert record.error_code == "500"
    assert len(record.error_message or "") <= 500
    assert longest_s < 0.5  # a quadratic search takes minutes


@pytest.mark.parametrize("before", [0, 470, 490, 495, 8000, 8185, 8192, 12_280, 12_700, 12_780, 12_788])
@pytest.mark.parametrize("filling", ["x ", " "])
def test_no_cut_goes_through_a_secret(rig: Rig, wire: Wire, before: int, filling: str) -> None:
    text = "." + (filling * before)[:before] + SECRET + " end" + "y " * 20_000
    record = rig.ask(wire.serve(reply("500 Oops", text, kind="text/plain")).url).record
    assert "sk-s" not in (record.error_message or "")
