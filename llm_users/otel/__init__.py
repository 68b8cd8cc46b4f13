"""OpenTelemetry export: GenAI metrics from the rows of a run, and one span for each request.

The package is imported only if Locust's ``--otel`` is given or the program has configured a ``MeterProvider``.
"""
