"""Computes the long description of the package: README.md with absolute links, because PyPI resolves no relative links.

All other metadata is in pyproject.toml.
"""

import re
import runpy
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
PICTURES = (".gif", ".jpg", ".png", ".svg", ".webp")
# Fenced blocks and inline code are not links, whatever they contain.
CODE = re.compile(r"(^[ \t]*```.*?^[ \t]*```[ \t]*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
# Targets without a scheme, after "](" of Markdown, after "]: " of a definition, or in an attribute of HTML.
RELATIVE = re.compile(
    r"""(?P<before>\]\(<?|^\[[^\]\n]+\]:[ ]+|\b(?:src|srcset|href)=["'])(?!\w[\w+.-]*:|//)(?P<target>[^\s)>"']+)""",
    re.MULTILINE,
)


def long_description() -> str:
    """Return README.md with links to the files of this version in the repository."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project["urls"]["Repository"]
    tag = "v" + runpy.run_path(str(ROOT / "llm_users" / "_version.py"))["__version__"]

    def absolute(link: re.Match[str]) -> str:
        target = link["target"].removeprefix("./")
        path = f"README.md{target}" if target.startswith("#") else target
        view = "raw" if path.endswith(PICTURES) else "blob"
        return f"{link['before']}{repository}/{view}/{tag}/{path}"

    parts = CODE.split((ROOT / "README.md").read_text(encoding="utf-8"))
    parts[::2] = [RELATIVE.sub(absolute, text) for text in parts[::2]]
    return "".join(parts)


setup(long_description=long_description(), long_description_content_type="text/markdown")
