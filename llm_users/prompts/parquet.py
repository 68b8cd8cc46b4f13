"""Parquet files of prompts, through pyarrow where that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_users.prompts.items import CAPS, CONTENTS, LENGTH, Item, item_of
from llm_users.prompts.prompt import PromptError

_ROWS_AT_ONCE = 1000


def read_parquet(file: Path, column: str | None) -> Iterator[Item | None]:
    """The rows of the file; only columns that say something about a prompt are read. Raises ``PromptError``."""
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
                has, lacks = (", ".join(each) for each in (table.schema_arrow.names, sorted(wanted)))
                raise PromptError(
                    f"prompts file {str(file)!r}: its columns are {has}, and none of them is {lacks}. Name the one "
                    "with the prompts: FILE:COLUMN"
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
    """The row with messages that have only their own fields: in a table all have those of all others, as nulls."""
    return {name: _bare(value) if isinstance(value, list) else value for name, value in row.items()}


def _bare(value: Any) -> Any:
    if isinstance(value, list):
        return [_bare(each) for each in value]
    if isinstance(value, dict):
        return {key: _bare(each) for key, each in value.items() if each is not None or key == "content"}
    return value
