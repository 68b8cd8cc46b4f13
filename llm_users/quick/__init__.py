"""The command ``llm-bench quick``: finds a server, runs a short sweep, and says what its users get.

It starts Locust as a separate program and must never import it.
"""
