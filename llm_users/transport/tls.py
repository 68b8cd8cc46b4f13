"""The TLS settings of a process: whom to trust, with which certificate to introduce itself, whether to verify at all.

Knows files and environment variables, no connections.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Where a custom CA is looked for, in this order; SSL_CERT_DIR names a folder of certificates."""

CERT_VARIABLE, KEY_VARIABLE, PASSWORD_VARIABLE = "SSL_CLIENT_CERT", "SSL_CLIENT_KEY", "SSL_CLIENT_KEY_PASSWORD"
"""The client's certificate, its key when that is in a file of its own, and the key's password when it has one."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """What the options say about TLS; what they leave open is looked up in the environment."""

    client_cert: str | None = None
    client_key: str | None = None
    insecure: bool = False
    """Certificates are not verified. For tests against a server whose certificate nobody can verify."""

    @classmethod
    def parse(cls, client_cert: str | None, *, insecure: bool) -> TlsSettings:
        """From ``PATH[,KEY]`` and the opt-out."""
        cert, _, key = (client_cert or "").partition(",")
        return cls(cert.strip() or None, key.strip() or None, insecure)


_FROM_ENVIRONMENT = TlsSettings()


class _NoPassword(ValueError):
    """The key is encrypted and nobody said with what."""


@cache
def tls_context(settings: TlsSettings = _FROM_ENVIRONMENT) -> ssl.SSLContext:
    """A context as the settings and the environment want it. Raises OSError with the name of a wrong setting."""
    context = _trusting()
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _introduce(context, settings)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _trusting() -> ssl.SSLContext:
    """Verification on, system CAs or those named by the environment."""
    for variable in CA_VARIABLES:
        path = os.environ.get(variable)
        if path:
            _must_exist(variable, path)
            is_folder = Path(path).is_dir()
            return ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
    context = ssl.create_default_context()
    if not context.get_ca_certs() and not os.environ.get("SSL_CERT_DIR"):
        # A slim container or a python.org build on macOS has no CA of its own.
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    return context


def _introduce(context: ssl.SSLContext, settings: TlsSettings) -> None:
    """Load the client's certificate, if there is one."""
    name, cert, key = "--llm-client-cert", settings.client_cert, settings.client_key
    if cert is None:
        name, cert, key = CERT_VARIABLE, os.environ.get(CERT_VARIABLE), os.environ.get(KEY_VARIABLE)
    if not cert:
        return
    _must_exist(name, cert)
    if key:
        _must_exist(name if settings.client_cert else KEY_VARIABLE, key)

    def password() -> str:  # without it OpenSSL would ask at the terminal, and wait
        given = os.environ.get(PASSWORD_VARIABLE)
        if given is None:
            raise _NoPassword
        return given

    try:
        context.load_cert_chain(cert, key or None, password)
    except _NoPassword:
        raise FileNotFoundError(f"{name}: the key is encrypted; put its password into {PASSWORD_VARIABLE}.") from None
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise FileNotFoundError(
            f"{name}: {cert} cannot be used ({reason}). It is a PEM file with the certificate and its key, or the key "
            "is in a second PEM file; is the key the certificate's, and the password right?"
        ) from None


def _must_exist(name: str, path: str) -> None:
    if not Path(path).exists():
        raise FileNotFoundError(f"{name} names {path}, which does not exist. Correct or unset it.")
