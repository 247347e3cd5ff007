"""The widgets of a panel, and how they stand beside each other; what they do is in `panel.py`."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..system import choose_device
from . import controls, render, svg
from .controls import Looks, take_back
from .subjects import Request

ROUNDS = 3  # of statistics, at most, to choose from


class Board:
    """The widgets of a panel; `box` holds them all.

    request    what they say at first, with a weight for each expert
    view       that is shown at first
    measured   whether methods that read statistics are offered
    files      whether the models lie in files, which the app can open
    """

    def __init__(self, request: Request, view: str, *, measured: bool, files: bool) -> None:
        self.looks = Looks()
        left = [*self._method(request.method, measured, files), self._whom(request)]
        right = [*self._results(view), self._actions(files)]
        new, looks = self.looks.new, self.looks
        boxes = [new("VBox", left, layout=looks.left), new("VBox", right, layout=looks.right)]
        self.box = new("HBox", boxes, layout=looks.rows)
        self.box.add_class(render.LIVE)

    def take_back(self) -> None:
        """Close all of them."""
        take_back(self.box)
        self.looks.close()

    def _method(self, method: str, measured: bool, files: bool) -> list[Any]:
        new = self.looks.new
        titles = controls.presets(measured=measured, files=files)
        self.preset = new(
            "Dropdown",
            options=[("choose", ""), *((title, title) for title in titles)],
            value="",
            description="Preset",
        )
        self.method = new(
            "Dropdown",
            options=controls.methods(measured=measured, files=files),
            value=method,
            description="Method",
        )
        self.about, self.knob_box = new("HTML"), new("VBox")
        return [new("HTML", svg.STYLE), self.preset, self.method, self.about, self.knob_box]

    def _whom(self, request: Request) -> Any:
        new, names = self.looks.new, request.experts
        self.experts = {
            name: new("Checkbox", True, description=name, indent=False) for name in names
        }
        self.weights = {
            name: new(
                "FloatText", weight, step=0.25, tooltip=f"weight of {name}", layout=self.looks.small
            )
            for name, weight in request.weights
        }
        self.device = new("Dropdown", options=devices(), value=request.device, description="Device")
        self.rounds = new(
            "IntSlider",
            request.rounds,
            min=1,
            max=max(ROUNDS, request.rounds),
            description="Rounds",
            tooltip="How often statistics are measured: from 2 on also where the merge landed.",
        )
        said = new("HTML", "Weight, and whether it is merged")
        rows = [new("HBox", [self.weights[name], self.experts[name]]) for name in names]
        whom = new("VBox", [said, *rows])
        rest = new("VBox", [self.device, self.rounds])
        titles = ("Experts and weights", "Device and rounds")
        return new("Accordion", [whom, rest], titles=titles, selected_index=None)

    def _results(self, view: str) -> list[Any]:
        new = self.looks.new
        self.result, self.progress, self.view = (new("HTML") for _ in range(3))
        self.views = new(
            "ToggleButtons", options=list(render.VIEWS), value=view, description="Show"
        )
        self.views.style.button_width = "auto"  # so that they stand in one row
        self.above = new("VBox")  # the picture of the model, where a layer is chosen
        return [self.result, self.progress, self.views, self.above, self.view]

    def _actions(self, files: bool) -> Any:
        new, looks = self.looks.new, self.looks
        self.pin = new(
            "ToggleButton",
            description="Pin this run",
            icon="thumb-tack",
            tooltip="Compare the runs to come with this one",
        )
        self.copy = new("Button", description="As code", icon="code")
        self.folder = new("Text", placeholder="folder to save in", layout=looks.title)
        self.keep = new("Button", description="Save", icon="save")
        self.open: Any = None
        if files:
            link = {"description": "Open in the app", "icon": "external-link"}
            self.open = new("Button", **link)
        self.text = new("HTML")
        shown = [self.pin, self.copy, self.folder, self.keep, *([self.open] if files else [])]
        return new("VBox", [new("HBox", shown, layout=looks.rows), self.text])


def devices() -> list[str]:
    """The devices of this machine, and `auto`."""
    found = ["auto"]
    for name in ("cpu", "cuda", "mps"):
        try:
            found.append(choose_device(name)[0])
        except InputError:
            continue
    return found
