"""What the campaigns have in common: one thread, and the tables of docs/trust.md, written between
two marks that name them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "trust.md"


def write_table(name: str, lines: Sequence[str]) -> None:
    """Put lines in the place of those between the marks of a name."""
    text = PAGE.read_text("utf-8")
    begin, end = f"<!-- {name}: written by tests.trust.{name} -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    PAGE.write_text("\n".join([f"{before}{begin}", *lines, f"{end}{rest.split(end)[1]}"]), "utf-8")


def in_one_thread(module: str) -> None:
    """Start a program again with one thread of OpenMP, where it may take more: a child that is
    forked waits for ever for threads that its parent had.  The variable is read as torch loads."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        told = {**os.environ, "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], told)
