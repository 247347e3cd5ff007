"""What is declared of the methods, as plain values, without importing what computes with them.

`catalogue.json` holds what `methods.reference.catalogue` reads off the declarations, and the digest
of each file that they stand in: where one differs, as after an edit, the declarations themselves
are read, which takes a second more.  `python -m mats_core.cli.catalogue` writes it; a test compares
the two.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from ..errors import lenient_json

Catalogue = dict[str, dict[str, dict[str, Any]]]
FILE = Path(__file__).with_name("catalogue.json")
METHODS = Path(__file__).parents[1] / "methods"
FUNCTION = re.compile(rb" *(?:async )?def ")


def known() -> Catalogue:
    """The methods and the steps after a merge by their names, from the file or as declared."""
    if "mats_core.methods" not in sys.modules:  # else they may be others than in the files
        content = lenient_json(FILE)
        if isinstance(content, dict) and content.get("declared in") == sources():
            return content
    return declared()


def declared() -> Catalogue:
    """The same as read off the declarations, which imports PyTorch."""
    from ..methods import reference

    return json.loads(json.dumps(reference.catalogue()))  # lists where there are tuples


def sources() -> dict[str, str]:
    """The digest of what stands outside functions in each file of the methods, by its name."""
    return {file.name: _digest(file.read_bytes()) for file in sorted(METHODS.glob("*.py"))}


def _digest(source: bytes) -> str:
    """Of the lines that declare something: what functions compute is in no catalogue."""
    found, inside = hashlib.sha256(), -1  # columns of the function that the line is in
    for line in source.splitlines():
        bare = line.lstrip()
        column = len(line) - len(bare)
        if not bare or bare.startswith(b"#"):
            continue
        if inside >= 0 and (column > inside or bare.startswith(b")")):
            continue
        inside = column if FUNCTION.match(line) else -1
        found.update(line + b"\n")
    return found.hexdigest()[:16]


def write() -> None:
    """Write the file anew."""
    content = {"declared in": sources(), **declared()}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    FILE.write_text(f"{text}\n", "utf-8", newline="\n")


if __name__ == "__main__":
    write()
