"""The settings of the endpoint: one frozen `Spec`, parsed from text such as ``ttft=200ms,itl=20ms,capacity=8``.

The fields of `Spec` are the only table of keys; the parser, the command line and its help are generated from them. The
seed and the number of a request determine its faults, so that they do not depend on timing. The module does not depend
on sockets or wire formats.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llm_users.number_words import DurationError, duration_text, parse_duration
from llm_users.simulator.bedrock.errors import ERRORS, STREAM_ERRORS, error_of

_LONGEST_S = 3600.0

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
        "server_times": "llamacpp",
    },
    "transformers": {"role": "early", "usage": "finish", "done": "off", "stop_token": "silent"},
}


# Faults before the first token of an answer, or in addition to the answer.
FAULTS_BEFORE_ANSWER: dict[str, str] = {
    "reset": "the connection is reset before the headers",
    "stall": "the server sends nothing, not even headers",
    "garbage": "the server sends bytes that are not HTTP",
    "slow": "each byte of the headers takes as long as a token",
    "bomb": "the server sends 64 MiB of header lines without an end of the headers",
    "unasked": "an unsolicited second response follows the answer, one token gap after its end",
}

# Faults after the given number of tokens of an answer.
FAULTS_IN_ANSWER: dict[str, str] = {
    "reset": "the connection is reset",
    "stall": "the server sends nothing more",
    "half": "the server sends half an event and closes the connection",
    "flip": "the server sends an event with a wrong byte",
    "garbage": "the server sends bytes that are not an HTTP chunk",
    "giant": "the server sends 64 MiB of a single event",
    "endless": "the server repeats the same token without end",
}
_FAULTS = ", ".join([*FAULTS_BEFORE_ANSWER, *(f"{kind}@TOKENS" for kind in FAULTS_IN_ANSWER)])

_Kind = TypeVar("_Kind")
_SECRET_KEYS = ("api_key", "sigv4")


@dataclass(frozen=True, slots=True)
class Break:
    """A premature end of a stream. An empty `error` means that the server closes the connection without an error."""

    after_tokens: int
    error: str

    @property
    def outcome(self) -> str:
        return "error" if self.error else "cut"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from the tables above and the number of tokens before it; None: before the headers of the answer."""

    kind: str
    after: int | None

    def __str__(self) -> str:
        return self.kind if self.after is None else f"{self.kind}@{self.after}"


def drawn(choices: Sequence[tuple[_Kind, float]], key: str) -> _Kind | None:
    """Return one of the choices, which are (value, probability) pairs, or None."""
    if not choices:
        return None
    remaining = random.Random(key).random()
    for kind, share in choices:
        remaining -= share
        if remaining < 0:
            return kind
    return None


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


def _key_pair(text: str) -> str:
    access_key, colon, secret = text.partition(":")
    if not (colon and access_key and secret and text.isprintable()) or "/" in access_key:
        raise ValueError("needs ACCESS:SECRET, an access key and its secret")
    return text


def _pairs(
    pattern: str, advice: str, values_of: Callable[..., tuple[Any, ...]], *, always: bool = False
) -> Callable[[str], tuple[Any, ...]]:
    """Return the parser of values with probabilities, joined with +: tuples that end with the probability.

    ``values_of`` converts the groups of ``pattern``. With ``always``, the probability defaults to 1.
    """
    full = re.compile(rf"{pattern}(?::([01]|[01]?\.\d+)){'?' if always else ''}")

    def read(text: str) -> tuple[Any, ...]:
        entries = []
        for part in filter(None, text.split("+")):
            match = full.fullmatch(part)
            if match is None:
                raise ValueError(advice)
            *groups, share = match.groups()
            entries.append((*values_of(*groups), float(share or 1)))
        if sum(entry[-1] for entry in entries) > 1 + 1e-9:
            raise ValueError("has probabilities that add up to more than 1")
        return tuple(entries)

    return read


