"""How the requests of a table ended: ``llm_users.outcome`` for columns of rows.

Every function returns one value per row, with the index of what it is given. Codes are classified once each: a million
rows have a handful of different ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pandas import Categorical, DataFrame, Index, Series, factorize

from llm_users.outcome import BUFFERED, TOO_MANY_REQUESTS, Outcome, outcome_of


def outcomes(rows: DataFrame) -> Series:
    """The outcome of each row, a categorical column of the values of ``Outcome``."""
    kinds = list(Outcome)
    places, codes = factorize(rows["error_code"])
    found = np.array([kinds.index(outcome_of(code)) for code in codes], dtype=np.int8)[places]
    found[throttled(rows).to_numpy(bool)] = kinds.index(Outcome.THROTTLED)
    return Series(Categorical.from_codes(found, Index([kind.value for kind in kinds])), index=rows.index)


def outcome_counts(rows: DataFrame) -> dict[Outcome, int]:
    """How many rows have each outcome."""
    counts = outcomes(rows).value_counts()
    return {outcome: int(counts[outcome.value]) for outcome in Outcome}


def succeeded(codes: Series) -> Series:
    """Which requests succeeded, from the column ``error_code``; those with a buffered answer did."""
    return _where(codes, lambda outcome: outcome is Outcome.OK)


def failed(codes: Series) -> Series:
    """Which requests failed, from the column ``error_code``; throttled and dropped ones did."""
    return _where(codes, lambda outcome: outcome.is_failure)


def unfinished(codes: Series) -> Series:
    """Which requests the client ended itself, from the column ``error_code``: they neither succeeded nor failed."""
    return _where(codes, lambda outcome: outcome.is_unfinished)


def aborted(codes: Series) -> Series:
    """Which requests the end of the stage or of the test cut, from the column ``error_code``."""
    return _where(codes, lambda outcome: outcome is Outcome.ABORTED)


def dropped(codes: Series) -> Series:
    """Which requests found no place among ``--llm-max-in-flight``, from the column ``error_code``."""
    return _where(codes, lambda outcome: outcome is Outcome.DROPPED)


def buffered(codes: Series) -> Series:
    """Which answers arrived at once, from the column ``error_code``: they succeeded, without a time to first token."""
    return codes == BUFFERED


def throttled(rows: DataFrame) -> Series:
    """Which requests the endpoint rejected because it was asked too often."""
    codes = rows["error_code"]
    by_status = (rows["http_status"] == TOO_MANY_REQUESTS).fillna(value=False).astype(bool)
    by_code = _where(codes, lambda outcome: outcome is Outcome.THROTTLED)
    return by_code | (by_status & _where(codes, lambda outcome: outcome is Outcome.FAILED))


def _where(codes: Series, test: Callable[[Outcome], bool]) -> Series:
    return codes.isin([code for code in codes.unique() if test(outcome_of(code))])
