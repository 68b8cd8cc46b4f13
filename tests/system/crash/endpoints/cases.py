"""The table of faults: what the endpoint does, and what the row must say about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.stream_bytes import CHUNKED, DONE, LENGTH, chat_events, chunk, delta, framed, head
from tests.wire_server import CLOSE, HOLD, RESET, Script, pause, send

CHAT, BEDROCK = "chat", "bedrock"


class Servers(Protocol):
    """Whoever can be asked; each gives a base URL."""

    def simulator(self, spec: str) -> str: ...
    def script(self, *steps: Script, tls: Path | None = None) -> str: ...
    def rude(self, way: str) -> str: ...
    def certificate(self, which: str) -> Path: ...
    def nobody(self) -> str: ...
    def full(self) -> str: ...


@dataclass(frozen=True)
class Case:
    """One fault, met by every request to the endpoint that ``url`` gives."""

    name: str
    url: Callable[[Servers], str]
    codes: tuple[str | None, ...]
    """What the row's error_code may be; None: the request succeeds all the same."""
    words: tuple[str, ...] = ()
    """What the message shown must contain."""
    api: str = CHAT
    timeout: str = "1.5s"
    text: str | None = None
    """The text that came before the fault, where that is certain."""


def _spec(fault: str, more: str = "") -> Callable[[Servers], str]:
    return lambda servers: servers.simulator(",".join(filter(None, [f"fault={fault}", more])))


def _keys(spec: str) -> Callable[[Servers], str]:
    return lambda servers: servers.simulator(spec)


def _script(*script: list[object]) -> Callable[[Servers], str]:
    return lambda servers: servers.script(list(script))


def _rude(way: str) -> Callable[[Servers], str]:
    return lambda servers: servers.rude(way)


def _tls(which: str) -> Callable[[Servers], str]:
    return lambda servers: servers.script(_whole(), tls=servers.certificate(which))


def _whole() -> Script:
    return [send(data) for data in framed(chat_events("a", "b"))]


_EVENT = chunk(delta(content="b"))
_BEGUN = head(CHUNKED) + chunk(delta(content="a"))
_LATE = "60s"

# Nobody there, or nobody who can be talked to.
_CONNECTING = [
    Case("nobody listens", lambda servers: servers.nobody(), ("connect",), ("refused", "that the server is running")),
    Case(
        "the name has no address",
        lambda _: "http://no-such-host.invalid/v1",
        ("connect",),
        ("no-such-host.invalid", "spelling of the host name"),
    ),
    Case("connecting takes too long", lambda servers: servers.full(), ("timeout",), ("--llm-timeout",)),
    Case("TLS: expired certificate", _tls("expired"), ("connect",), ("certificate", "expired", "clock")),
    Case(
        "TLS: certificate of another host",
        _tls("wrong host"),
        ("connect",),
        ("certificate", "127.0.0.1", "host name that the certificate lists"),
    ),
    Case("TLS: certificate of an unknown authority", _tls("unknown"), ("connect",), ("certificate", "SSL_CERT_FILE")),
    Case(
        "TLS: the server speaks something else",
        lambda servers: servers.rude("banner").replace("http://", "https://"),
        ("connect",),
        ("uses TLS",),
    ),
    Case(
        "TLS: the handshake stalls",
        lambda servers: servers.script(_whole()).replace("http://", "https://"),
        ("timeout",),
        ("--llm-timeout",),
    ),
    Case(
        "TLS where http:// was written",
        lambda servers: servers.script(_whole(), tls=servers.certificate("good")).replace("https://", "http://"),
        ("connect", "reset"),
        (),
    ),
    Case("a banner instead of HTTP", _rude("banner"), ("malformed",), ("not HTTP",)),
]

