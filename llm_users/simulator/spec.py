"""What the endpoint shall do: one frozen `Spec`, read from text such as ``ttft=200ms,itl=20ms,capacity=8``.

The fields below are the only table of keys; the parser, the command line and its help are made from them. It must not
know sockets or wire formats.
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

# What other servers are known to do differently; a key given beside `dialect` wins over its preset.
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
        raise ValueError(f"cannot be used: {error}") from None


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
    # A line break would end a header or a JSON string early.
    if not text or not text.isprintable():
        raise ValueError("needs a printable text that is not empty")
    return text


def _errors(text: str) -> tuple[tuple[int, float], ...]:
    advice = "needs STATUS:PROBABILITY, several joined with +, such as 429:0.1+500:0.05"
    found: list[tuple[int, float]] = []
    for part in filter(None, text.split("+")):
        match = re.fullmatch(rf"([45]\d\d):{_SHARE}", part)
        if match is None:
            raise ValueError(advice)
        found.append((int(match[1]), float(match[2])))
    _refuse_more_than_all(share for _, share in found)
    return tuple(found)


def _bedrock_errors(text: str) -> tuple[tuple[str, float], ...]:
    found: list[tuple[str, float]] = []
    for part in filter(None, text.split("+")):
        match = re.fullmatch(rf"(\w+):{_SHARE}", part)
        try:
            found.append((match[1], float(match[2])) if match and error_of(match[1]) else ("", 9.0))
        except KeyError:
            raise ValueError(f"has an unknown exception; there are {', '.join(ERRORS)}") from None
    if any(not name for name, _ in found):
        raise ValueError(
            "needs EXCEPTION:PROBABILITY, several joined with +, such as throttling:0.1+expired_token:0.05"
        )
    _refuse_more_than_all(share for _, share in found)
    return tuple(found)


def _stream_errors(text: str) -> tuple[tuple[str, int, float], ...]:
    found: list[tuple[str, int, float]] = []
    for part in filter(None, text.split("+")):
        match = re.fullmatch(rf"(\w+)@(\d{{1,7}})(?::{_SHARE})?", part)
        if match is None:
            raise ValueError(
                "needs EXCEPTION@TOKENS or EXCEPTION@TOKENS:PROBABILITY, such as throttlingException@5:0.1"
            )
        if match[1] not in STREAM_ERRORS:
            raise ValueError(f"has an unknown exception; there are {', '.join(STREAM_ERRORS)}")
        found.append((match[1], int(match[2]), float(match[3] or 1)))
    _refuse_more_than_all(share for _, _, share in found)
    return tuple(found)


def _cuts(text: str) -> tuple[tuple[int, float], ...]:
    found: list[tuple[int, float]] = []
    for part in filter(None, text.split("+")):
        match = re.fullmatch(rf"(\d{{1,7}})(?::{_SHARE})?", part)
        if match is None or not int(match[1]):
            raise ValueError("needs TOKENS or TOKENS:PROBABILITY, from 1 token on, such as 5 or 5:0.1")
        found.append((int(match[1]), float(match[2] or 1)))
    _refuse_more_than_all(share for _, share in found)
    return tuple(found)


def _faults(text: str) -> tuple[tuple[str, int | None, float], ...]:
    found: list[tuple[str, int | None, float]] = []
    for part in filter(None, text.split("+")):
        match = re.fullmatch(rf"([a-z]+)(?:@(\d{{1,7}}))?(?::{_SHARE})?", part)
        if match is None:
            raise ValueError("needs FAULT:PROBABILITY or FAULT@TOKENS:PROBABILITY, such as reset:0.1+stall@5:0.1")
        kind, after = match[1], None if match[2] is None else int(match[2])
        known = fault_kinds.BEFORE_ANSWER if after is None else fault_kinds.IN_ANSWER
        if kind not in known:
            raise ValueError(f"has {part.partition(':')[0]!r}, which is none of {_FAULTS}")
        found.append((kind, after, float(match[3] or 1)))
    _refuse_more_than_all(share for _, _, share in found)
    return tuple(found)


_FAULTS = ", ".join([*fault_kinds.BEFORE_ANSWER, *(f"{kind}@TOKENS" for kind in fault_kinds.IN_ANSWER)])


def _refuse_more_than_all(shares: Iterable[float]) -> None:
    if sum(shares) > 1 + 1e-9:
        raise ValueError("has probabilities that add up to more than 1")


def _key(default: Any, name: str, read: Callable[[str], Any], meaning: str) -> Any:
    return field(default=default, metadata={"key": name, "read": read, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Timing, protocol details and faults of one simulated endpoint.

    Token k of an answer is due at *received + ttft + k * itl*. ``Spec.parse("ttft=200ms,itl=20ms")`` reads the text
    form, ``str(spec)`` writes it.
    """

    ttft_s: float = _key(0.2, "ttft", _duration, "from the request's arrival to its first token")
    itl_s: float = _key(0.02, "itl", _duration, "from one token to the next")
    capacity: float = _key(
        0.0, "capacity", _number(0, 1e6), "above C active answers every gap grows by active/C; 0: no limit"
    )
    jitter: float = _key(0.0, "jitter", _number(0, 3), "sigma of a lognormal factor (mean 1) on ttft and on each gap")
    tokens: int = _key(128, "tokens", _whole(1, 1_000_000), "tokens of an answer whose request names no cap")
    tokens_per_chunk: int = _key(1, "tokens_per_chunk", _whole(1, 10_000), "tokens in one event")
    reasoning: int = _key(
        0, "reasoning", _whole(0, 1_000_000), "this many first tokens are reasoning, where the API has it"
    )
    reasoning_shown: str = _key(
        "full",
        "reasoning_shown",
        _one_of("full", "summary", "none"),
        "how much of the reasoning is streamed: full; summary: every tenth token; none",
    )
    reasoning_counted: bool = _key(
        True, "reasoning_counted", _switch, "usage says how many tokens were reasoning (OpenAI's APIs): on, off"
    )
    tool: int = _key(0, "tool", _whole(0, 1_000_000), "this many last tokens are a tool call's arguments (not chat)")
    cached: int = _key(
        0, "cached", _whole(0, 1_000_000), "of a prompt's tokens, up to this many are reported as read from a cache"
    )
    answers: str = _key(
        "words",
        "answers",
        _one_of("words", "numbers"),
        "words, or numbers: begin with the digits of the number that the prompt spells in words (chat, completions)",
    )
    wrong: float = _key(0.0, "wrong", _number(0, 1), "share of such answers that begin with another number")
    wrong_above: float = _key(
        0.0, "wrong_above", _number(0, 1e6), "with A active answers above this N, a share 1 - N/A is wrong; 0: never"
    )
    vague: float = _key(0.0, "vague", _number(0, 1), "share of such answers that name another number as well")
    finish: str = _key("length", "finish", _one_of("length", "stop"), "finish_reason: length, stop")
    stop_token: str = _key(
        "chunk",
        "stop_token",
        _one_of("chunk", "silent"),
        "the last token of an answer with finish=stop: chunk: has a chunk like the others; silent: is counted in usage "
        "and has no chunk, and the finish event leaves when it is due (vLLM, llama.cpp, transformers)",
    )
    usage: str = _key(
        "on",
        "usage",
        _one_of("on", "off", "always", "finish", "every", "refuse", "refuse422"),
        "on: when asked for; off: never; always: unasked too; finish: in the finish event; every: in every event of a "
        "choice, with its tokens so far, and at the end when asked for (Bedrock: only off differs: "
        "no metadata event, no invocationMetrics); "
        "refuse, refuse422: answer 400 or 422 to stream_options",
    )
    role: str = _key(
        "early",
        "role",
        _one_of("early", "none", "late", "with-first"),
        "role-only event at once, none, or in the same write as the first token (late, with-first)",
    )
    role_content: str = _key(
        "empty", "role_content", _one_of("empty", "null"), "content of the role-only event: empty, null"
    )
    done: bool = _key(
        True, "done", _switch, "send data: [DONE], or all that follows the last token on Bedrock: on, off"
    )
    comments: float = _key(
        0.0, "comments", _duration, "send a comment line this often before the first token; 0: never"
    )
    hangup: bool = _key(False, "hangup", _switch, "close after each stream although keep-alive was announced: on, off")
    buffered: bool = _key(
        False,
        "buffered",
        _switch,
        "the events of a stream leave together, after the last token, as by a proxy: on, off",
    )
    framing: str = _key(
        "chunked", "framing", _one_of("chunked", "close"), "how the end of a stream is marked: chunked, close"
    )
    model: str = _key("simulated", "model", _name, "the one model that is served")
    check_model: bool = _key(False, "check_model", _switch, "answer 404 to another model: on, off")
    api_key: str = _key(
        "",
        "api_key",
        _name,
        "requests must carry it (bearer token or x-api-key), else 401; Bedrock's paths take any credentials",
    )
    error: tuple[tuple[int, float], ...] = _key((), "error", _errors, "STATUS:PROBABILITY, several joined with +")
    bedrock_error: tuple[tuple[str, float], ...] = _key(
        (), "bedrock_error", _bedrock_errors, f"EXCEPTION:PROBABILITY for Bedrock's paths, of {', '.join(ERRORS)}"
    )
    expire_credentials: float = _key(
        0.0,
        "expire_credentials",
        _duration,
        "Bedrock's paths refuse an access key or bearer token as expired so long after its first use; 0: never",
    )
    stream_error: tuple[tuple[str, int, float], ...] = _key(
        (),
        "stream_error",
        _stream_errors,
        f"EXCEPTION@TOKENS:PROBABILITY, sent inside a stream after so many tokens, of {', '.join(STREAM_ERRORS)}",
    )
    cut: tuple[tuple[int, float], ...] = _key(
        (), "cut", _cuts, "TOKENS:PROBABILITY, the connection is closed after so many tokens of a stream"
    )
    fault: tuple[tuple[str, int | None, float], ...] = _key(
        (),
        "fault",
        _faults,
        f"FAULT:PROBABILITY, several joined with +, for streams: {_FAULTS}",
    )
    error_shape: str = _key(
        "object",
        "error_shape",
        _one_of("object", "string", "detail", "text", "empty"),
        "body of an error: object, string, detail, text, empty",
    )
    retry_after: float = _key(0.0, "retry_after", _duration, "Retry-After of injected errors; 0: none")
    seed: int = _key(1, "seed", _whole(0, 2**63 - 1), "for jitter and injected errors")
    dialect: str = _key(
        "openai", "dialect", _one_of(*DIALECTS), f"presets that imitate a server: {', '.join(DIALECTS)}"
    )

    def stop_tokens(self, tokens: int) -> int:
        """How many of an answer's last tokens have no chunk: 1 or 0."""
        return int(self.stop_token == "silent" and self.finish == "stop" and tokens > 1)  # noqa: S105 - no password

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read ``key=value`` pairs separated by commas; an empty text gives the defaults."""
        return cls.of_texts(cls.parse_texts(text))

    @staticmethod
    def parse_texts(text: str) -> dict[str, str]:
        """Only cut into key -> text."""
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
        """Build from key -> text, as the command line has it."""
        keys = {f.metadata["key"]: f for f in dataclasses.fields(cls)}
        found: dict[str, Any] = {}
        for name, text in {**DIALECTS.get(values.get("dialect", ""), {}), **values}.items():
            if name not in keys:
                raise ValueError(f"simulator spec: unknown key {name!r}. {known_keys()}")
            try:
                found[keys[name].name] = keys[name].metadata["read"](text)
            except ValueError as error:
                shown = "" if name == "api_key" else f"={text}"
                raise ValueError(f"simulator spec: {name}{shown} {error}. {known_keys()}") from None
        return cls(**found)

    def texts(self) -> dict[str, str]:
        """Every key that does not have its default, as text; `of_texts` gives the same Spec back."""
        shown: dict[str, str] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            # A preset may differ from the default, so beside a dialect every key but the unset ones is spelled out.
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
    """The sentence that ends every complaint."""
    return "Known keys: " + ", ".join(f.metadata["key"] for f in dataclasses.fields(Spec))
