"""How the requests of a table ended: ``llm_users.outcome`` for columns of rows.

Functions that return a ``Series`` give one value per row, with the index of what they are given. Each different code is
classified once: a million rows have a handful of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pandas import Categorical, DataFrame, Index, Series, factorize

from llm_users.outcome import BUFFERED, OWN_CODES, TOO_MANY_REQUESTS, Outcome, outcome_of


def outcomes(rows: DataFrame) -> Series:
    """The outcome of each row, a categorical column of the values of ``Outcome``."""
    kinds = list(Outcome)
    places, codes = factorize(rows["error_code"])
    found = np.array([kinds.index(outcome_of(code)) for code in codes], dtype=np.int8)[places]
    found[throttled(rows).to_numpy(bool)] = kinds.index(Outcome.THROTTLED)
    return Series(Categorical.from_codes(found, Index([kind.value for kind in kinds])), index=rows.index)


def outcome_counts(rows: DataFrame) -> dict[Outcome, int]:
    """How many rows have each outcome."""
    counts = dict.fromkeys(Outcome, 0)
    limited = _has_limit_status(rows)
    for status, codes in ((None, rows["error_code"][~limited]), (TOO_MANY_REQUESTS, rows["error_code"][limited])):
        for code, count in codes.value_counts().items():
            counts[outcome_of(str(code), status)] += int(count)
    return counts


def succeeded(codes: Series) -> Series:
    """Which requests succeeded, from the column ``error_code``; those with a buffered answer did."""
    return codes.isin(_own_codes(lambda outcome: outcome is Outcome.OK))


def failed(codes: Series) -> Series:
    """Which requests failed, from the column ``error_code``; throttled and dropped ones did."""
    return ~codes.isin(_own_codes(lambda outcome: not outcome.is_failure))


def unfinished(codes: Series) -> Series:
    """Which requests the client ended itself, from the column ``error_code``: they neither succeeded nor failed."""
    return codes.isin(_own_codes(lambda outcome: outcome.is_unfinished))


def aborted(codes: Series) -> Series:
    """Which requests the end of the stage or of the test cut, from the column ``error_code``."""
    return codes.isin(_own_codes(lambda outcome: outcome is Outcome.ABORTED))


def dropped(codes: Series) -> Series:
    """Which requests found no place among ``--llm-max-in-flight``, from the column ``error_code``."""
    return codes.isin(_own_codes(lambda outcome: outcome is Outcome.DROPPED))


def buffered(codes: Series) -> Series:
    """Which answers arrived at once, from the column ``error_code``: they succeeded, without a time to first token."""
    return codes == BUFFERED


def throttled(rows: DataFrame) -> Series:
    """Which requests the endpoint rejected because it was asked too often."""
    codes = rows["error_code"]
    by_code = codes.isin([code for code in codes.unique() if outcome_of(code) is Outcome.THROTTLED])
    return by_code | (_has_limit_status(rows) & ~codes.isin(OWN_CODES))


def _has_limit_status(rows: DataFrame) -> Series:
    return (rows["http_status"] == TOO_MANY_REQUESTS).fillna(value=False).astype(bool)


def _own_codes(test: Callable[[Outcome], bool]) -> list[str]:
    return [code for code in OWN_CODES if test(outcome_of(code))]