# The connection breaks, phase by phase.
_BREAKING = [
    Case("reset before the headers", _spec("reset"), ("reset",), ("connection was lost",), text=""),
    Case(
        "reset within the headers",
        _script(send(head(CHUNKED)[:30]), pause(0.02), RESET),
        ("reset",),
        ("lost",),
        text="",
    ),
    Case("reset after the headers", _spec("reset@0"), ("reset",), ("lost",), text=""),
    Case("reset after some tokens", _spec("reset@4"), ("reset",), ("lost",)),
    Case(
        "reset within an event",
        _script(send(_BEGUN), pause(0.02), send(_EVENT[:40]), pause(0.02), RESET),
        ("reset",),
        ("lost",),
        text="a",
    ),
    Case("reset after the last token", _spec("reset@8"), ("reset",), ("lost",)),
    Case(
        "reset after the finish reason",
        _script(send(_BEGUN), pause(0.02), send(chunk(delta("stop"))), pause(0.02), RESET),
        (None,),
        text="a",
    ),
    Case("closed before the headers", _script(CLOSE), ("reset",), ("without a response",), text=""),
    Case("closed within the headers", _script(send(head(CHUNKED)[:30]), CLOSE), ("reset",), ("without a response",)),
    Case("closed after some tokens", _keys("cut=4"), ("truncated",), ("before the response was complete",)),
    Case("half an event", _spec("half@4"), ("truncated",), ("before the response was complete",)),
    Case("no terminator", _keys("done=off,finish=stop,cut=8"), ("truncated",)),
]

# It stays, and nothing comes.
_STALLING = [
    Case("silence instead of headers", _spec("stall"), ("timeout",), ("--llm-timeout",), text=""),
    Case(
        "silence within the headers", _script(send(head(CHUNKED)[:30]), HOLD), ("timeout",), ("--llm-timeout",), text=""
    ),
    Case("silence after the headers", _spec("stall@0"), ("timeout",), ("--llm-timeout",), text=""),
    Case("silence after some tokens", _spec("stall@4"), ("timeout",), ("--llm-timeout",)),
    Case(
        "silence after half an error",
        _script(send(head(LENGTH, 90, status="503 Busy") + b"no"), HOLD),
        ("503",),
        ("no",),
    ),
    Case("slow headers, too slow", _spec("slow", "itl=20ms"), ("timeout",), ("--llm-timeout",), text=""),
    Case("slow headers, in time", _spec("slow", "itl=2ms"), (None,)),
    Case("an answer without end", _spec("endless@4"), ("timeout",), ("--llm-timeout",)),
    Case("comments without end", _rude("comments"), ("timeout", "malformed"), text="a"),
    Case("blank lines without end", _rude("blank lines"), ("malformed",), ("does not end",), timeout=_LATE, text="a"),
    Case("trailers without end", _rude("trailers"), ("timeout", "truncated", "malformed"), text="a"),
    Case("one trailer without end", _rude("one trailer"), ("timeout", "truncated", "malformed"), text="a"),
    Case("a chunk's extension without end", _rude("chunk extension"), ("timeout", "malformed"), text="a"),
]

_TOO_LONG = ("longer than 16,777,216 characters", "max_answer_characters")

