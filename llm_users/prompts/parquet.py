"""Reads Parquet files of prompts with the optional package pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_users.prompts.items import CAPS, CONTENTS, LENGTH, Item, item_of
from llm_users.prompts.prompt import PromptError

_ROWS_AT_ONCE = 1000


def read_parquet(file: Path, column: str | None) -> Iterator[Item | None]:
    """Yield the rows of the file; only the columns that describe prompts are read. Raises ``PromptError``."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise PromptError(
            f"prompts file {str(file)!r}: reading Parquet needs the package pyarrow, which cannot be imported "
            f"({error}). Install it (pip install 'locust-llm[parquet]'), or save the prompts as JSON lines"
        ) from error
    try:
        with ParquetFile(file) as table:
            wanted = {column} if column is not None else {*CONTENTS, LENGTH}
            names = [name for name in table.schema_arrow.names if name in {*wanted, *CAPS}]
            if not wanted & set(names):
                existing, expected = ", ".join(table.schema_arrow.names), ", ".join(sorted(wanted))
                raise PromptError(
                    f"prompts file {str(file)!r}: its columns are {existing}; expected one of {expected}. Name the "
                    "column with the prompts: FILE:COLUMN"
                )
            number = 0
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=names, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield item_of(f"prompts file {str(file)!r}, row {number}", without_nulls(row), column)
    except (OSError, ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PromptError(
            f"prompts file {str(file)!r} cannot be read as Parquet: {reason}. Check the path, or save it again"
        ) from error


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row without null fields in its messages: in a table, every message has the fields of all messages."""
    return {name: _without_null_fields(value) if isinstance(value, list) else value for name, value in row.items()}


def _without_null_fields(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_null_fields(element) for element in value]
    if isinstance(value, dict):
        return {
            key: _without_null_fields(field) for key, field in value.items() if field is not None or key == "content"
        }
    return value
