"""Outcomes of the requests of a table: ``llm_users.outcome`` for columns of rows.

Functions that return a ``Series`` return one value per row, with the index of their argument. Each distinct code is
classified once: a million rows have a handful of distinct codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from llm_users.outcome import BUFFERED, OWN_CODES, TOO_MANY_REQUESTS, Outcome, outcome_of
from llm_users.record import COL

if TYPE_CHECKING:  # this module does not load pandas
    from pandas import DataFrame, Series

_MOST_REASONS = 2
_MOST_CHARACTERS = 300  # of one reason, which is enough for the sentence of a server and short enough for a log line


def outcomes(rows: DataFrame) -> Series:
    """Return the outcome of each row, a categorical column of the values of ``Outcome``."""
    from pandas import Categorical, Index, Series, factorize

    kinds = list(Outcome)
    indices, codes = factorize(rows[COL.error_code])
    outcome_indices = np.array([kinds.index(outcome_of(code)) for code in codes], dtype=np.int8)[indices]
    outcome_indices[throttled(rows).to_numpy(bool)] = kinds.index(Outcome.THROTTLED)
    return Series(Categorical.from_codes(outcome_indices, Index([kind.value for kind in kinds])), index=rows.index)


def outcome_counts(rows: DataFrame) -> dict[Outcome, int]:
    """Return the number of rows with each outcome."""
    counts = dict.fromkeys(Outcome, 0)
    limited = _has_limit_status(rows)
    for status, codes in ((None, rows[COL.error_code][~limited]), (TOO_MANY_REQUESTS, rows[COL.error_code][limited])):
        for code, count in codes.value_counts().items():
            counts[outcome_of(str(code), status)] += int(count)
    return counts


def succeeded(codes: Series) -> Series:
    """Return which requests succeeded, from the column ``error_code``, including buffered answers."""
    return codes.isin(_own_codes(lambda outcome: outcome is Outcome.OK))


def failed(codes: Series) -> Series:
    """Return which requests failed, from the column ``error_code``, including throttled and dropped requests."""
    return ~codes.isin(_own_codes(lambda outcome: not outcome.is_failure))


def unfinished(codes: Series) -> Series:
    """Return which requests the client ended, from the column ``error_code``; they neither succeeded nor failed."""
    return codes.isin(_own_codes(lambda outcome: outcome.is_unfinished))


def aborted(codes: Series) -> Series:
    """Return which requests the end of the stage or the test aborted, from the column ``error_code``."""
    return codes.isin(_own_codes(lambda outcome: outcome is Outcome.ABORTED))


def dropped(codes: Series) -> Series:
    """Return which requests were dropped because of ``--llm-max-in-flight``, from the column ``error_code``."""
    return codes.isin(_own_codes(lambda outcome: outcome is Outcome.DROPPED))


def buffered(codes: Series) -> Series:
    """Return which answers arrived all at once, from the column ``error_code``.

    They are successful, but do not have a time to first token.
    """
    return codes == BUFFERED


def throttled(rows: DataFrame) -> Series:
    """Return which requests the endpoint rejected because of a rate limit."""
    codes = rows[COL.error_code]
    by_code = codes.isin([code for code in codes.unique() if outcome_of(code) is Outcome.THROTTLED])
    return by_code | (_has_limit_status(rows) & ~codes.isin(OWN_CODES))


def _has_limit_status(rows: DataFrame) -> Series:
    return (rows[COL.http_status] == TOO_MANY_REQUESTS).fillna(value=False).astype(bool)


def _own_codes(test: Callable[[Outcome], bool]) -> list[str]:
    return [code for code in OWN_CODES if test(outcome_of(code))]


def failure_reasons(rows: DataFrame) -> str:
    """Return the most frequent errors of the failed requests, each with its number of requests; "" without messages.

    Requests with the same code count as one error, and the most frequent message of the code represents it.
    """
    failures = rows.loc[failed(rows[COL.error_code]).to_numpy(bool), [COL.error_code, COL.error_message]]
    counts = failures[COL.error_code].value_counts()
    reasons = []
    for code in counts.index[:_MOST_REASONS]:
        messages = failures[COL.error_message][(failures[COL.error_code] == code).to_numpy(bool)]
        message = str(messages.value_counts().index[0]).strip().rstrip(".")[:_MOST_CHARACTERS]
        count = int(counts[code])
        if message:
            reasons.append(f"{code}: {message} ({count} {'request' if count == 1 else 'requests'})")
    if reasons and len(counts) > _MOST_REASONS:
        reasons.append(f"{len(counts) - _MOST_REASONS} other errors")
    return "; ".join(reasons)
