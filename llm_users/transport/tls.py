"""Create the TLS context of a process: trusted CAs, the client certificate, and whether certificates are verified.

The module reads files and environment variables; it does not handle connections.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Variables that name a custom CA, in order of precedence. SSL_CERT_DIR names a folder of certificates."""

CERT_VARIABLE, KEY_VARIABLE, PASSWORD_VARIABLE = "SSL_CLIENT_CERT", "SSL_CLIENT_KEY", "SSL_CLIENT_KEY_PASSWORD"
"""The client certificate, its key if that is in a separate file, and the key's password if it has one."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The TLS options. The environment provides the values that the options leave unset."""

    client_cert: str | None = None
    client_key: str | None = None
    insecure: bool = False
    """Certificates are not verified. For tests against a server whose certificate cannot be verified."""

    @classmethod
    def parse(cls, client_cert: str | None, *, insecure: bool) -> TlsSettings:
        """Parse the settings from ``PATH[,KEY]`` and the flag that disables verification."""
        cert, _, key = (client_cert or "").partition(",")
        return cls(cert.strip() or None, key.strip() or None, insecure)


_FROM_ENVIRONMENT = TlsSettings()


class _NoPassword(ValueError):
    """The key is encrypted and no password is set."""


@cache
def tls_context(settings: TlsSettings = _FROM_ENVIRONMENT) -> ssl.SSLContext:
    """Return the context for the settings and the environment. Raises OSError with the name of an invalid setting.

    The context trusts the CAs that the environment names, or else the system's CAs.
    """
    variable = next((name for name in CA_VARIABLES if os.environ.get(name)), None)
    if variable is not None:
        path = os.environ[variable]
        _require_path(variable, path)
        is_folder = Path(path).is_dir()
        context = ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
    else:
        context = ssl.create_default_context()
        if not context.get_ca_certs() and not os.environ.get("SSL_CERT_DIR"):
            # A slim container or a python.org build on macOS has no CAs.
            import certifi

            context.load_verify_locations(cafile=certifi.where())
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _load_client_certificate(context, settings)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_client_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    """Load the client certificate, if one is set."""
    name, cert, key = "--llm-client-cert", settings.client_cert, settings.client_key
    if cert is None:
        name, cert, key = CERT_VARIABLE, os.environ.get(CERT_VARIABLE), os.environ.get(KEY_VARIABLE)
    if not cert:
        return
    _require_path(name, cert)
    if key:
        _require_path(name if settings.client_cert else KEY_VARIABLE, key)

    def password() -> str:  # without this function, OpenSSL would prompt at the terminal and block
        value = os.environ.get(PASSWORD_VARIABLE)
        if value is None:
            raise _NoPassword
        return value

    try:
        context.load_cert_chain(cert, key or None, password)
    except _NoPassword:
        raise FileNotFoundError(f"{name}: the key is encrypted; set its password in {PASSWORD_VARIABLE}.") from None
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise FileNotFoundError(
            f"{name}: {cert} cannot be used ({reason}). Use a PEM file with the certificate and its key, or a second "
            "PEM file for the key. Check that the key belongs to the certificate and that the password is correct"
        ) from None


def _require_path(name: str, path: str) -> None:
    if not Path(path).exists():
        raise FileNotFoundError(f"{name} names {path}, which does not exist. Correct or unset it.")
