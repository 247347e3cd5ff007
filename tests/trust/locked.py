"""The versions that this was tested with, of everything that the packages named in pyproject.toml
need, a line each:

    .venv/bin/python -m tests.trust.locked > constraints.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
HEADER = """\
# The versions that every test passed with: Python {python}, Linux, the CPU build of torch.
# Written by `python -m tests.trust.locked`; `pip install -c constraints.txt …` installs these.
"""


def declared() -> list[Requirement]:
    """The direct dependencies, those of the extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    lines = project["dependencies"] + [line for extra in extras for line in extra]
    found = map(Requirement, lines)
    return [one for one in found if canonicalize_name(one.name) != project["name"]]


def locked() -> dict[str, str]:
    """Name → version of what is installed here and needed by what is declared."""
    found: dict[str, str] = {}
    waiting = [(canonicalize_name(one.name), frozenset(one.extras)) for one in declared()]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue  # for another system, or another version of Python
        found[name] = re.sub(r"\+.*", "", installed.version)  # a build is no version of its own
        for line in installed.requires or ():
            one = Requirement(line)
            told = [{"extra": extra} for extra in (*extras, "")]
            if one.marker is None or any(map(one.marker.evaluate, told)):
                waiting.append((canonicalize_name(one.name), frozenset(one.extras)))
    return dict(sorted(found.items()))


def main() -> int:
    """Print the constraints."""
    print(HEADER.format(python=".".join(map(str, sys.version_info[:2]))), end="")
    for name, version in locked().items():
        print(f"{name}=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
