"""Proxies and certificates for boto3's own path, by the rules that hold on ours.

boto3 by itself proxies connections to this machine, knows no SSL_CERT_FILE and no client certificate from options.
Knows settings, no clients and no API.
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
    """(what a client's Config needs, its ``verify``) to reach this endpoint on boto3's own path.

    Raises ValueError for what boto3 cannot do, OSError or ``ConnectFailed`` for settings that are wrong on any path.
    """
    config: dict[str, Any] = {"proxies": {}}  # none from the environment: it is read here
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
    """The file of certificates that the environment names; None for boto3's own."""
    for variable in CA_VARIABLES:
        path = os.environ.get(variable)
        if path and Path(path).is_dir():
            raise ValueError(
                f"{variable} names a folder, and boto3's own path takes certificates from a file only: name a PEM "
                "file, or use --llm-transport fast"
            )
        if path:
            return path
    return None


def _certificate(settings: TlsSettings) -> str | tuple[str, str] | None:
    """The client's certificate, with its key where that is in a file of its own."""
    cert, key = settings.client_cert, settings.client_key
    if cert is None:
        cert, key = os.environ.get(CERT_VARIABLE), os.environ.get(KEY_VARIABLE)
    if not cert:
        return None
    tls_context(settings)  # says what is wrong with the files
    passwords_asked = []

    def password() -> str:
        passwords_asked.append(PASSWORD_VARIABLE)
        return os.environ.get(PASSWORD_VARIABLE, "")

    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key or None, password)
    if passwords_asked:
        raise ValueError(
            f"the key of the client certificate {cert} has a password, and boto3's own path cannot open it: give a "
            "key without one, or use --llm-transport fast"
        )
    return (cert, key) if key else cert


def _with_login(proxy: Proxy) -> str:
    """The proxy's URL as boto3 takes it, the login in it."""
    if not proxy.authorization:
        return str(proxy.origin)
    login = base64.b64decode(proxy.authorization.partition(b" ")[2]).decode()
    user, _, password = login.partition(":")
    return str(proxy.origin).replace("://", f"://{quote(user, safe='')}:{quote(password, safe='')}@", 1)
