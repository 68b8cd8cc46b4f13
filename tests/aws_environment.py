"""An environment in which boto3 finds the example credentials of AWS's documentation, and asks no EC2 instance."""

from __future__ import annotations

import functools
import os

import pytest
from botocore.loaders import JSONFileLoader

ACCESS_KEY, SECRET_KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def use_example_credentials(patch: pytest.MonkeyPatch) -> None:
    """Remove the credentials, regions and settings of the person who runs the tests; set the example keys."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "OPENAI_"))]:
        patch.delenv(name)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


def share_service_models(patch: pytest.MonkeyPatch) -> None:
    """Read each of boto3's JSON files once in the process: every new session takes 0.1 s for them otherwise."""
    read = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
    patch.setattr(JSONFileLoader, "load_file", lambda _loader, path: read(path))
