"""The SDK's own HTTP stack beside a package that cannot be imported after gevent's patch."""

from __future__ import annotations

import os
from pathlib import Path

from tests.system.locust_runs import Locust


def test_trio_beside_the_tool_does_not_matter(locust: Locust, tmp_path: Path) -> None:
    """Trio uses ``select.epoll`` when it is imported, and gevent removes that."""
    package = tmp_path / "packages" / "trio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import select\nselect.epoll\n")
    path = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = locust.run("--llm-simulator", "ttft=5ms,itl=1ms", "--llm-transport", "sdk", "--llm-sweep", "2",
                      "--llm-requests", "10", env={"PYTHONPATH": path})  # fmt: skip
    assert done.code == 0, done.err
    assert len([row for row in done.rows() if row["measured"] == "1" and not row["error_code"]]) == 10
