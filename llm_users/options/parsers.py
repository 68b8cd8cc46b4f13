"""Parsers of option values: one function for each kind of value, from text to the type that the program uses.

Each parser raises a ``ValueError`` (in most cases ``OptionError``) that quotes the invalid text and says what to write.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from llm_users.number_words import DurationError, parse_duration
from llm_users.prices import Prices
from llm_users.prompts import HUB, parse_hub_name, split_name
from llm_users.record import Lengths, RateRange
from llm_users.secrets import is_secret_query

_MOST_DIGITS = 15
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = {
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
    "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
"""Headers that belong to the connection or to the body, in lower case."""
_CREDENTIAL_HEADERS = frozenset(("cookie", "set-cookie", "x-amz-security-token"))
"""Headers with credentials whose names ``is_secret_query`` does not recognize."""
_TARGET_FORM = "write MODEL[@URL][=WEIGHT],..., for example small=3,large@https://HOST/v1=1"
_AT_URL = re.compile(r"(?P<model>.*?)@(?P<url>[a-zA-Z][a-zA-Z0-9+.-]*://.*)")
_MOST_TARGETS = 100
_RUN_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HIGHEST_RATE = 1e6
_SMALLEST_BLOCK, _LARGEST_BLOCK = 8, 1_000_000  # tokens; shorter texts cannot all be different


class OptionError(ValueError):
    """An option cannot be used. The message names the option and says what to write instead."""


class Warmup(NamedTuple):
    """Warm-up of a stage: requests per user, or seconds. The other field is 0; without a warm-up both are 0."""

    requests: int = 0
    time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """A model, at ``url`` or else at the endpoint of the user's class. Locust's table shows ``name``."""

    model: str
    url: str | None = None
    weight: Fraction = Fraction(1)
    name: str = ""


def _number(text: str) -> float:
    """Return the number in a text, or NaN, which lies in no range."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def sweep(text: str) -> tuple[int, ...]:
    """Parse the concurrencies of a sweep, for example ``1,2,4,8``."""
    try:
        levels = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        levels = ()
    if not levels or min(levels) < 1:
        raise OptionError(f"{text!r} is not a list of concurrencies; write for example 1,2,4,8")
    return levels


def rates(text: str) -> tuple[RateRange, ...]:
    """Parse the requests per second of the stages of an open loop, for example ``5,10,20`` or ``2..20``."""
    ranges = []
    for part in filter(str.strip, text.split(",")):
        start, dots, end = part.partition("..")
        ranges.append(RateRange(_number(start), _number(end if dots else start)))
    if not ranges or not all(_is_rate(rate) for rate in ranges):
        raise OptionError(
            f"{text[:80]!r} is not a list of rates in requests/s; write for example 5,10,20, or 2..20 for a rate that "
            "changes within the stage"
        )
    return tuple(ranges)


def _is_rate(rate: RateRange) -> bool:
    return all(0 <= end <= _HIGHEST_RATE for end in rate) and rate.mean_per_s > 0


def length_sweep(text: str) -> tuple[Lengths, ...]:
    """Parse the lengths of the stages, for example ``1024/128,8192/1024``."""
    pairs = []
    for part in filter(str.strip, text.split(",")):
        numbers = part.strip().split("/")
        if len(numbers) != 2 or not all(n.isdecimal() and len(n) <= _MOST_DIGITS and int(n) >= 1 for n in numbers):
            raise OptionError(
                f"{part[:40]!r} is not a pair of lengths in tokens; write INPUT/OUTPUT, for example 1024/128,8192/1024"
            )
        pairs.append(Lengths(*map(int, numbers)))
    if not pairs:
        raise OptionError(f"{text[:40]!r} is not a list of lengths; write for example 1024/128,8192/1024")
    return tuple(pairs)


def trace_file(text: str) -> str:
    """Check that the trace file exists and return the text unchanged."""
    existing_file(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises if there is no home directory
    return text


def block_size(text: str) -> int:
    """Parse the number of tokens that one hash of a trace stands for."""
    try:
        tokens = positive(text)
    except OptionError:
        tokens = 0
    if not _SMALLEST_BLOCK <= tokens <= _LARGEST_BLOCK:
        raise OptionError(
            f"{text[:40]!r} is not the size of a block in tokens; write a whole number from {_SMALLEST_BLOCK} to "
            f"{_LARGEST_BLOCK}, for example 512 (Mooncake) or 16 (Qwen-Bailian)"
        )
    return tokens


def factor(text: str) -> float:
    """Parse a speed multiplier from 1e-6 to 1e6."""
    if not 1e-6 <= (value := _number(text)) <= 1e6:
        raise OptionError(f"{text[:40]!r} is not a valid factor; write for example 2 for twice as fast, 0.5 for half")
    return value


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not text.strip().isdecimal() or len(text) > _MOST_DIGITS or int(text) < 1:
        raise OptionError(f"{text!r} is not a whole number from 1")
    return int(text)


def whole(text: str) -> int:
    """Parse a whole number."""
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"{text[:40]!r} is not a whole number") from None


