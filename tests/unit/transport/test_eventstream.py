"""The event-stream codec: whatever the split, the same messages; whatever is wrong with the bytes, no wrong one."""

from __future__ import annotations

import random
import struct
import time
import uuid
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_users.transport import eventstream
from llm_users.transport.eventstream import (
    BadEventStream,
    Byte,
    EventStreamDecoder,
    Int,
    Long,
    Message,
    Short,
    Timestamp,
    encode,
    encode_headers,
    frame,
)

EVENT = {":event-type": "contentBlockDelta", ":content-type": "application/json", ":message-type": "event"}
PAYLOAD = b'{"contentBlockIndex":0,"delta":{"text":" memory"},"p":"abcdefghijklm"}'
EVERY_TYPE = {
    "true": True,
    "false": False,
    "byte": Byte(-128),
    "short": Short(-32768),
    "int": Int(-(2**31)),
    "long": Long(2**63 - 1),
    "bytes": b"\x00\xff",
    "string": "größe 日本",
    "timestamp": Timestamp(1_700_000_000_123),
    "uuid": uuid.UUID(int=5),
}
NUMBERS = [(Byte, 7), (Short, 15), (Int, 31), (Long, 63), (Timestamp, 63)]
VALUES = st.one_of(
    st.booleans(),
    st.uuids(),
    st.binary(max_size=40),
    st.text(max_size=40),
    *(
        st.integers(-(2**bits), 2**bits - 1).map(kind)  # every number of that size
        for kind, bits in NUMBERS
    ),
)
HEADERS = st.dictionaries(st.text(min_size=1, max_size=30), VALUES, max_size=12)


def decoded(*pieces: bytes | bytearray) -> list[Message]:
    decoder = EventStreamDecoder()
    return [message for piece in pieces for message in decoder.feed(piece)] + decoder.finish()


def message(block: bytes, payload: bytes = b"", *, total: int | None = None, header_bytes: int | None = None) -> bytes:
    """With right checksums, whatever the lengths say."""
    total = 16 + len(block) + len(payload) if total is None else total
    prelude = struct.pack(">II", total, len(block) if header_bytes is None else header_bytes)
    data = prelude + struct.pack(">I", crc32(prelude)) + block + payload
    return data + struct.pack(">I", crc32(data))


def header(name: bytes, code: int, value: bytes = b"") -> bytes:
    return bytes((len(name),)) + name + bytes((code,)) + value


def test_a_message_byte_for_byte() -> None:
    # Worked out by hand: 16 bytes of frame, 10 of header, 2 of payload.
    data = encode({"a": "bcd\u00e9"}, b"{}")
    assert data[:8].hex() == "0000001c0000000a"
    assert data[12:24].hex() == "0161" + "07" + "0005" + "626364c3a9" + "7b7d"
    assert int.from_bytes(data[8:12], "big") == crc32(data[:8])
    assert int.from_bytes(data[-4:], "big") == crc32(data[:-4])
    assert encode({}).hex() == "000000100000000005c248eb7d98c8ff"  # the shortest message there is


def test_every_header_type_goes_round() -> None:
    (got,) = decoded(encode(EVERY_TYPE, b"x"))
    assert dict(got.headers) == EVERY_TYPE
    assert got.payload == b"x"
    assert [type(value) for value in got.headers.values()] == [type(value) for value in EVERY_TYPE.values()]


@given(headers=HEADERS, payload=st.binary(max_size=200))
def test_any_headers_go_round(headers: dict[str, eventstream.HeaderValue], payload: bytes) -> None:
    (got,) = decoded(bytearray(encode(headers, payload)))
    assert dict(got.headers) == headers
    assert [type(value) for value in got.headers.values()] == [type(value) for value in headers.values()]
    assert got.payload == payload


def test_plain_numbers_take_the_size_that_they_need() -> None:
    (got,) = decoded(encode({"small": 5, "least": -(2**31), "large": 2**31}))
    assert [type(value) for value in got.headers.values()] == [Int, Int, Long]


