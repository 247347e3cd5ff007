"""`mats.explore(family)`: a panel of knobs over live merges, in one call in one cell.

The widgets are a thin layer: they say what is asked for (`Request`), `worker.py` has it answered,
and what is known (`State`) is turned into HTML by `render.py`.  Under the panel the same is kept as
plain HTML, which is what a saved file shows.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..families import Family
from ..merging import Merge
from ..methods import METHODS, PRESETS
from ..recipes import Recipe, Report, taking_part
from ..system import in_notebook
from . import code, controls, render
from .answers import Answers, Run, State
from .app import App
from .board import Board
from .controls import Knobs
from .picture import Picture
from .start import Start, start
from .subjects import Request, Subject, repeats, subject
from .worker import Worker

# What is shown of the widgets where they are dead: of a saved file, without a kernel.
ALONE = "The knobs of this panel need a kernel; its last result follows."


class Panel(Board):
    """A live panel; what it shows can be read at any time.

    Closing it, or running its cell again, ends its thread.  It holds its widgets instead of being
    one, whose names would collide with its.
    """

    def __init__(self, explored: Subject, begin: Start) -> None:
        self._subject, self._answers = explored, Answers(explored)
        self._first = first = begin.request
        self._pinned: Run | None = None
        self._app: App | None = None
        self._still: Any = None
        self._shown_in: Any = None
        self._picture: Picture | None = None
        self._told, self._kept = -1, None
        self._lock = threading.RLock()
        measured, files = explored.measures, explored.folder is not None
        super().__init__(first, begin.view, measured=measured, files=files)
        count = taking_part(first.experts, dict(first.weights))
        self.knobs = Knobs(first.method, self._ask, self.looks, dict(first.options), count)
        if first.layer:  # then what is explored is open already
            self._see(explored.inputs(explored.names).family, first.layer)
        self._show_method()
        self._listen()
        self._worker = Worker(self._answers.answer, self._tell, self._failed)
        self._ask()

    # What can be read -----------------------------------------------------------------------------

    @property
    def merge(self) -> Merge | None:
        """The newest result; None before the first."""
        return self._answers.state.merge

    @property
    def report(self) -> Report | None:
        """The report of the newest result; None before the first."""
        return self.merge.report if self.merge is not None else None

    @property
    def runs(self) -> tuple[Run, ...]:
        """All results of the panel, oldest first, with recipe and report."""
        return tuple(self._answers.runs)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the method, as the knobs stand now."""
        return self.knobs.values

    @property
    def error(self) -> str:
        """Why the newest request has no result, in a sentence; "" where it has one."""
        return self._answers.state.error

    @property
    def code(self) -> str:
        """The lines of Python that merge what the knobs say now."""
        return self._code(self.request())

    def _code(self, request: Request) -> str:
        reads = code.reads_statistics(request)
        return code.lines(request, self._subject.folder, self._subject.names, reads=reads)

    def recipe(self) -> Recipe:
        """The recipe of what the knobs say now.  Raises `InputError` for what cannot be merged."""
        return self._subject.recipe(self.request().merge)

    def request(self) -> Request:
        """What the knobs say now, as a record."""
        names = tuple(name for name, box in self.experts.items() if box.value)
        weights: tuple[tuple[str, float], ...] = ()
        knobs = self.knobs  # a method's are exchanged as one, perhaps meanwhile
        if METHODS[knobs.method].weighted:
            weights = tuple((name, float(self.weights[name].value)) for name in names)
        return Request(
            knobs.method, tuple(knobs.values.items()), names, weights, self.device.value,
            1 if self.rounds.disabled else self.rounds.value,
            self._picture.layer if self._picture else "",
            self._first.seed, self._first.dtype, self._first.after, self._first.by,
        )  # fmt: skip

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """The directory that the newest result was written to; see `Merge.save`.

        Raises `InputError` where there is no result yet.
        """
        if self.merge is None:
            raise InputError("result to save", expected="a finished merge", found="none yet")
        return self.merge.save(folder, force=force)

    def wait(self, seconds: float | None = None, *, whole: bool = False) -> bool:
        """Whether the newest request has its result (`whole`: all that explains it) in this time.

        For scripts and tests; by default as long as it takes.
        """
        return self._worker.wait(seconds, whole=whole)

    def close(self) -> None:
        """Stop the work, end the thread and take the widgets back; the last result stays."""
        self._worker.close()
        if self._app is not None:
            self._app.close()
        if self._picture is not None:
            self._picture.close()
        self.take_back()

    @property
    def closed(self) -> bool:
        """Whether its thread has ended."""
        return not self._worker.alive

    # What the widgets do --------------------------------------------------------------------------

    def _listen(self) -> None:
        self.method.observe(self._new_method, "value")
        self.preset.observe(self._new_preset, "value")
        self.views.observe(self._new_view, "value")
        for one in (*self.experts.values(), *self.weights.values(), self.device, self.rounds):
            one.observe(self._ask, "value")
        self.pin.observe(self._new_pin, "value")
        self.copy.on_click(self._coded)
        self.keep.on_click(self._saved)
        if self.open is not None:
            self.open.on_click(self._opened)

    def _say(self, text: str) -> None:
        self.text.value = render.plain(text)

    def _coded(self, _: Any) -> None:
        self.text.value = render.to_copy(self.code)

    def _saved(self, _: Any) -> None:
        try:
            self._say(f"Saved in {self.save(self.folder.value.strip() or 'merged').resolve()}")
        except InputError as error:
            self._say(str(error))

    def _opened(self, _: Any) -> None:
        assert self._subject.folder is not None
        try:
            if self._app is None or not self._app.alive:
                self._app = App(self._subject.folder)
            self.text.value = render.framed(self._app.link(self.request().merge))
        except InputError as error:
            self._say(str(error))

    def _new_pin(self, _: Any) -> None:
        shown = self._answers.state.shown if self.pin.value else None
        self._pinned = next((run for run in self.runs if run.request == shown), None)
        self._show(self._answers.state)

    def _new_view(self, _: Any) -> None:
        self._see_layers(self._answers.state)
        self._show(self._answers.state)

    def _new_preset(self, _: Any) -> None:
        preset = next((one for one in PRESETS if one.title == self.preset.value), None)
        if preset is not None:
            self.rounds.value = preset.rounds
            self.method.value = preset.method
            self.knobs.put(preset.options)
            self.preset.value = ""  # it can be chosen again after knobs were turned

    def _new_method(self, _: Any) -> None:
        name = self.method.value
        first = METHODS[name].exploring
        chosen = [one for one, box in self.experts.items() if box.value]
        given = {one: float(self.weights[one].value) for one in chosen if METHODS[name].weighted}
        count = taking_part(chosen, given)
        before, self.knobs = self.knobs, Knobs(name, self._ask, self.looks, first, count)
        self._show_method()
        before.close()
        self._ask()

    def _show_method(self) -> None:
        method = METHODS[self.method.value]
        self.knob_box.children = (self.knobs.box,)
        self.about.value = render.framed(controls.about(method.name))
        self.rounds.disabled = not repeats(self._subject, method.name)

    # Asking and answering -------------------------------------------------------------------------

    def _ask(self, _: Any = None) -> None:
        self.text.value = ""  # what an action said was of the settings before
        self._worker.ask(self.request())

    def _failed(self, error: Exception) -> None:
        self._tell(self._answers.failed(error))

    def _tell(self, state: State) -> None:
        """In the worker: show a state."""
        self.progress.value = render.progress(state)
        live = self.views.value == "Solve" and bool(state.residuals or state.current)
        if state.news != self._told or live:
            self._told = state.news
            self._see_layers(state)
            self._show(state)
        if state.answered and (state.merge is not self._kept or not state.text):
            self._kept = state.merge
            self._keep(state)

    def _show(self, state: State) -> None:
        with self._lock:
            self.result.value = render.result(state, self._pinned)
            self.view.value = render.view(self.views.value, state, self._pinned)

    def _see_layers(self, state: State) -> None:
        """The picture of the model, made when it is first looked at."""
        shown = self.views.value == "Layer"
        with self._lock:
            if shown and self._picture is None and state.average is not None:
                self._see(state.average.inputs.family)
            picture = self._picture
        if picture is None:
            return
        if state.distances is not None:
            moved = state.distances.moved.sum(1).tolist()
            picture.shade(dict(zip(state.distances.layers, moved, strict=True)))
        self.above.children = (picture.box,) if shown else ()

    def _see(self, family: Family, layer: str = "") -> None:
        self._picture = Picture(family, self._ask, self.looks, layer)

    def _keep(self, state: State) -> None:
        if self._still is None:
            return
        # Of the result that is shown: the knobs may stand elsewhere by now.
        made = self._code(state.shown) if state.shown is not None else ""
        screen: Any = importlib.import_module("IPython.display")
        self._still.update(screen.HTML(render.still(state, self._pinned, made)))

    # Displaying -----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        said = repr(self.report) if self.report is not None else self.error or "no result yet"
        return f"Panel over {', '.join(self._subject.names)}: {said}"

    def _ipython_display_(self) -> None:
        """The panel, and below it as plain HTML what it last said.

        A widget in a saved file is dead, and JupyterLab prefers it to HTML beside it in the same
        output: what is saved is an output of its own.
        """
        if not in_notebook():
            print(repr(self))
            return
        now = place()
        if now == self._shown_in:  # `explore` has shown it in this very run of the cell
            return
        self._shown_in = now
        screen: Any = importlib.import_module("IPython.display")
        live = {**self.box._repr_mimebundle_(), "text/plain": ALONE}
        screen.display(live, raw=True)
        text = render.still(self._answers.state, self._pinned)
        self._still = screen.display(screen.HTML(text), display_id=True)


