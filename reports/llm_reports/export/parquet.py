"""``requests.parquet``, ``summary.parquet`` and ``server.parquet``: the data of a report in Parquet format.

Requires pyarrow.
"""

from __future__ import annotations

import io

import pandas as pd
from pandas import DataFrame

from llm_reports.content import Content
from llm_reports.errors import InputError
from llm_reports.export.server import server_metrics_frame
from llm_reports.export.summary import summary_frame
from llm_users.record import COL

ROWS_NAME = "requests.parquet"
SUMMARY_NAME = "summary.parquet"
SERVER_NAME = "server.parquet"


def files(content: Content) -> dict[str, bytes]:
    """Return the files of this format: name and bytes. Rows are in the order of their starts, with their run's name."""
    rows = [run.requests.assign(run=run.name) for run in content.runs]
    requests = pd.concat(rows, ignore_index=True).sort_values(["run", COL.started_at, COL.request_id], kind="stable")
    written = {ROWS_NAME: _written(requests), SUMMARY_NAME: _written(summary_frame(content.groups))}
    servers = server_metrics_frame(content.groups)
    return {**written, SERVER_NAME: _written(servers)} if len(servers) else written


def _written(frame: DataFrame) -> bytes:
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, engine="pyarrow", index=False)
    except ImportError:
        raise InputError(
            "--format parquet requires pyarrow, which is not installed. In a clone of the repository, run: "
            "pip install '.[parquet]'"
        ) from None
    return buffer.getvalue()
