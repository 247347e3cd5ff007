"""The widgets of a panel, and how they stand beside each other; what they do is in `panel.py`."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..system import choose_device
from . import controls, render
from .controls import Looks, take_back

ROUNDS = 3  # of statistics, at most, to choose from


class Board:
    """The widgets of a panel; `box` holds them all.

    names      of the experts
    method     that the panel begins with
    measured   whether methods that read statistics are offered
    files      whether the models lie in files, which the app can open
    """

    def __init__(self, names: tuple[str, ...], method: str, *, measured: bool, files: bool) -> None:
        self.looks = Looks()
        left = [*self._method(method, measured), self._whom(names)]
        right = [*self._results(), self._actions(files)]
        w, looks = controls.widgets(), self.looks
        boxes = [w.VBox(left, layout=looks.left), w.VBox(right, layout=looks.right)]
        self.box = w.HBox(boxes, layout=looks.rows)
        self.box.add_class(render.LIVE)

    def take_back(self) -> None:
        """Close all of them."""
        take_back(self.box, self.looks)
        self.looks.close()

    def _method(self, method: str, measured: bool) -> list[Any]:
        w, wide = controls.widgets(), self.looks.wide
        titles = controls.presets(measured=measured)
        self.preset = w.Dropdown(
            options=[("choose", ""), *((title, title) for title in titles)],
            value="", description="Preset", layout=wide,
        )  # fmt: skip
        self.method = w.Dropdown(
            options=controls.methods(measured=measured), value=method, description="Method",
            layout=wide,
        )  # fmt: skip
        self.about, self.knob_box = w.HTML(layout=wide), w.VBox(layout=wide)
        return [self.preset, self.method, self.about, self.knob_box]

    def _whom(self, names: tuple[str, ...]) -> Any:
        w, wide = controls.widgets(), self.looks.wide
        self.experts = {
            name: w.Checkbox(True, description=name, indent=False, layout=wide) for name in names
        }
        self.weights = {
            name: w.FloatText(1.0, step=0.25, tooltip=f"weight of {name}", layout=self.looks.small)
            for name in names
        }
        self.device = w.Dropdown(
            options=_devices(), value="auto", description="Device", layout=wide
        )
        self.rounds = w.IntSlider(
            1, min=1, max=ROUNDS, description="Rounds", layout=wide,
            tooltip="How often statistics are measured: from 2 on also where the merge landed.",
        )  # fmt: skip
        said = w.HTML("Weight, and whether it is merged", layout=wide)
        rows = [w.HBox([self.weights[name], self.experts[name]]) for name in names]
        whom = w.VBox([said, *rows], layout=wide)
        rest = w.VBox([self.device, self.rounds], layout=wide)
        titles = ("Experts and weights", "Device and rounds")
        return w.Accordion([whom, rest], titles=titles, selected_index=None, layout=wide)

    def _results(self) -> list[Any]:
        w, wide = controls.widgets(), self.looks.wide
        self.result, self.progress, self.view = (w.HTML(layout=wide) for _ in range(3))
        self.views = w.ToggleButtons(
            options=list(render.VIEWS), description="Show", style={"button_width": "auto"}
        )
        self.above = w.VBox(layout=wide)  # the picture of the model, where a layer is chosen
        return [self.result, self.progress, self.views, self.above, self.view]

    def _actions(self, files: bool) -> Any:
        w, looks = controls.widgets(), self.looks
        self.pin = w.ToggleButton(
            description="Pin this run", icon="thumb-tack", layout=looks.button,
            tooltip="Compare the runs to come with this one",
        )  # fmt: skip
        self.copy = w.Button(description="As code", icon="code", layout=looks.button)
        self.folder = w.Text(placeholder="folder to save in", layout=looks.folder)
        self.keep = w.Button(description="Save", icon="save", layout=looks.button)
        self.open = w.Button(
            description="Open in the app", icon="external-link", layout=looks.button
        )
        self.text = w.HTML(layout=looks.wide)
        shown = [self.pin, self.copy, self.folder, self.keep, *([self.open] if files else [])]
        return w.VBox([w.HBox(shown, layout=looks.rows), self.text], layout=looks.wide)


def _devices() -> list[str]:
    """The devices of this machine, and `auto`."""
    found = ["auto"]
    for name in ("cpu", "cuda", "mps"):
        try:
            found.append(choose_device(name)[0])
        except InputError:
            continue
    return found
