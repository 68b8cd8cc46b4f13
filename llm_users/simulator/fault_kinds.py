"""What can go wrong with a connection or a stream, by name: nothing but the tables.

Faults of the API, such as error statuses and exceptions, have keys of their own.
"""

from __future__ import annotations

# Before an answer's first token, or beside the answer.
BEFORE_ANSWER: dict[str, str] = {
    "reset": "the connection is reset before the headers",
    "stall": "nothing comes, not even headers",
    "garbage": "bytes come that are no HTTP",
    "slow": "each byte of the headers takes as long as a token",
    "bomb": "headers that do not end",
    "unasked": "a second response that nobody asked for follows the answer, a token's gap after its end",
}

# After so many tokens of an answer.
IN_ANSWER: dict[str, str] = {
    "reset": "the connection is reset",
    "stall": "nothing more comes",
    "half": "half an event, then the connection is closed",
    "flip": "an event with a wrong byte",
    "garbage": "bytes that are no chunk of HTTP",
    "giant": "64 MiB of one event",
    "endless": "the same token again and again",
}
