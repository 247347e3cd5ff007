"""What a mergekit configuration says: its models, its base, and the values of its parameters.

A parameter is a number, a list that is interpolated over the blocks (a gradient), or a list of
`{filter, value}`, of which the first that matches wins.  Some are given for each model, the others
for all of them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints import hub
from ..errors import InputError, lenient_json, listing
from .mergekit_names import EACH, KEYS, There

BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")  # in a configuration
MOST_BLOCKS = 10_000  # each becomes a rule of a gradient
Condition = tuple[str | None, Any]  # a filter, or None for every tensor, and its value


@dataclass(frozen=True)
class Model:
    """One model of the file: its path, and its parameters, the nearest first."""

    path: str
    settings: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class File:
    """What a file says, before it is mapped.

    name      of the merge method
    there     what is known of it
    models    that are merged
    base      of the recipe
    settings  parameters of all models, the nearest first
    folder    where paths start
    """

    name: str
    there: There
    models: tuple[Model, ...]
    base: str
    settings: tuple[Mapping[str, Any], ...]
    folder: Path

    @property
    def thing(self) -> str:
        """How an error calls it."""
        return f"mergekit's '{self.name}'"


def opened(content: Mapping[str, Any], name: str, there: There, folder: Path) -> File:
    settings: list[Mapping[str, Any]] = [mapping(content.get("parameters"), "parameters")]
    entries, whole, given = content.get("models"), None, content.get("base_model")
    kinds = [key for key in ("models", "slices", "modules") if content.get(key)]
    if len(kinds) != 1 or kinds == ["modules"]:
        expected = "exactly one of 'models' and 'slices'"
        raise InputError(
            "mergekit configuration",
            expected=expected,
            found=listing(kinds) or "none",
            remedy=KEYS["modules"] if "modules" in kinds else "",
        )
    if kinds == ["slices"]:
        entries, whole, own, given = _one_slice(content["slices"], given)
        settings.insert(0, own)
    base = None if given is None else _path(given)
    models = [
        Model(_path(mapping(one, "model").get("model")),
              (mapping(mapping(one, "model").get("parameters"), "parameters"), *settings))
        for one in several(entries, "models")
    ]  # fmt: skip
    if base is not None and base not in [one.path for one in models]:
        models.append(Model(base, tuple(settings)))
    models = _without_base(models, base, name, there)
    start = base or models[0].path
    models = [Model(_adapted(one.path, start, folder), one.settings) for one in models]
    file = File(name, there, tuple(models), start, tuple(settings), folder)
    if whole is not None and whole != blocks_of(file):
        raise InputError(
            "'slices' of the mergekit configuration",
            expected=f"all {blocks_of(file)} layers of the models, in one slice",
            found=f"the first {whole}",
            remedy="A merge here has the layers of its base.",
        )
    return file


def _without_base(models: list[Model], base: str | None, name: str, there: There) -> list[Model]:
    """The models that are merged; refused where mergekit would refuse, or where a base makes it
    another method."""
    thing = f"base_model of mergekit's '{name}'"
    if there.base == "refused" and base is not None:
        raise InputError(
            thing,
            expected="none: with it mergekit goes along arcs of the updates, which has no "
            "counterpart here",
            found=f"'{base}'",
        )
    if there.base == "needed" and base is None:
        raise InputError(thing, expected="the model that the others come from", found="none")
    experts = [one for one in models if there.base != "needed" or one.path != base]
    if not experts or there.models not in (None, len(experts)):
        wanted = f"{there.models or 'one or more'}" + (
            " beside the base" if there.base == "needed" else ""
        )
        raise InputError(f"models of mergekit's '{name}'", expected=wanted, found=f"{len(experts)}")
    return [one for one in models if one.path == base] + experts if name == "slerp" else experts


def _one_slice(
    slices: Any, base: Any
) -> tuple[list[Any], int, Mapping[str, Any], Any]:  # fmt: skip
    """(its sources, how many layers, its parameters, its base) of the only slice."""
    slices = several(slices, "slices")
    first = slices[0] if slices else {}
    sources = several(mapping(first, "slice").get("sources"), "sources")
    ranges = {_range(mapping(one, "source").get("layer_range")) for one in sources}
    low, *high = next(iter(ranges), (1,))
    if len(slices) > 1 or len(ranges) != 1 or low != 0 or len(high) != 1:
        raise InputError(
            "'slices' of the mergekit configuration",
            expected="one slice of all layers, the same of every model",
            found=f"{len(slices)} slices" if len(slices) > 1 else f"layers {sorted(ranges)}",
            remedy="A merge here has the layers of its base; layers are not stacked or moved.",
        )
    if first.get("residual_weight") is not None:
        raise InputError("residual_weight of a slice", expected="none: it has no counterpart",
                         found=str(first["residual_weight"]))  # fmt: skip
    own = mapping(first.get("parameters"), "parameters")
    return sources, high[0], own, first.get("base_model", base)


def _range(value: Any) -> tuple[int, ...]:
    """From which layer to which; (0,) where nothing is said."""
    ends = several(value, "layer_range") or [0]
    if not all(isinstance(end, int) for end in ends):
        raise InputError("layer_range of the mergekit configuration", expected="two whole numbers",
                         found=str(value))  # fmt: skip
    return tuple(ends)


def several(value: Any, thing: str) -> list[Any]:
    """A list of the configuration; empty where nothing is said."""
    if value is not None and not isinstance(value, list):
        raise InputError(f"{thing} of the mergekit configuration", expected="a list",
                         found=str(value))  # fmt: skip
    return value or []


def mapping(value: Any, thing: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{thing} of the mergekit configuration", expected="keys with values",
                         found=str(value))  # fmt: skip
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError("model of the mergekit configuration", expected="a path or a hub id",
                         found=str(value))  # fmt: skip
    return value


def _adapted(path: str, base: str, folder: Path) -> str:
    """The path of a model; of `base+adapter` that of the adapter, which is put on the base."""
    model, plus, adapter = path.partition("+")
    if not plus or (folder / path).exists():
        return path
    if model != base:
        raise InputError(
            f"model '{path}'", expected=f"an adapter of '{base}'", found=f"one of '{model}'",
            remedy="Put the adapter on its model first, and name the result.",
        )  # fmt: skip
    return adapter


def conditions_of(file: File, model: Model, name: str) -> list[Condition]:
    """(filter, value) of a parameter in mergekit's order, up to the one without a filter; a value
    that is a list is a gradient."""
    found: list[Condition] = []
    for settings in model.settings if name in EACH else file.settings:
        for where, value in _stated(file, name, settings.get(name)):
            found.append((where, value))
            if where is None:
                return found
    default = file.there.defaults.get(name)
    if default is None and (name == "t" or (name == "weight" and file.there.weights)):
        raise InputError(
            f"{name} of '{model.path}' in {file.thing}", expected="a value"
            + (" for the tensors that no filter is about" if found else ""), found="none",
        )  # fmt: skip
    return [*found, (None, 1.0 if name == "weight" else default)]


def _stated(file: File, name: str, setting: Any) -> Iterator[Condition]:
    listed = setting if isinstance(setting, list) else [setting]
    if any(isinstance(one, Mapping) for one in listed):
        for one in listed:
            value = mapping(one, f"{name} with filters").get("value")
            where = one.get("filter")
            yield None if where in (None, "*") else str(where), _value(file, name, value)
    elif setting is not None and listed:
        yield None, _value(file, name, setting)


def _value(file: File, name: str, value: Any) -> Any:
    """A number or a truth value, or a gradient of more than one number."""
    if isinstance(value, list):
        if not value or any(isinstance(one, list) for one in value):
            raise InputError(f"gradient of {name} in {file.thing}", expected="one or more numbers",
                             found=str(value))  # fmt: skip
        numbers = [_value(file, name, one) for one in value]
        return numbers if len(set(numbers)) > 1 else numbers[0]
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, bool | int | float):
        raise InputError(f"{name} of {file.thing}", expected="a number", found=str(value))
    return value


def blocks_of(file: File) -> int:
    """How many blocks the base has, by its configuration."""
    path = hub.locate(file.base, file.folder) / "config.json"
    found = lenient_json(path)
    found = found if isinstance(found, dict) else {}
    inner = found.get("text_config")
    for own in (found, inner if isinstance(inner, dict) else {}):
        for key in BLOCKS:
            count = own.get(key)
            if count is None:
                continue
            if type(count) is int and 0 < count <= MOST_BLOCKS:
                return count
            raise InputError(f"'{key}' in the config.json of '{file.base}'",
                             expected=f"a number of layers, at most {MOST_BLOCKS}",
                             found=str(count))  # fmt: skip
    raise InputError(
        f"base '{file.base}'",
        expected=f"a config.json that says how many layers there are ({listing(BLOCKS)}), which "
        "slices and gradients count in",
        found="none",
    )
