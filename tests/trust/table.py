"""The tables of docs/trust.md, written between two marks that name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "trust.md"


def write_table(name: str, lines: Sequence[str]) -> None:
    """Put lines in the place of those between the marks of a name."""
    text = PAGE.read_text("utf-8")
    begin, end = f"<!-- {name}: written by tests.trust.{name} -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    PAGE.write_text("\n".join([f"{before}{begin}", *lines, f"{end}{rest.split(end)[1]}"]), "utf-8")
