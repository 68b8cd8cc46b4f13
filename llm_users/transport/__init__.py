"""Bytes and their arrival stamps: sockets, TLS, HTTP/1.1, the connection pool, stream decoders.

Knows no Locust and no metric. The SDKs' HTTP layers are replaced by adapters over ``Exchange``.
"""
