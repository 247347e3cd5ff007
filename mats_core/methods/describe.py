"""The reference of methods and options, derived from their declarations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..merging import OptionField, describe
from . import METHODS
from .method import Method


def as_dict(name: str) -> dict[str, Any]:
    """One method as plain values, with the JSON schema of its options."""
    method = METHODS[name]
    return {
        "name": name,
        "title": method.title,
        "needs": method.group,
        "summary": method.summary,
        "formula": method.formula,
        "source": method.source,
        "weighted": method.weighted,
        "options": [asdict(field) for field in describe(name)],
        "schema": method.options.model_json_schema(),
    }


def bounds(field: OptionField) -> str:
    """What values an option takes, in a few words."""
    if field.choices:
        text = " · ".join(field.choices) + (" · a number" if field.numeric else "")
    elif field.low is not None and field.high is not None:
        text = f"{field.low:g} … {field.high:g}"
    elif field.low is not None:
        text = f"from {field.low:g}"
    else:
        text = {"bool": "true · false", "text": "text"}.get(field.kind, field.kind)
    return text + (" (or null)" if field.optional else "")


def markdown() -> str:
    """`docs/methods.md`: every method with its formula, source and options."""
    lines = [
        "# Methods and their options",
        "",
        "Generated from the declarations in `mats_core/methods/` by "
        "`python -m mats_core methods --markdown`; a test compares the two.",
    ]
    for name, method in METHODS.items():
        lines += [
            "",
            f"## `{name}`: {method.title}",
            "",
            method.summary,
            "",
            f"$${method.formula}$$",
            "",
            f"Needs {_needs(method.group)}. Task weights: "
            f"{_weights(method)}. "
            f"Source: {method.source}.",
        ]
        fields = describe(name)
        if fields:
            lines += ["", "| option | default | values | meaning | why this default |"]
            lines += ["| --- | --- | --- | --- | --- |"]
            lines += [
                f"| `{f.name}` | `{_plain(f.default)}` | {bounds(f)} | {f.help} | {f.source} |"
                for f in fields
            ]
    return "\n".join(lines) + "\n"


def _weights(method: Method) -> str:
    if method.weighted:
        return "used"
    alike = "not used, tasks are treated alike"
    return alike if method.experts is None else f"not used; exactly {method.experts} experts"


def _needs(group: str) -> str:
    return {
        "weights": "nothing but the experts' weights",
        "task vectors": "the base and the experts",
        "statistics": "the experts' statistics (`measure`)",
    }[group]


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
