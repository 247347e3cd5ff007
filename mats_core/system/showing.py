"""Records show themselves, as HTML or text; how is the notebook room's matter, asked for lazily.

This is the one place of the library that looks upwards: `tests/test_imports.py` names it.
"""

from __future__ import annotations

from typing import Any


class Shown:
    """A record with a small HTML form and a text of at most twenty lines.

    Notebooks show the first, with the second beside it where HTML is not trusted; `print` and
    terminals show the second.
    """

    def _repr_html_(self) -> str:
        from ..notebook import markup  # only when a notebook shows it

        return markup(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("…" if cycle else str(self))

    def __str__(self) -> str:
        from ..notebook import text

        return text(self)
