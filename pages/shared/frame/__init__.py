"""What every page stands in: the session, navigation, the family, caches, and ways to show things.

Only the session's keys are imported here: app.py comes in before PyTorch is loaded.
"""

from typing import TYPE_CHECKING

from .state import Slot, Wanted, session

if TYPE_CHECKING:
    from . import (
        ahead,
        browser,
        caches,
        ending,
        families,
        first_sight,
        keys,
        navigation,
        progress,
        show,
        shown,
        state,
        surveys,
        tabs,
        tracked,
        window,
    )

__all__ = [
    "Slot", "Wanted", "ahead", "browser", "caches", "ending", "families", "first_sight", "keys",
    "navigation", "progress", "session", "show", "shown", "state", "surveys", "tabs", "tracked",
    "window",
]  # fmt: skip
