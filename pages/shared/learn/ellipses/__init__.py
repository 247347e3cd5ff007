"""A picture of two tasks that can be dragged: an SVG component of our own, offline.

`algebra.js` repeats `mats_core.analysis.toy` so that a drag is followed at once; `picture.js`
draws.  When a drag ends the picture sends its state, and shows what Python then computes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.components.v2 import component

HERE = Path(__file__).parent
HTML = """
<div class="toy">
  <svg role="group" aria-label="Two tasks as ellipses over two parameters. Their handles, and the
  start where there is one, can be dragged or moved with the arrow keys."></svg>
  <table aria-label="Loss of each task at each marked point"><thead></thead><tbody></tbody></table>
</div>
"""


def script() -> str:
    """Both files as one module."""
    return "\n".join((HERE / name).read_text("utf-8") for name in ("algebra.js", "picture.js"))


_mount = component(
    "toy_ellipses", html=HTML, css=(HERE / "picture.css").read_text("utf-8"), js=script()
)


def show(key: str, data: dict[str, Any], on_move: Callable[[], None]) -> None:
    """Show `data`; `on_move` is called when something was moved (see `moved`)."""
    _mount(key=key, data=data, on_state_change=on_move)


def moved(value: Any) -> Any:
    """What the picture sent last, out of the component's `value` in the session."""
    return value.get("state") if hasattr(value, "get") else None
