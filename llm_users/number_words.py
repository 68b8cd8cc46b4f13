"""Numbers in words and the digits that come back: LLMPerf's correctness test as pure functions.

``in_words`` makes the question, ``has_number`` is LLMPerf's rule for the answer, ``is_only_number`` a stricter one.
Knows nothing of requests, rows or files.
"""

from __future__ import annotations

import re

_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_COMMA_BETWEEN_DIGITS = re.compile(r"(?<=\d),(?=\d)")


def in_words(number: int) -> str:
    """A whole number below a million in English words: 1234 is "one thousand, two hundred and thirty-four"."""
    if not 0 <= number < 1_000_000:
        raise ValueError(f"{number} cannot be put into words here; give a whole number from 0 to 999999")
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
    """The runs of digits in a text, in their order, once the commas between digits are gone: "1,234" is one of them."""
    return re.findall(r"\d+", _COMMA_BETWEEN_DIGITS.sub("", text))


def has_number(text: str, number: int) -> bool:
    """LLMPerf's rule: the number is among those of the text. Others may stand there too."""
    return str(number) in numbers_in(text)


def is_only_number(text: str, number: int) -> bool:
    """The stricter rule: the text names this number and no other."""
    return set(numbers_in(text)) == {str(number)}
