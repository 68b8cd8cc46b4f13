"""The reasons why requests failed, in the words of the server or the system, for verdicts and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_reports.metrics.outcomes import failed
from llm_users.record import COL

if TYPE_CHECKING:  # this module does not load pandas
    from pandas import DataFrame

_MOST_REASONS = 2
_MOST_CHARACTERS = 300  # of one reason, which is enough for the sentence of a server and short enough for a log line


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
