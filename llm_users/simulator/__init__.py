"""The simulated endpoint: a server with known timing that runs in a separate process.

It imports only the standard library, msgspec and the event-stream codec. It must not import Locust, gevent or pandas,
so that it starts fast and its timing does not depend on the load generator.
"""
