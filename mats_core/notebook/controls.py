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


class Looks:
    """Layouts and styles, one of a kind for all widgets: each is stored with the notebook."""

    def __init__(self) -> None:
        w = widgets()
        self.wide = w.Layout(width="auto", min_width="0")
        self.left = w.Layout(flex="0 1 320px", min_width="260px", grid_gap="2px")
        self.right = w.Layout(flex="1 1 420px", min_width="0")
        self.rows = w.Layout(flex_flow="row wrap", grid_gap="4px 16px", width="100%")
        self.small = w.Layout(width="84px")
        self.tile = w.Layout(width="22px", height="20px", padding="0", margin="1px")
        self.title = w.Layout(width="150px")
        self.folder = w.Layout(width="180px")
        self.button = w.Layout(width="auto", height="30px")

    def close(self) -> None:
        """Take all of them back."""
        for one in vars(self).values():
            one.close()


def take_back(widget: Any, looks: Looks) -> None:
    """Close a widget with all that it holds, but for the layouts that others share."""
    for child in getattr(widget, "children", ()):
        take_back(child, looks)
    own: list[Any] = [widget.layout, getattr(widget, "style", None)]
    for part in own:
        if part is not None and part not in vars(looks).values():
            part.close()
    widget.close()


class Knobs:
    """The widgets of one method's options; `box` holds them all.

    method    its name
    changed   called without arguments after every change
    looks     layouts that widgets share
    """

    def __init__(self, method: str, changed: Callable[[], None], looks: Looks) -> None:
        self.fields = {field.name: field for field in describe(method)}
        self.method, self.looks = method, looks
        self._changed, self._quiet = changed, False
        self.widgets = {name: self._widget(field) for name, field in self.fields.items()}
        w = widgets()
        leading: list[Any] = []
        heading = ""
        for name, field in self.fields.items():
            if field.more:
                continue
            if field.section and field.section.title != heading:
                heading = field.section.title
                leading.append(w.HTML(f"<b>{escape(heading)}</b>", layout=looks.wide))
            leading.append(self.widgets[name])
        more = [self.widgets[name] for name, field in self.fields.items() if field.more]
        if more:
            folded = w.Accordion([w.VBox(more)], titles=("More settings",), selected_index=None)
            leading.append(folded)
        self.box = w.VBox(leading, layout=looks.wide)

    @property
    def values(self) -> dict[str, Any]:
        """Option → its value, as a recipe takes it."""
        return {name: self._value(field) for name, field in self.fields.items()}

    def put(self, options: Mapping[str, Any]) -> None:
        """Set all options at once, those that are not named to their defaults."""
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
        self._changed()

    def close(self) -> None:
        """Take the widgets back."""
        take_back(self.box, self.looks)

    def _widget(self, field: OptionField) -> Any:
        w = widgets()
        common: dict[str, Any] = {
            "description": field.title,
            "tooltip": help_of(field),
            "layout": self.looks.wide,
        }
        control, ends = field.control, {"min": field.low, "max": field.high, "step": field.step}
        if control in ("slider", "switch") and field.kind == "int":
            made = w.IntSlider(field.default, **{k: int(v or 0) for k, v in ends.items()}, **common)
        elif control in ("slider", "switch"):
            made = w.FloatSlider(field.default, readout_format=".2f", **ends, **common)
        elif control == "series":
            made = w.SelectionSlider(options=_series(field), value=field.default, **common)
        elif control == "toggle":
            made = w.Checkbox(field.default, indent=False, **common)
        elif control == "choice" and not _open(field):
            made = w.Dropdown(options=_named(field), value=field.default, **common)
        elif control == "choice":
            told = tuple(field.choices or field.checkpoint)
            made = w.Combobox(
                value=_text(field.default), options=told, continuous_update=False, **common
            )
        elif control == "number" and not _optional(field):
            number = w.IntText if field.kind == "int" else w.FloatText  # bounds are told by merging
            made = number(field.default, continuous_update=False, **common)
        else:
            made = w.Text(
                _text(field.default), placeholder="by default", continuous_update=False, **common
            )
        if control != "toggle":
            made.style.description_width = LABEL
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


def help_of(field: OptionField) -> str:
    """What an option does, with its default, in a sentence or two."""
    said = f"{field.help[:1].upper()}{field.help[1:]}." if field.help else ""
    default = "" if field.default is None else f" Default: {field.default}."
    return (said + default).strip()


def about(name: str) -> str:
    """A method and its options in words, as HTML that unfolds."""
    method = METHODS[name]
    lines = "".join(
        f"<p><b>{escape(field.title)}</b>: {escape(help_of(field))}</p>" for field in describe(name)
    )
    needs = f"<p>Needs {reference.NEEDS[method.group]}. Source: {escape(method.source)}.</p>"
    return (
        f"<p>{escape(method.summary)}</p><details><summary>What the settings do</summary>"
        f"{lines}{needs}</details>"
    )


def methods(*, measured: bool) -> list[tuple[str, str]]:
    """(title, name) of the methods that can be merged with; those without data where none are
    `measured`."""
    return [
        (method.title, name)
        for name, method in METHODS.items()
        if measured or method.group != "statistics"
    ]


def presets(*, measured: bool) -> list[str]:
    """Titles of the presets of these methods."""
    offered = {name for _, name in methods(measured=measured)}
    return [preset.title for preset in PRESETS if preset.method in offered]
