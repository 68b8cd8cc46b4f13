"""Measures how much load the workers of one machine can measure accurately.

It runs real tests against a server that logs its send times. ``llm-bench calibrate`` and the accuracy table of the
source tree share this package. It starts Locust as a separate program and must never import it.
"""
