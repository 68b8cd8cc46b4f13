"""Send requests and time-stamp the received bytes: sockets, TLS, HTTP/1.1, the connection pool, stream decoders.

The package does not depend on Locust or on any metric. Adapters over ``Exchange`` replace the SDKs' HTTP layers.
"""
