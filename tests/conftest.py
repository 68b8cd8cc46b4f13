"""What holds for every test."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A session that was started in the background ignores Ctrl-C, and so would every process that it starts; some
    # tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    # Tests start hundreds of processes, and each would compile the same modules: up to 0.6 s. Python does not write
    # beside the sources here, so the compiled modules are in a folder of this session.
    os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="pycache-")
    atexit.register(shutil.rmtree, os.environ["PYTHONPYCACHEPREFIX"], ignore_errors=True)

# What a developer's machine was calibrated for must not speak up in a test; runs that drop LOCUST_... keep this one.
os.environ.pop("LOCUST_LLM_CALIBRATION", None)
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="no-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