def test_every_split_in_two_and_byte_by_byte() -> None:
    data = encode(EVENT, PAYLOAD) + encode(EVERY_TYPE) + encode({}, b"") + encode(EVENT, PAYLOAD * 3)
    whole = decoded(data)
    assert [m.payload for m in whole] == [PAYLOAD, b"", b"", PAYLOAD * 3]
    for cut in range(len(data) + 1):
        assert decoded(data[:cut], data[cut:]) == whole
    assert decoded(*(data[i : i + 1] for i in range(len(data)))) == whole


@settings(max_examples=50)
@given(st.data())
def test_any_split(draw: st.DataObject) -> None:
    data = b"".join(encode(EVENT, b"x" * n) for n in draw.draw(st.lists(st.integers(0, 99), max_size=8)))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=20)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert decoded(*pieces) == decoded(data)


def test_a_message_is_given_out_with_its_last_byte() -> None:
    data = encode(EVENT, PAYLOAD)
    decoder = EventStreamDecoder()
    assert decoder.feed(data[:-1]) == []
    assert [m.payload for m in decoder.feed(data[-1:])] == [PAYLOAD]


def test_every_flipped_bit_and_byte_is_noticed() -> None:
    data = encode(EVENT, PAYLOAD)
    for at in range(len(data)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            wrong = bytearray(data)
            wrong[at] ^= flip
            with pytest.raises(BadEventStream):
                decoded(wrong)


def test_messages_before_a_fault_are_not_lost() -> None:
    good, bad = encode(EVENT, PAYLOAD), bytearray(encode(EVENT, b"no"))
    bad[-1] ^= 1
    decoder = EventStreamDecoder()
    assert [m.payload for m in decoder.feed(good + good + bytes(bad) + good)] == [PAYLOAD, PAYLOAD]
    for _ in range(2):  # and nothing after it is believed
        with pytest.raises(BadEventStream, match="checksum"):
            decoder.feed(good)
    with pytest.raises(BadEventStream, match="checksum"):
        decoder.finish()


def test_an_unfinished_message_is_incomplete_and_a_wrong_one_is_not() -> None:
    data = encode(EVENT, PAYLOAD)
    for cut in range(1, len(data)):
        with pytest.raises(BadEventStream, match=f"after {cut} ") as caught:
            decoded(data[:cut])
        assert caught.value.incomplete
    with pytest.raises(BadEventStream) as caught:
        decoded(b"HTTP/1.1 200 OK\r\n\r\n")
    assert not caught.value.incomplete
    assert EventStreamDecoder().finish() == decoded(b"") == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (message(b"", total=0), "shorter"),
        (message(b"", total=15), "shorter"),
        (message(b"", total=2**24 + 1), "longer than 16 MiB"),
        (message(b"", total=2**31), "longer than 16 MiB"),  # negative, were it signed
        (message(b"", total=2**32 - 1), "longer than 16 MiB"),
        (message(b"", header_bytes=1), "1 bytes of headers do not fit"),
        (message(b"", header_bytes=2**32 - 1), "do not fit"),
        (message(header(b"a", 0) * 2), "'a' appears twice"),
        (message(header(b"a", 10)), "unknown type 10"),
        (message(header(b"a", 255)), "unknown type 255"),
        (message(header(b"\xff", 0)), "name is not UTF-8"),
        (message(header(b"a", 7, b"\x00\x01\xff")), "value of 'a' is not UTF-8"),
        (message(header(b"a", 7, b"\x00\x03\xed\xa0\x80")), "not UTF-8"),  # half of a surrogate pair
        (message(b"\x05abc"), "name is cut off"),
        (message(b"\x01a"), "name is cut off"),
        (message(b"\x00"), "name is cut off"),
        (message(header(b"a", 6, b"\x00")), "length of the header 'a' is cut off"),
        (message(header(b"a", 6, b"\xff\xff" + b"x" * 9)), "value of the header 'a' is cut off"),
        (message(header(b"a", 2)), "cut off"),
        (message(header(b"a", 8, b"1234567")), "cut off"),
        (message(header(b"a", 9, b"1" * 15)), "cut off"),
    ],
)
def test_what_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(BadEventStream, match=says) as caught:
        decoded(data)
    assert not caught.value.incomplete


def test_a_wrong_length_is_not_waited_for() -> None:
    """The prelude says so itself, long before the bytes that it announces would come."""
    data = encode(EVENT, PAYLOAD)
    with pytest.raises(BadEventStream, match="prelude"):
        EventStreamDecoder().feed(b"\x00\xff" + data[2:12])


