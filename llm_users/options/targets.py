"""Several models or endpoints in one run, as ``--llm-targets`` gives them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from urllib.parse import urlsplit

_SHAPE = "write MODEL[@URL][=WEIGHT],..., for example small=3,large@https://HOST/v1=1"
_AT_URL = re.compile(r"(?P<model>.*?)@(?P<url>[a-zA-Z][a-zA-Z0-9+.-]*://.*)")
_MOST = 100


class TargetError(ValueError):
    """The targets are invalid. The message quotes the invalid part and says what to write."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model, at ``url`` or else at the endpoint of the user's class. Locust's table shows ``name``."""

    model: str
    url: str | None = None
    weight: Fraction = Fraction(1)
    name: str = ""


def parse_targets(text: str) -> tuple[Target, ...]:
    """Parse targets of the form ``MODEL[@URL][=WEIGHT],...``. Raises ``TargetError``."""
    targets = [_target(part.strip()) for part in text.split(",")]
    if len(targets) > _MOST:
        raise TargetError(f"{len(targets)} targets are more than the maximum of {_MOST}")
    endpoints = Counter((target.model, target.url) for target in targets)
    (model, url), count = endpoints.most_common(1)[0]
    if count > 1:
        where = f" at {_short_url(url)}" if url else ""
        raise TargetError(f"{model!r}{where} is listed {count} times; list it once, with the sum of its weights")
    models = Counter(target.model for target in targets)
    return tuple(
        replace(
            target,
            name=f"{target.model} @ {_short_url(target.url) or 'host'}" if models[target.model] > 1 else target.model,
        )
        for target in targets
    )


def _target(text: str) -> Target:
    if not text:
        raise TargetError(f"an empty target; {_SHAPE}")
    rest, weight = _weighed(text)
    match = _AT_URL.fullmatch(rest)
    if match is not None:
        model, url = match["model"].strip(), match["url"].strip().rstrip("/")
        if urlsplit(url).scheme.lower() not in ("http", "https"):
            raise TargetError(f"{_quoted(text)}: the URL must start with http:// or https://; {_SHAPE}")
        if not urlsplit(url).hostname:
            raise TargetError(f"{_quoted(text)}: the URL has no host; {_SHAPE}")
        if "@" in urlsplit(url).netloc or "?" in url:  # workers receive options, and pages show them
            raise TargetError(
                f"{_quoted(text)}: a target's URL has neither credentials nor a query; keys come from the environment "
                "(OPENAI_API_KEY, --llm-header-env)"
            )
    else:
        model, url = rest.strip(), None
        suffix = model.rpartition("@")[2]
        if "@" in model and (not suffix or re.search(r"[:/]|\.[a-z]", suffix)):  # name@20250101 is a model's name
            raise TargetError(f"{_quoted(text)}: the text after @ must start with http:// or https://; {_SHAPE}")
    if not model:
        raise TargetError(f"{_quoted(text)}: the model name is missing; {_SHAPE}")
    return Target(model, url, weight)


def _weighed(text: str) -> tuple[str, Fraction]:
    """Return (text without the weight, weight)."""
    rest, equals, number = text.rpartition("=")
    if not equals or "?" in rest:  # the equals sign of a query, which the caller rejects
        return text, Fraction(1)
    if not re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", number) or not Fraction(number.strip()):
        raise TargetError(f"{_quoted(text)}: {number!r} is not a weight; a weight is a number above 0; {_SHAPE}")
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
