"""Figures inside a self-contained page: plotly.js as text, and figures as safe JSON."""

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
    """The text of plotly.js, to be written between script tags once."""
    return get_plotlyjs()


def to_json(figure: go.Figure) -> str:
    """Data and layout as JSON without `<`, and without a template, which the page has."""
    content = json.loads(str(figure.to_json()))
    content["layout"].pop("template", None)
    return script_json({"data": content["data"], "layout": content["layout"]})


def script_json(value: Any) -> str:
    """JSON that ends no script element, whatever is in it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
