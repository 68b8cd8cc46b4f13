"""The endpoint in a box: a server with known timing, in a process of its own.

It must not import Locust, gevent or pandas: stdlib and msgspec only, so that it starts fast and its clock is its own.
"""