# What comes is wrong, or too much.
_WRONG = [
    Case("garbage instead of HTTP", _spec("garbage"), ("malformed",), ("not HTTP",), text=""),
    Case("garbage among the chunks", _spec("garbage@4"), ("malformed",), ("not HTTP",)),
    Case("an event that is no JSON", _spec("flip@4"), ("malformed",), ("not valid JSON",)),
    Case("64 MiB without a line break", _spec("giant@2"), ("malformed",), ("longer than 16 MiB",), timeout=_LATE),
    Case("one event without end", _rude("line"), ("malformed",), ("longer than 16 MiB",), timeout=_LATE, text="a"),
    Case("text without end", _rude("text"), ("malformed",), _TOO_LONG, timeout=_LATE),
    Case("reasoning without end", _rude("reasoning"), ("malformed",), _TOO_LONG, timeout=_LATE, text="a"),
    Case("a tool call without end", _rude("tool arguments"), ("malformed",), _TOO_LONG, timeout=_LATE),
    Case("tool calls without end", _rude("tool calls"), ("malformed",), ("1000 tool calls",), timeout=_LATE, text="a"),
    Case("choices without end", _rude("choices"), ("malformed",), ("1024 choices",), timeout=_LATE, text="a"),
    Case("headers without end", _spec("bomb"), ("malformed",), ("headers are longer than 256 KiB",), text=""),
    Case("one header without end", _rude("one header"), ("malformed",), ("headers are longer than",), text=""),
    Case("a header's name without end", _rude("header name"), ("malformed",), text=""),
    Case("a reason without end", _rude("reason"), ("malformed",), ("headers are longer than",), text=""),
    Case("interim responses without end", _rude("interim"), ("malformed",), ("headers are longer than",), text=""),
    Case("an error without end", _rude("error"), ("500",), ("zzz",), timeout=_LATE, text=""),
    Case(
        "an unstreamed answer without end",
        _rude("json"),
        ("malformed",),
        ("longer than 16 MiB",),
        timeout=_LATE,
        text="",
    ),
    Case(
        "an answer without output",
        _script(send(head(CHUNKED) + chunk(delta("stop")) + chunk(DONE) + b"0\r\n\r\n")),
        ("empty",),
    ),
]

# The API says no.
_REFUSING = [
    Case("429 with Retry-After", _keys("error=429:1,retry_after=30s"), ("429",), ("Rate limit",), text=""),
    Case("a storm of 500", _keys("error=500:1"), ("500",), ("The server had an error",), text=""),
    Case("503 without a body", _keys("error=503:1,error_shape=empty"), ("503",), ("Service Unavailable",)),
    Case(
        "an error inside the stream",
        _keys("stream_error=modelStreamErrorException@3"),
        ("modelStreamErrorException",),
        ("inside the stream",),
    ),
]

_OF_BEDROCK = [
    Case("Bedrock: wrong checksum", _spec("flip@4"), ("malformed",), ("checksum",), api=BEDROCK),
    Case("Bedrock: half a frame", _spec("half@4"), ("truncated",), ("before the response was complete",), api=BEDROCK),
    Case("Bedrock: a message of 64 MiB", _spec("giant@2"), ("malformed",), ("longer than 16 MiB",), api=BEDROCK),
    Case("Bedrock: reset before the headers", _spec("reset"), ("reset",), ("lost",), api=BEDROCK, text=""),
    Case("Bedrock: reset after some tokens", _spec("reset@4"), ("reset",), ("lost",), api=BEDROCK),
    Case("Bedrock: silence after some tokens", _spec("stall@4"), ("timeout",), ("--llm-timeout",), api=BEDROCK),
    Case("Bedrock: garbage instead of HTTP", _spec("garbage"), ("malformed",), ("not HTTP",), api=BEDROCK, text=""),
    Case("Bedrock: garbage among the chunks", _spec("garbage@4"), ("malformed",), ("not HTTP",), api=BEDROCK),
    Case("Bedrock: headers without end", _spec("bomb"), ("malformed",), ("headers are longer",), api=BEDROCK, text=""),
    Case("Bedrock: an error without end", _rude("error"), ("500",), api=BEDROCK, timeout=_LATE, text=""),
    Case(
        "Bedrock: throttled",
        _keys("bedrock_error=throttling:1"),
        ("ThrottlingException",),
        ("Too many requests",),
        api=BEDROCK,
    ),
    Case(
        "Bedrock: an exception inside the stream",
        _keys("stream_error=throttlingException@3"),
        ("ThrottlingException",),
        ("inside the stream",),
        api=BEDROCK,
    ),
]

CASES = [*_CONNECTING, *_BREAKING, *_STALLING, *_WRONG, *_REFUSING, *_OF_BEDROCK]
