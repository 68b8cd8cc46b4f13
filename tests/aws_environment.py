"""An environment in which boto3 finds the example credentials of AWS's documentation and asks no EC2 instance."""

from __future__ import annotations

import os

import pytest

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