@pytest.mark.alone
def test_the_largest_message_in_small_pieces() -> None:
    data = message(b"", b"x" * (eventstream.MAX_MESSAGE_BYTES - 16))
    begin_s = time.perf_counter()
    (got,) = decoded(*(data[i : i + 4096] for i in range(0, len(data), 4096)))
    assert len(got.payload) == eventstream.MAX_MESSAGE_BYTES - 16
    assert time.perf_counter() - begin_s < 2  # not quadratic


def test_headers_are_shared_cannot_be_changed_and_do_not_pile_up() -> None:
    first, second = decoded(encode(EVENT, b"1") + encode(EVENT, b"2"))
    assert first.headers is second.headers
    with pytest.raises(TypeError):
        first.headers["x"] = 1  # type: ignore[index]
    for number in range(1000):
        assert decoded(encode({"n": number}))[0].headers == {"n": number}
    assert len(eventstream._blocks) <= 256
    long = {"long": "x" * 5000}
    assert decoded(encode(long))[0].headers == long
    assert not any(len(block) > 2000 for block in eventstream._blocks)


def test_nothing_is_remembered_of_a_bad_block() -> None:
    bad = message(header(b"a", 0) * 2)
    for _ in range(2):
        with pytest.raises(BadEventStream):
            decoded(bad)


@pytest.mark.parametrize(
    "headers",
    [{"n" * 256: 1}, {"a": "x" * 65536}, {"a": b"x" * 65536}, {"a": 2**63}, {"a": Byte(128)}, {"a": Short(-32769)}],
)
def test_what_has_no_place_in_a_header(headers: dict[str, eventstream.HeaderValue]) -> None:
    with pytest.raises(ValueError, match=r"header"):
        encode(headers)


def test_no_message_is_made_that_would_not_be_read() -> None:
    with pytest.raises(BadEventStream, match="16 MiB"):
        frame(b"", bytes(eventstream.MAX_MESSAGE_BYTES))


def test_botocore_agrees_on_random_frames() -> None:
    from botocore.eventstream import EventStreamBuffer

    rng = random.Random(11)
    for _ in range(60):
        frames = []
        for _ in range(20):
            values = [make(rng) for make in rng.choices(_MAKERS, k=rng.randrange(8))]
            headers = {f"{rng.choice('äb:-')}{i}": value for i, value in enumerate(values)}
            frames.append(encode(headers, rng.randbytes(rng.randrange(300))))
        stream = b"".join(frames)
        theirs = EventStreamBuffer()
        theirs.add_data(stream)
        for our, their in zip(decoded(stream), theirs, strict=True):
            plain = {n: v.bytes if isinstance(v, uuid.UUID) else v for n, v in our.headers.items()}
            assert plain == their.headers
            assert our.payload == their.payload


_MAKERS = [
    lambda rng: rng.random() < 0.5,
    lambda rng: Byte(rng.randrange(-128, 128)),
    lambda rng: Short(rng.randrange(-(2**15), 2**15)),
    lambda rng: Int(rng.randrange(-(2**31), 2**31)),
    lambda rng: Long(rng.randrange(-(2**63), 2**63)),
    lambda rng: Timestamp(rng.randrange(-(2**63), 2**63)),
    lambda rng: rng.randbytes(rng.choice([0, 1, 300, 10_000])),
    lambda rng: "ü日a"[rng.randrange(3)] * rng.randrange(90),
    lambda rng: uuid.UUID(bytes=rng.randbytes(16)),
]


@pytest.mark.alone
def test_one_event_takes_a_few_microseconds() -> None:
    data = encode(EVENT, PAYLOAD)
    feed = EventStreamDecoder().feed
    best_s = 1.0
    for _ in range(5):
        begin_s = time.perf_counter()
        for _ in range(2000):
            feed(data)
        best_s = min(best_s, (time.perf_counter() - begin_s) / 2000)
    assert best_s < 15e-6  # about 2 where nothing else runs


def test_headers_made_once_give_the_same_message() -> None:
    assert frame(encode_headers(EVENT), PAYLOAD) == encode(EVENT, PAYLOAD)
