"""The endpoint in a box: a server with known timing, in a process of its own.

It must not import Locust, gevent or pandas: stdlib, msgspec and the event-stream codec only, so that it starts fast and
its clock is its own.
"""
