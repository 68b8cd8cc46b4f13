"""Numbers in words, and the two rules by which the digits of an answer are judged."""

from __future__ import annotations

import pytest

from llm_users.number_words import has_number, in_words, is_only_number
from llm_users.simulator.numerals import number_in


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (512, "five hundred and twelve"),
        (1001, "one thousand and one"),
        (1100, "one thousand, one hundred"),
        (8234, "eight thousand, two hundred and thirty-four"),
        (10_000, "ten thousand"),
        (999_999, "nine hundred and ninety-nine thousand, nine hundred and ninety-nine"),
    ],
)
def test_numbers_are_spelled_in_english(number: int, words: str) -> None:
    assert in_words(number) == words


def test_what_is_spelled_is_read_back() -> None:
    # The simulated endpoint reads words by code of its own.
    assert [number_in(f"Write {in_words(n)} in digits, and nothing else.") for n in range(10_001)] == [*range(10_001)]
    assert number_in("Why is the sky blue, and the grass green?") is None


@pytest.mark.parametrize("number", [-1, 1_000_000])
def test_what_cannot_be_spelled_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 999999"):
        in_words(number)


@pytest.mark.parametrize(
    ("text", "loose", "strict"),
    [
        ("1234", True, True),
        ("1,234.", True, True),
        ("The number is **1234**, that is 1,234.", True, True),
        ("1234 (4 digits)", True, False),
        ("1235, or rather 1234", True, False),
        ("12,34", True, True),
        ("1234,5678", False, False),  # one number for LLMPerf, who takes out every comma between digits
        ("1234, 5678", True, False),
        ("12345", False, False),
        ("01234", False, False),
        ("1 234", False, False),
        ("1.234", False, False),
        ("twelve hundred and thirty-four", False, False),
        ("", False, False),
    ],
)
def test_answers_are_judged_by_both_rules(text: str, loose: bool, strict: bool) -> None:
    assert (has_number(text, 1234), is_only_number(text, 1234)) == (loose, strict)
