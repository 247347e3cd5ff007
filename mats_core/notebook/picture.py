"""A small picture of the model: a tile for each weight matrix, which is chosen by a click."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from ..families import Family
from ..figures import short_names
from ..names import group_of
from .controls import TILE, Looks, take_back, widgets

MOST_TILES = 96  # beyond, layers are chosen from a list alone
SHADES = ("#DCE6EE", "#B4D0E4", "#7FB2D8", "#3F8CC4")  # dark ink is read on all of them
CHOSEN = "#E69F00"


def matrices(family: Family) -> list[str]:
    """The weight matrices of a family that are merged, in the order of the checkpoint."""
    return [name for name in family.shared if family.roles[name] == "matrix"]


class Picture:
    """Tiles and a list of a model's layers; `box` holds them.

    changed   called after another layer was chosen
    looks     makes its widgets
    layer     the one that is chosen at first; "" for none
    """

    def __init__(
        self, family: Family, changed: Callable[[], None], looks: Looks, layer: str = ""
    ) -> None:
        new = looks.new
        names = matrices(family)
        short = short_names(names)
        self.names, self._changed = names, changed
        options = [("none", ""), *((short[name], name) for name in names)]
        self.list = new("Dropdown", options=options, value=layer, description="Layer")
        self.list.observe(self._told, "value")
        self._styles = [widgets().ButtonStyle(button_color=shade) for shade in (*SHADES, CHOSEN)]
        self._shades = dict.fromkeys(names, 0)
        self.tiles: dict[str, Any] = {}
        rows = self._rows(short, looks) if len(names) <= MOST_TILES else []
        said = "A tile is a weight; the darker, the further the experts moved there."
        key = [new("HTML", f'<span style="font-size:11px">{said}</span>')]
        self.box = new("VBox", [*rows, *(key if rows else []), self.list])

    @property
    def layer(self) -> str:
        """The chosen layer; "" for none."""
        return self.list.value or ""

    def shade(self, moved: Mapping[str, float]) -> None:
        """Colour the tiles: the darker, the further the experts moved there."""
        most = max((moved.get(name, 0.0) for name in self.names), default=0.0) or 1.0
        last = len(SHADES) - 1
        self._shades = {
            name: round(last * (moved.get(name, 0.0) / most) ** 0.5) for name in self.names
        }
        self._paint()

    def close(self) -> None:
        """Take the widgets back."""
        take_back(self.box)
        for style in self._styles:
            style.close()

    def _rows(self, names: Mapping[str, str], looks: Looks) -> list[Any]:
        new = looks.new
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(group_of(name), []).append(name)
        titles = short_names(list(groups))
        rows = []
        for members in groups.values():
            for name in members:
                tile = new("Button", tooltip=names[name], layout=looks.tile, style=self._styles[0])
                tile.on_click(lambda _, name=name: self._choose(name))
                self.tiles[name] = tile
            rows.append(new("HBox", [self.tiles[name] for name in members]))
        if not rows:
            return []
        # One widget for all titles: each of its own would be a kilobyte of a saved notebook.
        said = "<br>".join(escape(title.replace("* · ", "")) for title in titles.values())
        style = f"font-size:11px;line-height:{TILE}px;white-space:nowrap"
        label = new("HTML", f'<div style="{style}">{said}</div>', layout=looks.title)
        return [new("HBox", [label, new("VBox", rows)])]

    def _choose(self, name: str) -> None:
        self.list.value = name

    def _told(self, _: Any) -> None:
        self._paint()
        self._changed()

    def _paint(self) -> None:
        for name, tile in self.tiles.items():
            tile.style = self._styles[-1 if name == self.layer else self._shades[name]]
