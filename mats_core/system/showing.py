"""Records show themselves in a notebook; how is the notebook room's matter, and asked for lazily.

This is the one place of the library that looks upwards: `tests/test_imports.py` names it.
"""

from __future__ import annotations


class Shown:
    """A record with a small HTML form, which notebooks ask for by `_repr_html_`."""

    def _repr_html_(self) -> str:
        from ..notebook import markup  # only when a notebook shows it

        return markup(self)
