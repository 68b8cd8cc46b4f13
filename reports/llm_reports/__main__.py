"""Entry point of ``python -m llm_reports``, which runs the command ``llm-report``."""

from __future__ import annotations

import sys

from llm_reports.main import main

sys.exit(main())
