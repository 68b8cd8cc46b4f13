"""Select the proxy of a connection from the environment: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY.

The module handles names and addresses, not sockets. A proxy's user info becomes a header and is never part of a
message.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from llm_users.transport.connection import DEFAULT_PORTS, Origin
from llm_users.transport.errors import ConnectFailed


class Proxy(NamedTuple):
    """A proxy and the variable that names it. ``authorization`` is the value of Proxy-Authorization; b"" if none."""

    origin: Origin
    authorization: bytes
    variable: str

    def __str__(self) -> str:
        return f"{self.origin} ({self.variable})"

    def connect_request(self, origin: Origin) -> bytes:
        """Return the request for a tunnel to this origin."""
        authority = origin.authority.encode()
        return b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (authority, authority, self._header())

    def absolute(self, origin: Origin, request: bytes) -> bytes:
        """Return the request in the form for a proxy without a tunnel, with the whole URL in the request line."""
        method, _, rest = request.partition(b" ")
        target, _, rest = rest.partition(b"\r\n")
        request_line = b"%s %s%s\r\n" % (method, str(origin).encode(), target)
        return request_line + self._header() + rest

    def _header(self) -> bytes:
        return b"Proxy-Authorization: %s\r\n" % self.authorization if self.authorization else b""


class Proxies:
    """The proxies from the environment. Lower-case names take precedence over upper-case names, as in curl."""

    def __init__(self, environment: Mapping[str, str] = os.environ, *, loopback: bool = False) -> None:
        """``loopback``: also use the proxy for connections to this machine."""
        self._loopback = loopback
        self._urls = {scheme: _setting(environment, f"{scheme}_proxy") for scheme in ("http", "https", "all")}
        self._exempt = [entry for entry in _setting(environment, "no_proxy")[1].replace(" ", ",").split(",") if entry]

    def of(self, origin: Origin) -> Proxy | None:
        """Return the proxy for a connection to this origin, if any. Raises ``ConnectFailed`` if its URL is invalid."""
        variable, url = self._urls[origin.scheme]
        if not url:
            variable, url = self._urls["all"]
        if not url or (not self._loopback and is_loopback(origin.host)):
            return None
        if any(_exempts(entry, origin) for entry in self._exempt):
            return None
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            raise ConnectFailed(f"{variable}: the proxy's port is not a number from 1 to 65535") from None
        if parts.scheme not in DEFAULT_PORTS:
            raise ConnectFailed(
                f"{variable} names a {parts.scheme} proxy; only http:// and https:// proxies are supported. Use one of "
                "those, or add the endpoint's host to NO_PROXY"
            )
        if not parts.hostname:
            raise ConnectFailed(f"{variable} has no host; write for example http://proxy.example:3128")
        authorization = b""
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = b"Basic " + base64.b64encode(login.encode())
        return Proxy(Origin(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme]), authorization, variable)


def is_loopback(host: str) -> bool:
    """Return True if the host is a loopback name or address of this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _setting(environment: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return (variable, value) of a setting whose name can be in lower or upper case."""
    for variable in (name, name.upper()):
        if variable in environment:
            return variable, environment[variable].strip()
    return name.upper(), ""


def _exempts(entry: str, origin: Origin) -> bool:
    """Return True if a NO_PROXY entry covers this origin: ``*``, a domain, an address or a network, or with a port."""
    if entry == "*":
        return True
    entry = entry.lower()
    network = _network(entry.strip("[]"))
    if network is None:
        entry, _, port = entry.rpartition(":") if ":" in entry else (entry, "", "")
        if port and port != str(origin.port):
            return False
        network = _network(entry.strip("[]"))
    host = origin.host.lower().rstrip(".")
    address = _address(host)
    if network is not None or address is not None:
        return network is not None and address is not None and address in network
    domain = entry.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith("." + domain))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_network(text, strict=False)
    return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text.partition("%")[0])
    return None
