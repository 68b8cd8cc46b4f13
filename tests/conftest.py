"""What holds for every test."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A session that was started in the background ignores Ctrl-C, and so would every process that it starts; some
    # tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
