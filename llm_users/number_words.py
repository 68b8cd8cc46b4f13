"""Conversion of numbers and durations to and from text.

``parse_duration`` is the only parser of durations such as ``500ms`` or ``1m30s``; ``duration_text`` formats them.
``lasting`` formats approximate durations, ``counted`` a count with its noun.
``in_words`` creates the question of LLMPerf's correctness test, ``has_number`` implements LLMPerf's rule for the answer
and ``is_only_number`` a stricter rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_PLAIN_NUMBER = re.compile(_NUMBER, re.ASCII)
_WITH_UNITS = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER})\s*{unit}(?![a-z])\s*)?" for unit in _UNITS_S), re.ASCII)
"""Each unit occurs at most once, the largest unit first, as in Locust's ``--run-time``."""
LONGEST_DURATION_S = 366 * 86400.0
"""One year. A longer duration indicates a mistake in its unit or its number."""


class DurationError(ValueError):
    """The text is not a usable duration. The message quotes the text and gives a valid example."""


def parse_duration(
    text: str, *, needs_unit: bool = False, least_s: float = 0.0, most_s: float = LONGEST_DURATION_S
) -> float:
    """Return the seconds in a text such as ``50us``, ``500ms``, ``10s``, ``1m30s``, ``1.5h`` or ``10`` (seconds).

    With ``needs_unit``, 0 is the only valid number without a unit. The parser ignores case. Raises ``DurationError``
    for invalid texts and for durations below ``least_s`` or above ``most_s``.
    """
    written = text.strip().lower()
    match = _WITH_UNITS.fullmatch(written)
    if written and match is not None:
        seconds = sum(float(number) * _UNITS_S[unit] for unit, number in match.groupdict().items() if number)
    elif _PLAIN_NUMBER.fullmatch(written) and not (needs_unit and float(written)):
        seconds = float(written)
    else:
        raise DurationError(
            f"{text[:40]!r} is not a duration; write a number with its unit (us, ms, s, m or h), for example 500ms, "
            "10s or 1m30s"
        )
    if not least_s <= seconds <= most_s:
        limits = f"from {duration_text(least_s)} to" if least_s else "at most"
        raise DurationError(f"{text[:40]!r} is not {limits} {duration_text(most_s)}")
    return seconds


def duration_text(seconds: float) -> str:
    """Format a duration of 0 or more seconds as ``parse_duration`` reads it: ``50us``, ``200ms``, ``1m30s``, ``2h``."""
    if seconds < 60:
        unit = next((unit for unit in ("s", "ms") if seconds >= _UNITS_S[unit]), "us" if seconds else "s")
        return f"{seconds / _UNITS_S[unit]:.15g}{unit}"
    minutes, rest_s = divmod(round(seconds, 9), 60)
    hours, minutes = divmod(minutes, 60)
    counts = {"h": hours, "m": minutes, "s": round(rest_s, 9)}
    return "".join(f"{count:.11g}{unit}" for unit, count in counts.items() if count)


def lasting(seconds: float) -> str:
    """Format an approximate duration: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.2g} h"


def counted(count: float, noun: str) -> str:
    """Return a count with its noun in the singular or the plural: ``1 user``, ``8 users``."""
    return f"{count:.15g} {noun}{'' if count == 1 else 's'}"


_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_COMMA_BETWEEN_DIGITS = re.compile(r"(?<=\d),(?=\d)")


def listed(texts: Sequence[str]) -> str:
    """Return the texts as a list in a sentence: ``2``, ``2 and 4``, ``2, 4 and 8``."""
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


def in_words(number: int) -> str:
    """Return a whole number below one million in English words: 1234 is "one thousand, two hundred and thirty-four".

    Raises ``ValueError`` for other numbers.
    """
    if not 0 <= number < 1_000_000:
        raise ValueError(f"{number} cannot be written in words; give a whole number from 0 to 999999")
    if number < 20:
        return _SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f"-{_SMALL[ones]}" if ones else "")
    unit, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    most, rest = divmod(number, unit)
    joint = ", " if rest >= 100 else " and "
    return f"{in_words(most)} {name}" + (joint + in_words(rest) if rest else "")


def numbers_in(text: str) -> list[str]:
    """Return the runs of digits in a text, in order, without the commas between digits: "1,234" is one number."""
    return re.findall(r"\d+", _COMMA_BETWEEN_DIGITS.sub("", text))


def has_number(text: str, number: int) -> bool:
    """Return whether the text contains the number, possibly among other numbers (LLMPerf's rule)."""
    return str(number) in numbers_in(text)


def is_only_number(text: str, number: int) -> bool:
    """Return whether the text contains this number and no other (the stricter rule)."""
    return set(numbers_in(text)) == {str(number)}
