"""Figures inside a page of their own: plotly.js as text, and figures as JSON that is safe there."""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

# Nothing may leave the page: plotly.js 4 offers to share a figure over its own servers.
CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "lasso2d", "select2d"],
    "responsive": True,
    "toImageButtonOptions": {"format": "png", "scale": 2},
}


def plotly_script() -> str:
    """The whole of plotly.js, to be written between script tags once."""
    return get_plotlyjs()


def to_json(figure: go.Figure) -> str:
    """Data and layout, without a template (the page has its own), with no `<` in it."""
    content = json.loads(str(figure.to_json()))
    content["layout"].pop("template", None)
    return script_json({"data": content["data"], "layout": content["layout"]})


def script_json(value: Any) -> str:
    """JSON that ends no script element, whatever is in it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
