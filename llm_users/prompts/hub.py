"""The Hugging Face hub: whether it responds, the names of its datasets, and their rows (with ``datasets``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from llm_users.prompts.items import CAPS, CONTENTS, LENGTH, Item, item_of, without_nulls
from llm_users.prompts.prompt import PromptError, first_line

HUB = "hf:"
# A slice such as train[:1000] contains a colon.
_NAME = re.compile(r"hf:(?P<name>[^:]+)(?::(?P<split>[^:\[\]]*(?:\[[^\]]*\])?))?(?::(?P<column>.+))?")
_REACH_S = 10.0


def parse_hub_name(name: str) -> tuple[str, str | None, str, str | None]:
    """Return (dataset, configuration, split, column) of ``hf:ORG/NAME[/CONFIG][:SPLIT][:COLUMN]``.

    The dataset can be a folder. Raises ``PromptError``.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise PromptError(
            f"{name!r} is not the name of a dataset; write hf:ORG/NAME[:SPLIT][:COLUMN], for example hf:org/name:test"
        )
    path, config = match["name"], None
    if not Path(path).is_dir() and path.count("/") == 2:
        path, _, config = path.rpartition("/")
    return path, config, match["split"] or "train", match["column"]


def read_hub(name: str) -> Iterator[Item | None]:
    """Yield the rows of a dataset, which is downloaded if necessary. Raises ``PromptError``."""
    path, config, split, column = parse_hub_name(name)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # the hub client reads it at import
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise PromptError(
            f"prompts {name!r}: datasets of the hub need the package datasets, which cannot be imported ({error}). "
            "Install it (pip install datasets), or download the dataset and set its JSON lines or Parquet file"
        ) from error
    try:
        if not Path(path).is_dir():
            reach_hub(path, "dataset")
        rows = load_dataset(path, config, split=split)
    except Exception as error:  # many types, from the hub, the network and the data
        raise PromptError(
            f"prompts {name!r}: the dataset could not be loaded ({first_line(error)}). Check name, split and network "
            "(a gated dataset needs HF_TOKEN; HF_HUB_OFFLINE=1 uses an earlier download), or set a file"
        ) from error
    used = {*CONTENTS, *CAPS, LENGTH, column}
    names = [column_name for column_name in rows.column_names if column_name in used]
    for number, row in enumerate(rows.select_columns(names) if names else rows, start=1):
        yield item_of(f"prompts {name!r}, row {number}", without_nulls(row), column)


def reach_hub(name: str, kind: Literal["dataset", "model"]) -> None:
    """Raise immediately if the hub does not respond; the libraries would retry for about a minute (seen: 47 s)."""
    from huggingface_hub import constants, dataset_info, model_info
    from huggingface_hub.errors import HfHubHTTPError

    if not constants.HF_HUB_OFFLINE:
        # Any response is sufficient: the libraries report errors in more detail, and a mirror may not have this page.
        with suppress(HfHubHTTPError):
            (dataset_info if kind == "dataset" else model_info)(name, timeout=_REACH_S)
