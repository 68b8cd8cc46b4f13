"""Several models or endpoints in one run: what ``--llm-targets`` names."""

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
    """Targets that cannot be; the message says which and what would be right."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model, at ``url`` or else where the user's class asks; ``name`` is what Locust's table calls it."""

    model: str
    url: str | None = None
    weight: Fraction = Fraction(1)
    name: str = ""


def parse_targets(text: str) -> tuple[Target, ...]:
    """The targets written as ``MODEL[@URL][=WEIGHT],...``. Raises ``TargetError``."""
    targets = [_target(part.strip()) for part in text.split(",")]
    if len(targets) > _MOST:
        raise TargetError(f"{len(targets)} targets are more than {_MOST}")
    places = Counter((target.model, target.url) for target in targets)
    (model, url), count = places.most_common(1)[0]
    if count > 1:
        where = f" at {_place(url)}" if url else ""
        raise TargetError(f"{model!r}{where} is there {count} times; give it once, with the sum of its weights")
    models = Counter(target.model for target in targets)
    return tuple(
        replace(each, name=f"{each.model} @ {_place(each.url) or 'host'}" if models[each.model] > 1 else each.model)
        for each in targets
    )


def _target(text: str) -> Target:
    if not text:
        raise TargetError(f"an empty target; {_SHAPE}")
    rest, weight = _weighed(text)
    match = _AT_URL.fullmatch(rest)
    if match is not None:
        model, url = match["model"].strip(), match["url"].strip().rstrip("/")
        if urlsplit(url).scheme.lower() not in ("http", "https"):
            raise TargetError(f"{_shown(text)}: the URL must start with http:// or https://; {_SHAPE}")
        if not urlsplit(url).hostname:
            raise TargetError(f"{_shown(text)}: the URL names no host; {_SHAPE}")
        if "@" in urlsplit(url).netloc or "?" in url:  # options travel, and are shown
            raise TargetError(
                f"{_shown(text)}: a target's URL has neither credentials nor a query; keys come from the environment "
                "(OPENAI_API_KEY, --llm-header-env)"
            )
    else:
        model, url = rest.strip(), None
        behind = model.rpartition("@")[2]
        if "@" in model and (not behind or re.search(r"[:/]|\.[a-z]", behind)):  # name@20250101 is a model's name
            raise TargetError(f"{_shown(text)}: what is behind @ must start with http:// or https://; {_SHAPE}")
    if not model:
        raise TargetError(f"{_shown(text)}: names no model; {_SHAPE}")
    return Target(model, url, weight)


def _weighed(text: str) -> tuple[str, Fraction]:
    """(all but the weight, weight)."""
    rest, equals, number = text.rpartition("=")
    if not equals or "?" in rest:  # of a query, which is refused
        return text, Fraction(1)
    if not re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", number) or not Fraction(number.strip()):
        raise TargetError(f"{_shown(text)}: {number!r} is no weight, a number above 0; {_SHAPE}")
    return rest, Fraction(number.strip())


def _place(url: str | None) -> str:
    """A URL for a name: its host, port and path."""
    if url is None:
        return ""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path.rstrip('/')}"


def _shown(text: str) -> str:
    """For messages, without credentials."""
    return repr(re.sub(r"://[^/@]*@", "://", text.partition("?")[0])[:120])