def _exception(name: str) -> tuple[str]:
    try:
        error_of(name)
    except KeyError:
        raise ValueError(f"has an unknown exception; the exceptions are {', '.join(ERRORS)}") from None
    return (name,)


def _stream_exception(name: str, after: str) -> tuple[str, int]:
    if name not in STREAM_ERRORS:
        raise ValueError(f"has an unknown exception; the exceptions are {', '.join(STREAM_ERRORS)}")
    return name, int(after)


def _fault(kind: str, after: str | None) -> tuple[str, int | None]:
    if kind not in (FAULTS_BEFORE_ANSWER if after is None else FAULTS_IN_ANSWER):
        written = "@".join(filter(None, (kind, after)))
        raise ValueError(f"has the unknown fault {written!r}; the faults are {_FAULTS}")
    return kind, None if after is None else int(after)


_errors = _pairs(
    r"([45]\d\d)",
    "needs STATUS:PROBABILITY pairs joined with +, such as 429:0.1+500:0.05",
    lambda status: (int(status),),
)
_bedrock_errors = _pairs(
    r"(\w+)", "needs EXCEPTION:PROBABILITY pairs joined with +, such as throttling:0.1+expired_token:0.05", _exception
)
_stream_errors = _pairs(
    r"(\w+)@(\d{1,7})",
    "needs EXCEPTION@TOKENS or EXCEPTION@TOKENS:PROBABILITY, such as throttlingException@5:0.1",
    _stream_exception,
    always=True,
)
_cuts = _pairs(
    r"(?!0+\b)(\d{1,7})",
    "needs TOKENS or TOKENS:PROBABILITY, from 1 token on, such as 5 or 5:0.1",
    lambda after: (int(after),),
    always=True,
)
_faults = _pairs(
    r"([a-z]+)(?:@(\d{1,7}))?",
    "needs FAULT:PROBABILITY or FAULT@TOKENS:PROBABILITY, such as reset:0.1+stall@5:0.1",
    _fault,
    always=True,
)


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
        0.0, "capacity", _number(0, 1e6), "with more than C active answers, multiply every gap by active/C; 0: no limit"
    )
    jitter: float = _key(0.0, "jitter", _number(0, 3), "sigma of a lognormal factor (mean 1) on ttft and on each gap")
    tokens: int = _key(128, "tokens", _whole(1, 1_000_000), "tokens of an answer when the request has no cap")
    tokens_per_chunk: int = _key(1, "tokens_per_chunk", _whole(1, 10_000), "tokens in one event")
    reasoning: int = _key(
        0, "reasoning", _whole(0, 1_000_000), "reasoning tokens at the start of an answer, if the API supports them"
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
    server_times: str = _key(
        "off",
        "server_times",
        _one_of("off", "llamacpp", "groq", "cerebras"),
        "the server's own times at the end of a chat or legacy completion, as these servers send them: off, llamacpp, "
        "groq, cerebras",
    )
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
        0.0, "wrong_above", _number(0, 1e6), "with A active answers, A > this N, a fraction 1 - N/A is wrong; 0: never"
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
    usage_factor: float = _key(
        1.0,
        "usage_factor",
        _number(0, 1000),
        "usage has this multiple of the output tokens, rounded (chat, completions)",
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
        "chunked", "framing", _one_of("chunked", "close"), "end of a stream: chunked; close: the end of the connection"
    )
    model: str = _key("simulated", "model", _name, "name of the only model")
    check_model: bool = _key(False, "check_model", _switch, "respond with 404 to another model: on, off")
    api_key: str = _key(
        "",
        "api_key",
        _name,
        "API key that requests must have (bearer token or x-api-key), else 401; signed requests and the paths of "
        "Converse and Invoke do not need it, unless sigv4 is set",
    )
    sigv4: str = _key(
        "",
        "sigv4",
        _key_pair,
        "ACCESS:SECRET: verify the signature of every request for a model (AWS Signature Version 4, at most 5 minutes "
        "old) and reject others as AWS does; bearer tokens must be the api_key; empty: accept any signature",
    )
    region: str = _key(
        "", "region", _name, "region for which requests must be signed, if sigv4 is set; empty: any region"
    )
    routes: str = _key(
        "any",
        "routes",
        _one_of("any", "aws"),
        "any: serve any model on any route; aws: serve a model only on the routes on which Bedrock serves it",
    )
    input_tpm: int = _key(
        0,
        "input_tpm",
        _whole(0, 10**12),
        "quota of input tokens per minute and model, else 429; a request reserves its uncached input and its cap, and "
        "its end gives the unused part of the cap back; 0: no quota",
    )
    output_tpm: int = _key(
        0,
        "output_tpm",
        _whole(0, 10**12),
        "quota of output tokens per minute and model, counted at the end of an answer; while it is used up, requests "
        "get 429; 0: no quota",
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
        "time from the first use of an access key or bearer token until requests with it are rejected; 0: never",
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
        (), "fault", _faults, f"FAULT:PROBABILITY pairs for streams, joined with +, FAULT: {_FAULTS}"
    )
    error_shape: str = _key(
        "object",
        "error_shape",
        _one_of("object", "string", "detail", "text", "empty"),
        "body of an error: object, string, detail, text, empty",
    )
    retry_after: float = _key(0.0, "retry_after", _duration, "Retry-After header of injected errors; 0: none")
    metrics: str = _key(
        "off",
        "metrics",
        _one_of("off", "vllm"),
        "serve /metrics with the counters and histograms of this server in Prometheus' text format: off, vllm",
    )
    seed: int = _key(1, "seed", _whole(0, 2**63 - 1), "seed of jitter and injected errors")
    dialect: str = _key(
        "openai", "dialect", _one_of(*DIALECTS), f"preset that imitates a server: {', '.join(DIALECTS)}"
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that no text may show. A secret that equals its access key is a placeholder, not a secret."""
        access_key, _, secret = self.sigv4.partition(":")
        return tuple(filter(None, (self.api_key, "" if secret == access_key else secret)))

    def usage_tokens(self, tokens: int) -> int:
        """Return the number of output tokens in usage for this number of tokens."""
        return tokens if self.usage_factor == 1 else round(tokens * self.usage_factor)

    def stop_tokens(self, tokens: int) -> int:
        """Return how many tokens at the end of an answer have no chunk: 1 or 0."""
        return int(self.stop_token == "silent" and self.finish == "stop" and tokens > 1)  # noqa: S105 - not a password

    def status_error(self, number: int) -> int | None:
        """Return the status with which to reject request ``number``, or None."""
        return drawn(self.error, f"error {self.seed} {number}")

    def exception(self, number: int) -> str | None:
        """Return the name of the exception with which Bedrock's paths reject request ``number``, or None."""
        return drawn(self.bedrock_error, f"bedrock_error {self.seed} {number}")

    def fault_of(self, number: int) -> Fault | None:
        """Return the fault of the connection or the stream of request ``number``, or None."""
        choices = [(Fault(kind, after), share) for kind, after, share in self.fault]
        return drawn(choices, f"fault {self.seed} {number}")

    def stream_break(self, number: int, tokens: int) -> Break | None:
        """Return where this answer of ``tokens`` tokens breaks off; None when it does not, or when it ends earlier."""
        choices: list[tuple[Any, float]] = [((kind, after), share) for kind, after, share in self.stream_error]
        error = drawn(choices, f"stream_error {self.seed} {number}")
        if error is not None and error[1] <= tokens:
            return Break(error[1], error[0])
        after = drawn(self.cut, f"cut {self.seed} {number}")
        return None if after is None or after > tokens else Break(after, "")

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
                shown = "" if name in _SECRET_KEYS else f"={text}"
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
