"""Results in a notebook: what a record says of itself, as small HTML and as text of a few lines.

Everything is self-contained and offline, and readable on light and dark pages.  `explore` shows
knobs over live merges: `worker.py` answers the newest request, `answers.py` knows what there is to
say, `render.py` says it as HTML, and `panel.py` is the thin layer of widgets.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .markup import markup, text

if TYPE_CHECKING:
    from .panel import Panel, explore

__all__ = ["Panel", "explore", "markup", "text"]


def __getattr__(name: str) -> Any:
    if name in ("Panel", "explore"):
        return getattr(importlib.import_module(".panel", __name__), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