# One panel a cell ---------------------------------------------------------------------------------

_OPEN: list[tuple[Any, Panel]] = []


def place() -> tuple[str, str]:
    """(cell, execution) in which this is called; ("", "") outside of notebooks.

    A front end that does not name its cells has them told apart by their text.
    """
    shell: Any = importlib.import_module("IPython").get_ipython() if in_notebook() else None
    if shell is None or not hasattr(shell, "get_parent"):
        return "", ""
    parent = shell.get_parent() or {}
    cell = (parent.get("metadata") or {}).get("cellId")
    text = (parent.get("content") or {}).get("code", "")
    return str(cell or text), str((parent.get("header") or {}).get("msg_id", ""))


def explore(
    family: Any,
    experts: Mapping[Any, Any] | Sequence[Any] | None = None,
    *,
    loaders: Mapping[Any, Any] | None = None,
    heads: Sequence[str] | str | None = None,
    examples: int | None = None,
    method: str | None = None,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    weights: Mapping[Any, float] | Sequence[float] | None = None,
    rounds: int | None = None,
    device: str = "auto",
    seed: int = 0,
    dtype: str = "float32",
    after: Sequence[Any] = (),
    by: Sequence[Any] = (),
    view: str | None = None,
    layer: str = "",
) -> Panel:
    """A panel of knobs over live merges, shown in the notebook; it returns with the first result.

    family    a `FamilyFile`, its file or its folder; or the base of `experts`
    experts   models by name or in a list, as `merge_models` takes them
    loaders   data of the experts by name: a loader for a module, a task for a checkpoint; without
              any there are methods that need no data, distances and spectra
    heads     patterns of tensors that are not merged, of models; by default they are recognised
    examples  that statistics are measured on, an expert; 256 of a task's by default

    What it begins with, each of which a knob changes but for seed, arithmetic, steps and rules:

    method    a name of `METHODS`; or
    preset    the title of a preset, with its options and rounds
    options   of the method, by name, over those of the preset
    weights   of the experts, by name or in their order; 1 by default
    rounds    how often statistics are measured, of a family
    device    `auto`, `cpu`, `cuda` or `mps`
    seed      of what is random
    dtype     of the arithmetic, `float32` or `float64`
    after     steps after the merge, and rules `by` layer, as in a recipe
    view      `Tasks`, `Solve`, `Why`, `Scaling` or `Layer`
    layer     name of the weight that is looked at

    Afterwards the kernel is free.  Running the cell again closes the panel that it showed before.
    Raises `InputError` for what cannot be explored or begun with, and where ipywidgets lacks.
    """
    controls.widgets()
    explored = subject(family, experts, loaders=loaders, heads=heads, examples=examples)
    begin = start(
        explored, method=method, preset=preset, options=options, weights=weights, rounds=rounds,
        device=device, seed=seed, dtype=dtype, after=after, by=by, view=view, layer=layer,
    )  # fmt: skip
    cell, execution = place()
    for (of, during), panel in list(_OPEN):
        if panel.closed or (cell and of == cell and during != execution):
            panel.close()
            _OPEN.remove(((of, during), panel))
    panel = Panel(explored, begin)
    _OPEN.append(((cell, execution), panel))
    if in_notebook():
        panel._ipython_display_()
        panel.wait()  # as `interact` does: what is saved has the first result
    return panel
