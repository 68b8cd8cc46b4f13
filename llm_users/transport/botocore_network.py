"""Configure proxies and certificates for boto3's own path by the same rules as for our transport.

By default boto3 uses a proxy for connections to this machine too, and ignores SSL_CERT_FILE and the client
certificate from the options. The module handles settings only; it does not depend on clients or on an API.
"""

from __future__ import annotations

import base64
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llm_users.transport.connection import origin_of
from llm_users.transport.pool import Pool
from llm_users.transport.proxies import Proxy
from llm_users.transport.tls import (
    CA_VARIABLES,
    CERT_VARIABLE,
    KEY_VARIABLE,
    PASSWORD_VARIABLE,
    TlsSettings,
    tls_context,
)


def network_of(pool: Pool, url: str) -> tuple[dict[str, Any], bool | str | None]:
    """Return the arguments for a client's Config and its ``verify``, to reach this endpoint on boto3's own path.

    Raises ValueError for settings that boto3 does not support, OSError or ``ConnectFailed`` for settings that are
    wrong on any path.
    """
    config: dict[str, Any] = {"proxies": {}}  # prevents botocore from reading the environment itself
    verify = False if pool.tls.insecure else _authorities()
    origin = origin_of(url)
    proxy = pool.proxies.of(origin)
    if proxy is not None:
        config["proxies"] = {origin.scheme: _with_login(proxy)}
        if isinstance(verify, str):
            config["proxies_config"] = {"proxy_ca_bundle": verify}
    certificate = _certificate(pool.tls) if origin.scheme == "https" else None
    if certificate is not None:
        config["client_cert"] = certificate
    return config, verify


def _authorities() -> str | None:
    """Return the CA file that the environment names; None to use boto3's own."""
    for variable in CA_VARIABLES:
        path = os.environ.get(variable)
        if path and Path(path).is_dir():
            raise ValueError(
                f"{variable} names a folder, but boto3's own path reads certificates only from a file. Name a PEM "
                "file, or use --llm-transport fast"
            )
        if path:
            return path
    return None


def _certificate(settings: TlsSettings) -> str | tuple[str, str] | None:
    """Return the path of the client certificate, together with the key's path if the key is in a separate file."""
    cert, key = settings.client_cert, settings.client_key
    if cert is None:
        cert, key = os.environ.get(CERT_VARIABLE), os.environ.get(KEY_VARIABLE)
    if not cert:
        return None
    tls_context(settings)  # raises an error that says what is wrong with the files
    passwords_asked = []

    def password() -> str:
        passwords_asked.append(PASSWORD_VARIABLE)
        return os.environ.get(PASSWORD_VARIABLE, "")

    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key or None, password)
    if passwords_asked:
        raise ValueError(
            f"the key of the client certificate {cert} has a password, and boto3's own path cannot open it. Use a key "
            "without a password, or use --llm-transport fast"
        )
    return (cert, key) if key else cert


def _with_login(proxy: Proxy) -> str:
    """Return the proxy's URL in boto3's form, which includes the user name and password."""
    if not proxy.authorization:
        return str(proxy.origin)
    login = base64.b64decode(proxy.authorization.partition(b" ")[2]).decode()
    user, _, password = login.partition(":")
    return str(proxy.origin).replace("://", f"://{quote(user, safe='')}:{quote(password, safe='')}@", 1)
