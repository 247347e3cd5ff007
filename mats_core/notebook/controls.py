"""Widgets made from a method's declaration of its options: ranges, labels, help, as on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from ..errors import needed
from ..methods import METHODS, PRESETS, OptionField, describe, reference

LABEL = "116px"  # the width of a widget's label


def widgets() -> Any:
    """The package of widgets; raises `InputError` with what to install where it lacks."""
    return needed("explore", "ipywidgets", "ipywidgets", "notebook")


TILE = 22  # pixels from a row of tiles to the next


class Looks:
    """Makes widgets with layouts and styles that they share: each is stored with the notebook."""

    def __init__(self) -> None:
        w = widgets()
        self.wide = w.Layout(width="auto", min_width="0")
        self.left = w.Layout(flex="1 1 300px", min_width="min(260px, 100%)", grid_gap="2px")
        self.right = w.Layout(flex="4 1 420px", min_width="0")
        self.rows = w.Layout(flex_flow="row wrap", grid_gap="4px 16px", width="100%")
        self.small = w.Layout(width="84px")
        self.tile = w.Layout(width="22px", height=f"{TILE - 2}px", padding="0", margin="1px")
        self.title = w.Layout(width="150px")  # of labels, and of what is typed beside a button
        self._layouts = list(vars(self).values())
        self._styles: dict[str, Any] = {}

    def new(self, kind: str, *values: Any, **settings: Any) -> Any:
        """A widget of a kind, as wide as its column where no layout is given."""
        settings.setdefault("layout", self.wide)
        if kind in self._styles:
            settings.setdefault("style", self._styles[kind])
        made = getattr(widgets(), kind)(*values, **settings)
        style = getattr(made, "style", None)
        if style is not None and kind not in self._styles and "style" not in settings:
            self._styles[kind] = style
            if hasattr(style, "description_width") and kind != "Checkbox":
                style.description_width = LABEL
        return made

    def close(self) -> None:
        """Take all layouts and styles back."""
        for one in (*self._layouts, *self._styles.values()):
            one.close()


def take_back(widget: Any) -> None:
    """Close a widget with all that it holds, but for the layouts and styles that others share."""
    for child in getattr(widget, "children", ()):
        take_back(child)
    widget.close()


class Knobs:
    """The widgets of one method's options; `box` holds them all.

    method    its name
    changed   called without arguments after every change
    looks     makes its widgets
    options   what they say at first; those that are not named have their defaults
    experts   how many there are, by which some defaults differ
    """

    def __init__(
        self,
        method: str,
        changed: Callable[[], None],
        looks: Looks,
        options: Mapping[str, Any] | None = None,
        experts: int | None = None,
    ) -> None:
        self.fields = {field.name: field for field in describe(method, experts)}
        self.method, self.looks = method, looks
        self._changed, self._quiet = changed, False
        self.widgets = {name: self._widget(field) for name, field in self.fields.items()}
        new = looks.new
        leading: list[Any] = []
        heading = ""
        for name, field in self.fields.items():
            if field.more:
                continue
            if field.section and field.section.title != heading:
                heading = field.section.title
                leading.append(new("HTML", f"<b>{escape(heading)}</b>"))
            leading.append(self.widgets[name])
        more = [self.widgets[name] for name, field in self.fields.items() if field.more]
        if more:
            folded = new(
                "Accordion", [new("VBox", more)], titles=("More settings",), selected_index=None
            )
            leading.append(folded)
        self.box = new("VBox", leading)
        self._fill(options or {})

    @property
    def values(self) -> dict[str, Any]:
        """Option → its value, as a recipe takes it."""
        return {name: self._value(field) for name, field in self.fields.items()}

    def put(self, options: Mapping[str, Any]) -> None:
        """Set all options at once, those that are not named to their defaults."""
        self._fill(options)
        self._changed()

    def _fill(self, options: Mapping[str, Any]) -> None:
        self._quiet = True
        try:
            for name, field in self.fields.items():
                value = options.get(name, field.default)
                if field.control == "series":
                    self.widgets[name].options = _series(field, value)
                typed = field.control == "text" or _optional(field) or _open(field)
                self.widgets[name].value = _text(value) if typed else value
        finally:
            self._quiet = False

    def close(self) -> None:
        """Take the widgets back."""
        take_back(self.box)

    def _widget(self, field: OptionField) -> Any:
        new = self.looks.new
        common: dict[str, Any] = {"description": field.title, "tooltip": _sentence(field)}
        control, ends = field.control, {"min": field.low, "max": field.high, "step": field.step}
        if control in ("slider", "switch") and field.kind == "int":
            made = new(
                "IntSlider", field.default, **{k: int(v or 0) for k, v in ends.items()}, **common
            )
        elif control in ("slider", "switch"):
            made = new("FloatSlider", field.default, readout_format=".2f", **ends, **common)
        elif control == "series":
            made = new("SelectionSlider", options=_series(field), value=field.default, **common)
        elif control == "toggle":
            made = new("Checkbox", field.default, indent=False, **common)
        elif control == "choice" and not _open(field):
            made = new("Dropdown", options=_named(field), value=field.default, **common)
        elif control == "choice":
            told = tuple(field.choices or field.checkpoint)
            made = new(
                "Combobox",
                value=_text(field.default),
                options=told,
                continuous_update=False,
                **common,
            )
        elif control == "number" and not _optional(field):
            number = "IntText" if field.kind == "int" else "FloatText"  # merging tells the bounds
            made = new(number, field.default, continuous_update=False, **common)
        else:
            made = new(
                "Text",
                _text(field.default),
                placeholder="by default",
                continuous_update=False,
                **common,
            )
        made.observe(self._told, "value")
        return made

    def _told(self, _: Any) -> None:
        if not self._quiet:
            self._changed()

    def _value(self, field: OptionField) -> Any:
        value = self.widgets[field.name].value
        if not isinstance(value, str) or (field.control == "choice" and not _open(field)):
            return value
        text = value.strip()
        if not text or (field.kind == "text" and not field.choices):
            return text or None
        kinds: tuple[Any, ...] = (int, float) if field.kind == "int" else (float,)
        for kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
        return text  # refused by the method's declaration, with a sentence


def _optional(field: OptionField) -> bool:
    """Whether nothing is a value, which is typed as an empty text."""
    return field.control == "number" and (field.optional or field.default is None)


def _open(field: OptionField) -> bool:
    """Whether a choice takes more than its names: a number, or the path of a checkpoint."""
    return field.control == "choice" and (field.numeric or bool(field.checkpoint))


def _named(field: OptionField) -> list[tuple[str, str]]:
    return [(choice.replace("_", " "), choice) for choice in field.choices]


def _series(field: OptionField, *also: Any) -> list[tuple[str, Any]]:
    return [(f"{value:g}", value) for value in field.series(*also)]


def _text(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(field: OptionField) -> str:
    return f"{field.help[:1].upper()}{field.help[1:]}." if field.help else ""


def help_of(field: OptionField) -> str:
    """What an option does, with its default, in a sentence or two."""
    said = _sentence(field)
    default = "" if field.default is None else f" Default: {field.default}."
    return (said + default).strip()


def about(name: str) -> str:
    """A method and its options in words, as HTML that unfolds."""
    method = METHODS[name]
    lines = "".join(
        f"<p><b>{escape(field.title)}</b>: {escape(help_of(field))}</p>" for field in describe(name)
    )
    said = reference.needs(name).replace("`", "")
    needs = f"<p>Needs {escape(said)}. Source: {escape(method.source)}.</p>"
    return (
        f"<p>{escape(method.summary)}</p><details><summary>What the settings do</summary>"
        f"{lines}{needs}</details>"
    )


def methods(*, measured: bool, files: bool) -> list[tuple[str, str]]:
    """(title, name) of the methods that can be merged with: those without data where none are
    `measured`, and those that walk through models where these are `files`."""
    return [
        (method.title, name)
        for name, method in METHODS.items()
        if (measured or method.group != "statistics") and (files or not method.calibrates)
    ]


def presets(*, measured: bool, files: bool) -> list[str]:
    """Titles of the presets of these methods."""
    offered = {name for _, name in methods(measured=measured, files=files)}
    return [preset.title for preset in PRESETS if preset.method in offered]
