"""Credentials of a short life, and user classes that take theirs from it."""

from __future__ import annotations

import datetime
from typing import Any

import gevent
from botocore.credentials import RefreshableCredentials
from botocore.session import Session

from llm_users import BedrockUser
from tests.aws_environment import SECRET_KEY


class Vault:
    """Gives credentials of a short life, each with its own key."""

    def __init__(self, life_s: float, slow_s: float = 0.0) -> None:
        self.life_s, self.slow_s = life_s, slow_s
        self.given = 0
        self.broken = False

    def credentials(self) -> dict[str, str]:
        gevent.sleep(self.slow_s)
        if self.broken:
            raise RuntimeError(f"the vault is shut for {SECRET_KEY}")
        self.given += 1
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.life_s)
        key = f"AKIAVAULT{self.given:07d}XXXX"
        return {"access_key": key, "secret_key": SECRET_KEY, "token": "t" * 20, "expiry_time": end.isoformat()}

    def source(self) -> RefreshableCredentials:
        return RefreshableCredentials.create_from_metadata(self.credentials(), self.credentials, "assume-role")


def user_of(vault: Vault, base: Any = BedrockUser) -> Any:
    """A user class whose credentials come from this vault."""

    class Chain:
        def load_credentials(self) -> RefreshableCredentials:
            return vault.source()

    class Vaulted(base):  # type: ignore[misc]
        abstract = True

        @classmethod
        def botocore_session(cls) -> Session:
            session = Session()
            session.register_component("credential_provider", Chain())
            return session

    return Vaulted
