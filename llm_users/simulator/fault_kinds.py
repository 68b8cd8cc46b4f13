"""Tables of the faults of a connection or a stream, by name.

Faults of the API, such as error statuses and exceptions, have separate spec keys.
"""

from __future__ import annotations

# Faults before the first token of an answer, or in addition to the answer.
BEFORE_ANSWER: dict[str, str] = {
    "reset": "the connection is reset before the headers",
    "stall": "the server sends nothing, not even headers",
    "garbage": "the server sends bytes that are not HTTP",
    "slow": "each byte of the headers takes as long as a token",
    "bomb": "the server sends 64 MiB of header lines without an end of the headers",
    "unasked": "an unsolicited second response follows the answer, one token gap after its end",
}

# Faults after the given number of tokens of an answer.
IN_ANSWER: dict[str, str] = {
    "reset": "the connection is reset",
    "stall": "the server sends nothing more",
    "half": "the server sends half an event and closes the connection",
    "flip": "the server sends an event with a wrong byte",
    "garbage": "the server sends bytes that are not an HTTP chunk",
    "giant": "the server sends 64 MiB of a single event",
    "endless": "the server repeats the same token without end",
}