def warmup(text: str) -> Warmup:
    """Parse the warm-up of a stage: ``2`` (requests per user) or ``10s`` (seconds)."""
    text = text.strip()
    if text.isdecimal() and len(text) <= _MOST_DIGITS:
        return Warmup(requests=int(text))
    try:
        return Warmup(time_s=parse_duration(text))
    except DurationError as error:
        raise OptionError(f"{error}; a whole number without a unit is the number of requests per user") from None


def ratio(text: str) -> float:
    """Parse a fraction from 0 to 1."""
    if not 0 <= (value := _number(text)) <= 1:
        raise OptionError(f"{text!r} is not a fraction between 0 and 1; write for example 0.5")
    return value


def stage_to_judge(text: str) -> str:
    """Parse ``all``, ``best`` or the number of a stage."""
    stage = text.strip().lower()
    if stage not in ("all", "best") and not (stage.isdecimal() and int(stage) > 0):
        raise OptionError(f"{text!r} is not a stage to judge; write all, best or the number of a stage, from 1")
    return stage


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{text[:200]!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise OptionError(f'{text!r} is not a JSON object; write for example {{"temperature": 0}}')
    return value


def pair(text: str) -> tuple[str, str]:
    """Parse name and value from ``NAME=VALUE``."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise OptionError(f"{text!r} is not of the form NAME=VALUE")
    return name.strip(), value.strip()


def header_from_environment(text: str) -> tuple[str, str]:
    """Parse header name and variable from ``NAME=ENVVAR``.

    The variable must exist; the function does not read its value.
    """
    name, variable = pair(text)
    if variable not in os.environ:
        raise OptionError(f"the environment has no variable {variable!r} (for the header {name}); export it first")
    return name, variable


def plain_header(text: str) -> tuple[str, str]:
    """Parse header name and value from ``NAME=VALUE``. The value is not secret: the files of a run contain it."""
    name, value = pair(text)
    lower = name.lower()
    if not _HEADER_NAME.fullmatch(name):
        raise OptionError(f"{name[:40]!r} is not the name of a header; write NAME=VALUE, for example X-Session=a")
    if lower in _OWN_HEADERS:
        raise OptionError(f"the tool sets the header {name} itself; leave it out")
    if lower in _CREDENTIAL_HEADERS or is_secret_query(lower):
        raise OptionError(
            f"the header {name} looks like a credential, which must not be in the command line or in the files of a "
            f"run; put the value into an environment variable and give --llm-header-env {name}=VARIABLE"
        )
    if not value.isprintable() or not value.isascii():
        raise OptionError(f"the value of the header {name} contains characters that a header cannot have; use ASCII")
    return name, value


def cancel(text: str) -> tuple[float, float]:
    """Parse (fraction, seconds) from ``0.1:2s``."""
    fraction, colon, delay = text.partition(":")
    if not colon:
        raise OptionError(f"{text[:40]!r} is not FRACTION:TIME; write for example 0.1:2s")
    return ratio(fraction), parse_duration(delay)


def targets(text: str) -> tuple[Target, ...]:
    """Parse models or endpoints with their weights: ``MODEL[@URL][=WEIGHT],...``."""
    parsed = [_target(part.strip()) for part in text.split(",")]
    if len(parsed) > _MOST_TARGETS:
        raise OptionError(f"{len(parsed)} targets are more than the maximum of {_MOST_TARGETS}")
    endpoints = Counter((target.model, target.url) for target in parsed)
    (model, url), count = endpoints.most_common(1)[0]
    if count > 1:
        where = f" at {_short_url(url)}" if url else ""
        raise OptionError(f"{model!r}{where} is listed {count} times; list it once, with the sum of its weights")
    models = Counter(target.model for target in parsed)
    return tuple(
        replace(
            target,
            name=f"{target.model} @ {_short_url(target.url) or 'host'}" if models[target.model] > 1 else target.model,
        )
        for target in parsed
    )


def _target(text: str) -> Target:
    if not text:
        raise OptionError(f"an empty target; {_TARGET_FORM}")
    rest, weight = _weighed(text)
    match = _AT_URL.fullmatch(rest)
    if match is not None:
        model, url = match["model"].strip(), match["url"].strip().rstrip("/")
        if urlsplit(url).scheme.lower() not in ("http", "https"):
            raise OptionError(f"{_quoted(text)}: the URL must start with http:// or https://; {_TARGET_FORM}")
        if not urlsplit(url).hostname:
            raise OptionError(f"{_quoted(text)}: the URL has no host; {_TARGET_FORM}")
        if "@" in urlsplit(url).netloc or "?" in url:  # workers receive options, and pages show them
            raise OptionError(
                f"{_quoted(text)}: a target's URL has neither credentials nor a query; keys come from the environment "
                "(OPENAI_API_KEY, --llm-header-env)"
            )
    else:
        model, url = rest.strip(), None
        suffix = model.rpartition("@")[2]
        if "@" in model and (not suffix or re.search(r"[:/]|\.[a-z]", suffix)):  # name@20250101 is a model's name
            raise OptionError(f"{_quoted(text)}: the text after @ must start with http:// or https://; {_TARGET_FORM}")
    if not model:
        raise OptionError(f"{_quoted(text)}: the model name is missing; {_TARGET_FORM}")
    return Target(model, url, weight)


def _weighed(text: str) -> tuple[str, Fraction]:
    """Return (text without the weight, weight)."""
    rest, equals, number = text.rpartition("=")
    if not equals or "?" in rest:  # the equals sign of a query, which the caller rejects
        return text, Fraction(1)
    if not re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", number) or not Fraction(number.strip()):
        raise OptionError(f"{_quoted(text)}: {number!r} is not a weight; a weight is a number above 0; {_TARGET_FORM}")
    return rest, Fraction(number.strip())


def _short_url(url: str | None) -> str:
    """Return the host, port and path of a URL, for a name."""
    if url is None:
        return ""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path.rstrip('/')}"


def _quoted(text: str) -> str:
    """Return the text for messages, without credentials."""
    return repr(re.sub(r"://[^/@]*@", "://", text.partition("?")[0])[:120])


def prompts_file(text: str) -> str:
    """Check that a dataset exists and return the text unchanged.

    The dataset is a file, optionally with a column, or a name on the hub.
    """
    if text.startswith(HUB):
        parse_hub_name(text)
    else:
        existing_file(str(split_name(text)[0]))
    return text


def run_key(text: str) -> str:
    """Check the run key of a manifest, which determines the texts of generated prompts, and return it."""
    if not _RUN_KEY.fullmatch(text):
        raise OptionError(
            f"{text[:80]!r} is not a run key; copy run_key from a manifest, or write 1 to 64 letters, "
            "digits, dots, dashes or underscores"
        )
    return text


def existing_file(text: str) -> Path:
    """Return the path of a file. Raises ``OptionError`` if there is no such file."""
    path = Path(text)
    # os.path, because the methods of Path raise an error when a name is too long.
    if os.path.isdir(path):  # noqa: PTH112
        raise OptionError(f"{text[:200]!r} is a folder; give a file")
    if not os.path.isfile(path):  # noqa: PTH113
        raise OptionError(f"there is no file {text[:200]!r}")
    return path


def _text_of(text: str) -> str:
    try:
        return existing_file(text).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OptionError(f"{text[:200]!r} is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None
    except OSError as error:
        raise OptionError(f"{text[:200]!r} cannot be read: {error.strerror}") from None


def invoke_format(text: str) -> str | dict[str, Any]:
    """Return the name of a model family, or the content of a JSON file."""
    path = Path(text)
    if path.suffix != ".json" and not os.path.isfile(path):  # noqa: PTH113
        return text
    return json_object(_text_of(text))


def load_prices(text: str) -> Prices:
    """Read the user's price file."""
    return Prices.read(existing_file(text))


def amount(text: str) -> float:
    """Parse an amount of money above 0."""
    if not 0 < (value := _number(text)) < math.inf:
        raise OptionError(f"{text!r} is not an amount of money above 0; write for example 2.50")
    return value


def server_metrics(text: str) -> tuple[str, ...]:
    """Parse ``URL,...`` or ``off``, which is an empty tuple. Raises ``OptionError``."""
    if text.strip() == "off":
        return ()
    urls = [part.strip() for part in text.split(",")]
    for url in urls:
        try:
            parts = urlsplit(url)
            bad = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
        except ValueError:
            bad, parts = True, urlsplit("")
        if bad:
            raise OptionError(f"{url!r} is not a URL; write http://HOST:PORT/metrics, several with commas, or off")
        if "@" in parts.netloc or any(is_secret_query(pair.partition("=")[0]) for pair in parts.query.split("&")):
            raise OptionError("the URL contains credentials, but metrics are read without a key; leave them out")
    return tuple(urls)


def web_origin(text: str) -> str:
    """Check the scheme, host and port of a website and return the text unchanged."""
    parts = urlsplit(text)
    try:
        bad = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        bad = True
    if bad or parts.path.strip("/") or parts.query or parts.fragment:
        raise OptionError(f"{text!r} is not an origin; write scheme and host, for example https://load.example.com")
    return text
