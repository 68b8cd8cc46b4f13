"""The User classes, one package for each API."""

import locust  # noqa: F401 - must patch the interpreter before an SDK imports ssl; afterwards it takes 1.7 s longer
