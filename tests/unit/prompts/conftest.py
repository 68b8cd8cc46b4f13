"""The packaged tokenizer and small ones of every family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer as Backend

from llm_users.prompts import Tokenizer, load_tokenizer
from llm_users.prompts.tokenizer import BackendTokenizer
from tests.unit.prompts.tokenizers import FAMILIES, byte_level_bpe


@pytest.fixture(scope="session")
def default_tokenizer() -> Tokenizer:
    return load_tokenizer(None)


@pytest.fixture(scope="session", params=["packaged", *FAMILIES])
def tokenizer(request: pytest.FixtureRequest, default_tokenizer: Tokenizer) -> Tokenizer:
    if request.param == "packaged":
        return default_tokenizer
    return BackendTokenizer(request.param, "", FAMILIES[request.param]())


@pytest.fixture(scope="session", name="byte_level")
def byte_level_fixture() -> Callable[[], Backend]:
    """Makes a fresh one each time, to be changed at will."""
    return byte_level_bpe
