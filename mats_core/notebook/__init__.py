"""Results in a notebook: records as small HTML, merges as the figures that the pages draw, a panel.

Everything is self-contained and offline, and readable on light and dark pages.  `explore` shows
knobs over live merges: `worker.py` answers the newest request, `answers.py` knows what there is to
say, `render.py` says it as HTML, and `panel.py` is the thin layer of widgets.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .markup import markup
from .show import show

if TYPE_CHECKING:
    from .panel import Panel, explore

__all__ = ["Panel", "explore", "markup", "show"]


def __getattr__(name: str) -> Any:
    if name in ("Panel", "explore"):
        return getattr(importlib.import_module(".panel", __name__), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
