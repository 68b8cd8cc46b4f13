"""Data sets of the Hugging Face hub, through the package ``datasets`` where that is installed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from llm_users.prompts.items import CAPS, CONTENTS, LENGTH, Item, item_of
from llm_users.prompts.parquet import without_nulls
from llm_users.prompts.prompt import PromptError

HUB = "hf:"
# A slice such as train[:1000] has a colon of its own.
_NAME = re.compile(r"hf:(?P<name>[^:]+)(?::(?P<split>[^:\[\]]*(?:\[[^\]]*\])?))?(?::(?P<column>.+))?")
_REACH_S = 10.0


def parse_hub_name(name: str) -> tuple[str, str | None, str, str | None]:
    """(data set, its configuration, split, column) of ``hf:ORG/NAME[/CONFIG][:SPLIT][:COLUMN]``.

    The data set may be a folder. Raises ``PromptError``.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise PromptError(
            f"{name!r} names no data set; write hf:ORG/NAME[:SPLIT][:COLUMN], for example hf:org/name:test"
        )
    path, config = match["name"], None
    if not Path(path).is_dir() and path.count("/") == 2:
        path, _, config = path.rpartition("/")
    return path, config, match["split"] or "train", match["column"]


def read_hub(name: str) -> Iterator[Item | None]:
    """The rows of a data set. May take the time of its download. Raises ``PromptError``."""
    path, config, split, column = parse_hub_name(name)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the hub's client is imported
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise PromptError(
            f"prompts {name!r}: data sets of the hub need the package datasets, which cannot be imported ({error}). "
            "Install it (pip install datasets), or download the data set and give its file, JSON lines or Parquet"
        ) from error
    try:
        if not Path(path).is_dir():
            _reach_hub(path)
        rows = load_dataset(path, config, split=split)
    except Exception as error:  # many kinds, of the hub, of the network and of the data
        raise PromptError(
            f"prompts {name!r}: the data set could not be had ({_first_line(error)}). Check name, split and network (a "
            "gated one needs HF_TOKEN; one that was downloaded before is found with HF_HUB_OFFLINE=1), or give a file"
        ) from error
    names = [each for each in rows.column_names if each in {*CONTENTS, *CAPS, LENGTH, column}]
    for number, row in enumerate(rows.select_columns(names) if names else rows, start=1):
        fields: dict[str, Any] = without_nulls(row)
        yield item_of(f"prompts {name!r}, row {number}", fields, column)


def _reach_hub(path: str) -> None:
    """Raise at once if no hub answers; ``datasets`` would try again for minutes."""
    from huggingface_hub import constants, dataset_info
    from huggingface_hub.errors import HfHubHTTPError

    if not constants.HF_HUB_OFFLINE:
        with suppress(HfHubHTTPError):  # an answer of any kind will do: what it means datasets says better
            dataset_info(path, timeout=_REACH_S)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
