"""The metrics that inference servers publish about themselves, sampled during a run (``--llm-server-metrics``)."""
