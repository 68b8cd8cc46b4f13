"""Answers that can be checked: reads a number that the prompt spells in English words and answers it in digits.

The seed and the request's number determine which answers are wrong. It does not depend on wire formats.
"""

from __future__ import annotations

import re

from llm_users.simulator.spec import Spec, drawn

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: value for value, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}


def number_in(prompt: str) -> int | None:
    """Return the number that the longest sequence of number words in the prompt spells; None without number words."""
    sequences: list[list[str]] = [[]]
    for word in re.findall(r"[a-z]+", prompt.lower()):
        if word in _VALUES or word in _SCALES:
            sequences[-1].append(word)
        elif word != "and" or not sequences[-1]:
            sequences.append([])
    longest = max(sequences, key=len)
    return _value(longest) if longest else None


def answer(spec: Spec, number: int, prompt: str, active: int) -> tuple[str, bytes]:
    """Return the kind of answer (right, wrong or vague) and its text for request ``number``.

    ``active`` is the number of active answers. Both results are empty when the spec or the prompt does not ask for a
    number.
    """
    asked = number_in(prompt) if spec.answers == "numbers" else None
    if asked is None:
        return "", b""
    overloaded = 1 - spec.wrong_above / active if 0 < spec.wrong_above < active else 0.0
    shares = [("wrong", max(spec.wrong, overloaded)), ("vague", spec.vague)]
    kind = drawn(shares, f"answer {spec.seed} {number}") or "right"
    text = {"right": f"{asked:,}", "wrong": f"{asked + 1:,}", "vague": f"{asked + 1:,}/{asked:,}"}[kind]
    return kind, text.encode()


def _value(words: list[str]) -> int:
    total = part = 0
    for word in words:
        scale = _SCALES.get(word, 0)
        if not scale:
            part += _VALUES[word]
        elif scale == 100:
            part = max(part, 1) * scale
        else:
            total, part = total + max(part, 1) * scale, 0
    return total + part
