"""A TLS proxy before a plain server, in a process of its own: bytes go through as they come.

Run as a program: PORT of the server, PEM file with key and certificate. It prints its own port. It must import nothing
of the project.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys

_AT_A_TIME = 65536


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_AT_A_TIME):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(upstream: int, pem: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", upstream)
        await asyncio.gather(_copy(reader, here), _copy(there, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
