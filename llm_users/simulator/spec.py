"""The settings of the endpoint: one frozen `Spec`, parsed from text such as ``ttft=200ms,itl=20ms,capacity=8``.

The fields of `Spec` are the only table of keys; the parser, the command line and its help are generated from them. It
does not depend on sockets or wire formats.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_users.number_words import DurationError, duration_text, parse_duration
from llm_users.simulator import fault_kinds
from llm_users.simulator.bedrock.errors import ERRORS, STREAM_ERRORS, error_of

_LONGEST_S = 3600.0
_SHARE = r"([01]|[01]?\.\d+)"

# Known differences of other servers. An explicit key overrides the preset of `dialect`.
DIALECTS: dict[str, dict[str, str]] = {
    "openai": {},
    "vllm": {"role": "with-first", "stop_token": "silent"},
    "llamacpp": {
        "role": "with-first",
        "role_content": "null",
        "comments": "1s",
        "hangup": "on",
        "stop_token": "silent",
    },
    "transformers": {"role": "early", "usage": "finish", "done": "off", "stop_token": "silent"},
}


def _duration(text: str) -> float:
    try:
        return parse_duration(text, needs_unit=True, most_s=_LONGEST_S)
    except DurationError as error:
        raise ValueError(f"is not valid: {error}") from None


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"needs a whole number from {low} to {high}")
        return int(text)

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"needs a number from {low:g} to {high:g}")
        return value

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return read


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError("must be on or off")
    return text == "on"


def _name(text: str) -> str:
    # A line break would end a header or a JSON string too early.
    if not text or not text.isprintable():
        raise ValueError("needs a non-empty printable text")
    return text


def _errors(text: str) -> tuple[tuple[int, float], ...]:
    advice = "needs STATUS:PROBABILITY pairs joined with +, such as 429:0.1+500:0.05"
    entries: list[tuple[int, float]] = []
    for part in filter(None, text.split("+")):
        match = re.fullmatch(rf"([45]\d\d):{_SHARE}", part)
        if match is None:
            raise ValueError(advice)
        entries.append((int(match[1]), float(match[2])))
    _refuse_more_than_all(share for _, share in entries)
    return tuple(entries)


def _bedrock_errors(text: str) -> tuple[tuple[str, float], ...]:
    entries: list[tuple[str, float]] = []
    for part in filter(None, text.split("+")):
        match = re.fullmatch(rf"(\w+):{_SHARE}", part)
        try:
            entries.append((match[1], float(match[2])) if match and error_of(match[1]) else ("", 9.0))
        except KeyError:
            raise ValueError(f"has an unknown exception; the exceptions are {', '.join(ERRORS)}") from None
    if any(not name for name, _ in entries):
        raise ValueError("needs EXCEPTION:PROBABILITY pairs joined with +, such as throttling:0.1+expired_token:0.05")
    _refuse_more_than_all(share for _, share in entries)
    return tuple(entries)


def _stream_errors(text: str) -> tuple[tuple[str, int, float], ...]:
    entries: list[tuple[str, int, float]] = []
    for part in filter(None, text.split("+")):
        match = re.fullmatch(rf"(\w+)@(\d{{1,7}})(?::{_SHARE})?", part)
        if match is None:
            raise ValueError(
                "needs EXCEPTION@TOKENS or EXCEPTION@TOKENS:PROBABILITY, such as throttlingException@5:0.1"
            )
        if match[1] not in STREAM_ERRORS:
            raise ValueError(f"has an unknown exception; the exceptions are {', '.join(STREAM_ERRORS)}")
        entries.append((match[1], int(match[2]), float(match[3] or 1)))
    _refuse_more_than_all(share for _, _, share in entries)
    return tuple(entries)


def _cuts(text: str) -> tuple[tuple[int, float], ...]:
    entries: list[tuple[int, float]] = []
    for part in filter(None, text.split("+")):
        match = re.fullmatch(rf"(\d{{1,7}})(?::{_SHARE})?", part)
        if match is None or not int(match[1]):
            raise ValueError("needs TOKENS or TOKENS:PROBABILITY, from 1 token on, such as 5 or 5:0.1")
        entries.append((int(match[1]), float(match[2] or 1)))
    _refuse_more_than_all(share for _, share in entries)
    return tuple(entries)


def _faults(text: str) -> tuple[tuple[str, int | None, float], ...]:
    entries: list[tuple[str, int | None, float]] = []
    for part in filter(None, text.split("+")):
        match = re.fullmatch(rf"([a-z]+)(?:@(\d{{1,7}}))?(?::{_SHARE})?", part)
        if match is None:
            raise ValueError("needs FAULT:PROBABILITY or FAULT@TOKENS:PROBABILITY, such as reset:0.1+stall@5:0.1")
        kind, after = match[1], None if match[2] is None else int(match[2])
        kinds = fault_kinds.BEFORE_ANSWER if after is None else fault_kinds.IN_ANSWER
        if kind not in kinds:
            raise ValueError(f"has the unknown fault {part.partition(':')[0]!r}; the faults are {_FAULTS}")
        entries.append((kind, after, float(match[3] or 1)))
    _refuse_more_than_all(share for _, _, share in entries)
    return tuple(entries)


_FAULTS = ", ".join([*fault_kinds.BEFORE_ANSWER, *(f"{kind}@TOKENS" for kind in fault_kinds.IN_ANSWER)])


def _refuse_more_than_all(shares: Iterable[float]) -> None:
    if sum(shares) > 1 + 1e-9:
        raise ValueError("has probabilities that add up to more than 1")


def _key(default: Any, name: str, read: Callable[[str], Any], meaning: str) -> Any:
    return field(default=default, metadata={"key": name, "read": read, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Timing, protocol details and faults of one simulated endpoint.

    Token k of an answer is due at *received + ttft + k * itl*. ``Spec.parse("ttft=200ms,itl=20ms")`` parses the text
    form, ``str(spec)`` writes it.
    """

    ttft_s: float = _key(0.2, "ttft", _duration, "time from the arrival of the request to its first token")
    itl_s: float = _key(0.02, "itl", _duration, "time from one token to the next")
    capacity: float = _key(
        0.0,
        "capacity",
        _number(0, 1e6),
        "with more than C active answers, multiply every gap by active/C; 0: no limit",
    )
    jitter: float = _key(0.0, "jitter", _number(0, 3), "sigma of a lognormal factor (mean 1) on ttft and on each gap")
    tokens: int = _key(128, "tokens", _whole(1, 1_000_000), "tokens of an answer when the request has no cap")
    tokens_per_chunk: int = _key(1, "tokens_per_chunk", _whole(1, 10_000), "tokens in one event")
    reasoning: int = _key(
        0,
        "reasoning",
        _whole(0, 1_000_000),
        "reasoning tokens at the start of an answer, if the API supports them",
    )
    reasoning_shown: str = _key(
        "full",
        "reasoning_shown",
        _one_of("full", "summary", "none"),
        "reasoning that is streamed: full; summary: every tenth token; none",
    )
    reasoning_counted: bool = _key(
        True, "reasoning_counted", _switch, "usage contains the number of reasoning tokens (OpenAI's APIs): on, off"
    )
    tool: int = _key(0, "tool", _whole(0, 1_000_000), "tool call argument tokens at the end of an answer (not chat)")
    cached: int = _key(
        0, "cached", _whole(0, 1_000_000), "maximum number of prompt tokens that usage reports as read from a cache"
    )
    answers: str = _key(
        "words",
        "answers",
        _one_of("words", "numbers"),
        "words; numbers: start with the digits of the number that the prompt spells in words (chat, completions)",
    )
    wrong: float = _key(0.0, "wrong", _number(0, 1), "fraction of these answers that start with a wrong number")
    wrong_above: float = _key(
        0.0,
        "wrong_above",
        _number(0, 1e6),
        "with A active answers, A > this N, a fraction 1 - N/A is wrong; 0: never",
    )
    vague: float = _key(0.0, "vague", _number(0, 1), "fraction of these answers that also contain a wrong number")
    finish: str = _key("length", "finish", _one_of("length", "stop"), "finish_reason: length, stop")
    stop_token: str = _key(
        "chunk",
        "stop_token",
        _one_of("chunk", "silent"),
        "last token of an answer with finish=stop: chunk: it has a chunk like the others; silent: usage counts it, it "
        "has no chunk, and the finish event is sent when it is due (vLLM, llama.cpp, transformers)",
    )
    usage: str = _key(
        "on",
        "usage",
        _one_of("on", "off", "always", "finish", "every", "refuse", "refuse422"),
        "on: if requested; off: never; always: also if not requested; finish: in the finish event; every: in every "
        "event of a choice, with its tokens so far, and at the end if requested (Bedrock: only off has an effect: "
        "no metadata event, no invocationMetrics); "
        "refuse, refuse422: respond with 400 or 422 to stream_options",
    )
    role: str = _key(
        "early",
        "role",
        _one_of("early", "none", "late", "with-first"),
        "role-only event: early: at once; none: not sent; late, with-first: in the same write as the first token",
    )
    role_content: str = _key(
        "empty", "role_content", _one_of("empty", "null"), "content of the role-only event: empty, null"
    )
    done: bool = _key(
        True, "done", _switch, "send data: [DONE]; on Bedrock, send the events after the last token: on, off"
    )
    comments: float = _key(0.0, "comments", _duration, "interval of comment lines before the first token; 0: never")
    hangup: bool = _key(False, "hangup", _switch, "close after each stream in spite of a keep-alive header: on, off")
    buffered: bool = _key(
        False,
        "buffered",
        _switch,
        "send the events of a stream together after the last token, like a buffering proxy: on, off",
    )
    framing: str = _key(
        "chunked",
        "framing",
        _one_of("chunked", "close"),
        "end of a stream: chunked; close: the end of the connection",
    )
    model: str = _key("simulated", "model", _name, "name of the only model")
    check_model: bool = _key(False, "check_model", _switch, "respond with 404 to another model: on, off")
    api_key: str = _key(
        "",
        "api_key",
        _name,
        "API key that requests must have (bearer token or x-api-key), else 401; Bedrock's paths accept any credentials",
    )
    error: tuple[tuple[int, float], ...] = _key((), "error", _errors, "STATUS:PROBABILITY pairs, joined with +")
    bedrock_error: tuple[tuple[str, float], ...] = _key(
        (),
        "bedrock_error",
        _bedrock_errors,
        f"EXCEPTION:PROBABILITY pairs for Bedrock's paths, EXCEPTION: {', '.join(ERRORS)}",
    )
    expire_credentials: float = _key(
        0.0,
        "expire_credentials",
        _duration,
        "time from the first use of an access key or bearer token until Bedrock's paths reject it; 0: never",
    )
    stream_error: tuple[tuple[str, int, float], ...] = _key(
        (),
        "stream_error",
        _stream_errors,
        f"EXCEPTION@TOKENS:PROBABILITY, sent in a stream after TOKENS tokens, EXCEPTION: {', '.join(STREAM_ERRORS)}",
    )
    cut: tuple[tuple[int, float], ...] = _key(
        (), "cut", _cuts, "TOKENS:PROBABILITY, close the connection after TOKENS tokens of a stream"
    )
    fault: tuple[tuple[str, int | None, float], ...] = _key(
        (),
        "fault",
        _faults,
        f"FAULT:PROBABILITY pairs for streams, joined with +, FAULT: {_FAULTS}",
    )
    error_shape: str = _key(
        "object",
        "error_shape",
        _one_of("object", "string", "detail", "text", "empty"),
        "body of an error: object, string, detail, text, empty",
    )
    retry_after: float = _key(0.0, "retry_after", _duration, "Retry-After header of injected errors; 0: none")
    seed: int = _key(1, "seed", _whole(0, 2**63 - 1), "seed of jitter and injected errors")
    dialect: str = _key(
        "openai", "dialect", _one_of(*DIALECTS), f"preset that imitates a server: {', '.join(DIALECTS)}"
    )

    def stop_tokens(self, tokens: int) -> int:
        """Return how many tokens at the end of an answer have no chunk: 1 or 0."""
        return int(self.stop_token == "silent" and self.finish == "stop" and tokens > 1)  # noqa: S105 - not a password

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Parse ``key=value`` pairs separated by commas; an empty text gives the defaults. Raises ValueError."""
        return cls.of_texts(cls.parse_texts(text))

    @staticmethod
    def parse_texts(text: str) -> dict[str, str]:
        """Split the text into key -> value text, without parsing the values. Raises ValueError."""
        values: dict[str, str] = {}
        for part in text.split(","):
            if not part.strip():
                continue
            name, equals, value = part.partition("=")
            name = name.strip()
            if not equals:
                raise ValueError(f"simulator spec: {part.strip()!r} is not KEY=VALUE. {known_keys()}")
            if name in values:
                raise ValueError(f"simulator spec: {name!r} is given twice")
            values[name] = value.strip()
        return values

    @classmethod
    def of_texts(cls, values: Mapping[str, str]) -> Spec:
        """Build a Spec from key -> text, as the command line provides it. Raises ValueError."""
        keys = {f.metadata["key"]: f for f in dataclasses.fields(cls)}
        entries: dict[str, Any] = {}
        for name, text in {**DIALECTS.get(values.get("dialect", ""), {}), **values}.items():
            if name not in keys:
                raise ValueError(f"simulator spec: unknown key {name!r}. {known_keys()}")
            try:
                entries[keys[name].name] = keys[name].metadata["read"](text)
            except ValueError as error:
                shown = "" if name == "api_key" else f"={text}"
                raise ValueError(f"simulator spec: {name}{shown} {error}. {known_keys()}") from None
        return cls(**entries)

    def texts(self) -> dict[str, str]:
        """Return every key with a value other than its default, as text; `of_texts` builds the same Spec from it."""
        shown: dict[str, str] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            # A preset can differ from the default, so with a dialect, every key with a value is written.
            if value != f.default or (self.dialect != "openai" and value != ""):
                shown[f.metadata["key"]] = _write(f.metadata["read"] is _duration, value)
        return shown

    def __str__(self) -> str:
        return ",".join(f"{name}={text}" for name, text in self.texts().items())


def _write(is_duration: bool, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "+".join(f"{'@'.join(str(k) for k in kind if k is not None)}:{share:.9f}" for *kind, share in value)
    if is_duration:
        return duration_text(value)
    return str(value)


def known_keys() -> str:
    """Return the sentence that ends every error message."""
    return "Known keys: " + ", ".join(f.metadata["key"] for f in dataclasses.fields(Spec))
