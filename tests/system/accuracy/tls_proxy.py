"""A TLS proxy in front of a plain server, in its own process. It forwards bytes as soon as they arrive.

Run as a program: port of the server, PEM file with key and certificate. It prints its own port. It uses uvloop, because
asyncio's own event loop needs a whole core for 256 streams. It imports nothing of the project.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any

import uvloop


class _Side(asyncio.Protocol):
    """One connection, to the client or to the server. Bytes that arrive before the other side is connected wait."""

    transport: Any  # uvloop's classes do not inherit from asyncio.Transport

    def __init__(self) -> None:
        self._other: _Side | None = None
        self._waiting: list[bytes] = []
        self._lost = False

    def join(self, other: _Side) -> None:
        """Forward to ``other`` from now on."""
        self._other = other
        other.transport.writelines(self._waiting)
        if self._lost:
            other.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._waiting.append(data)
        else:
            self._other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        if self._other is not None:
            self._other.transport.close()


class _ClientSide(_Side):
    def __init__(self, upstream: int) -> None:
        super().__init__()
        self._upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        _, server = await asyncio.get_running_loop().create_connection(_Side, "127.0.0.1", self._upstream)
        self.join(server)
        server.join(self)


async def _serve(upstream: int, pem: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _ClientSide(upstream), "127.0.0.1", 0, ssl=context, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
