"""The lines of Python that give a panel's result again."""

from __future__ import annotations

import pprint
from pathlib import Path
from typing import Any

from ..methods import METHODS, describe
from ..recipes import TRIED, taking_part
from .subjects import Request

PLAIN = Request("", (), ())  # what needs no words


def lines(request: Request, folder: Path | None, names: tuple[str, ...], *, reads: bool) -> str:
    """Python that merges what a request asks for.

    folder   of the family; None: models in memory, which the cell calls `base`, `experts` and
             `loaders`
    names    all experts that there are
    reads    whether the method reads statistics
    """
    fields = describe(request.method, taking_part(request.experts, dict(request.weights)))
    defaults = {field.name: field.default for field in fields}
    changed = {name: value for name, value in request.options if value != defaults[name]}
    fewer = request.experts if request.experts != names else ()
    told = _told(request, reads=reads)
    if folder is None:
        before, imported = _before_models(fewer, reads=reads), ""
        words = ["base", "chosen" if fewer else "experts", repr(request.method), *told]
        words += [f"{name}={value!r}" for name, value in changed.items()]
        call = f"mats.merge_models({', '.join(words)})"
    else:
        before, imported = _before_family(folder, reads=reads)
        words = [repr(request.method), *([_literal(changed)] if changed else [])]
        words += [f"experts={fewer!r}"] if fewer else []
        words += [*told, f"evaluate={TRIED.model_dump(exclude_defaults=True)!r}"]
        call = f"mats.merge(family.recipe({', '.join(words)}))"
    return f"import mats_core as mats\n{imported}\n{before}merged = {call}\n"


def _told(request: Request, *, reads: bool) -> list[str]:
    """What families and models are told alike, where it is not so anyway."""
    # Where the method takes no weights, all are 1.
    weights = {name: value for name, value in request.weights if value != 1.0}
    words = ["statistics=statistics"] if reads else []
    words += [f"weights={weights!r}"] if weights else []
    for name in ("rounds", "device", "seed", "dtype"):
        value = getattr(request, name)
        words += [f"{name}={value!r}"] if value != getattr(PLAIN, name) else []
    words += [
        f"{name}={list(value)!r}" for name in ("after", "by") if (value := getattr(request, name))
    ]
    return words


def _before_family(folder: Path, *, reads: bool) -> tuple[str, str]:
    """The lines before the merge, and what they import."""
    opened = f"family = mats.load_family({str(folder)!r})\n"
    if not reads:
        return opened, ""
    measured = "statistics = measure_all(family, with_base=False)\n"
    return opened + measured, "from mats_core.recipes import measure_all\n"


def _before_models(fewer: tuple[str, ...], *, reads: bool) -> str:
    picked = f"chosen = {{name: experts[name] for name in {fewer!r}}}\n" if fewer else ""
    whose = "chosen" if fewer else "experts"
    measured = f"statistics = {{n: mats.measure(m, loaders[n]) for n, m in {whose}.items()}}\n"
    return picked + (measured if reads else "")


def _literal(value: Any) -> str:
    short = repr(value)
    return short if len(short) <= 60 else pprint.pformat(value, width=92, sort_dicts=False)


def reads_statistics(request: Request) -> bool:
    """Whether the method of a request reads statistics, with its options."""
    method = METHODS[request.method]
    try:
        options = method.options(**dict(request.options))
    except ValueError:  # options that are wrong are told by the merge itself
        return bool(method.requires(method.options()))
    return bool(method.reads(options))
