"""How much one machine's workers can measure truly: real runs against a server that logs when it sent.

``llm-bench calibrate`` and the accuracy table of the source tree share this room. It starts Locust as a program of its
own and must never load it.
"""
