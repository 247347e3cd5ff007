"""The lines of Python that give a panel's result again."""

from __future__ import annotations

import pprint
from pathlib import Path
from typing import Any

from ..methods import METHODS, describe
from .subjects import Request


def lines(request: Request, folder: Path | None, names: tuple[str, ...], *, reads: bool) -> str:
    """Python that merges what a request asks for.

    folder   of the family; None: models in memory, which the cell calls `base`, `experts` and
             `loaders`
    names    all experts that there are
    reads    whether the method reads statistics
    """
    defaults = {field.name: field.default for field in describe(request.method)}
    changed = {name: value for name, value in request.options if value != defaults[name]}
    # Where the method takes no weights, all are 1.
    weights = {name: value for name, value in request.weights if value != 1.0}
    fewer = request.experts if request.experts != names else ()
    make = _of_models if folder is None else _of_family
    return "import mats_core as mats\n" + make(request, folder, changed, weights, fewer, reads)


def _of_family(
    request: Request,
    folder: Path | None,
    changed: dict[str, Any],
    weights: dict[str, float],
    fewer: tuple[str, ...],
    reads: bool,
) -> str:
    assert folder is not None
    words = [repr(request.method), *([_literal(changed)] if changed else [])]
    words += ["statistics=statistics"] if reads else []
    words += [f"experts={fewer!r}"] if fewer else []
    words += [f"weights={weights!r}"] if weights else []
    words += [f"rounds={request.rounds}"] if request.rounds > 1 else []
    words += [f"device={request.device!r}"] if request.device != "auto" else []
    measured = "statistics = measure_all(family, with_base=False)\n" if reads else ""
    imported = "from mats_core.merging import measure_all\n" if reads else ""
    return (
        f"{imported}\nfamily = mats.load_family({str(folder)!r})\n{measured}"
        f"merged = mats.merge(family.recipe({', '.join(words)}))\n"
    )


def _of_models(
    request: Request,
    folder: Path | None,
    changed: dict[str, Any],
    weights: dict[str, float],
    fewer: tuple[str, ...],
    reads: bool,
) -> str:
    chosen = f"{{name: experts[name] for name in {fewer!r}}}" if fewer else "experts"
    words = ["base", "chosen" if fewer else chosen, repr(request.method)]
    words += ["statistics=statistics"] if reads else []
    words += [f"weights={weights!r}"] if weights else []
    words += [f"device={request.device!r}"] if request.device != "auto" else []
    words += [f"{name}={value!r}" for name, value in changed.items()]
    whose = "chosen" if fewer else "experts"
    measured = f"statistics = {{n: mats.measure(m, loaders[n]) for n, m in {whose}.items()}}\n"
    picked = f"chosen = {chosen}\n" if fewer else ""
    return f"\n{picked}{measured if reads else ''}merged = mats.merge_models({', '.join(words)})\n"


def _literal(value: Any) -> str:
    short = repr(value)
    return short if len(short) <= 60 else pprint.pformat(value, width=92, sort_dicts=False)


def reads_statistics(request: Request) -> bool:
    """Whether the method of a request reads statistics, with its options."""
    method = METHODS[request.method]
    try:
        options = method.options(**dict(request.options))
    except ValueError:  # options that are wrong are told by the merge itself
        return bool(method.requires)
    return bool(method.requires or method.reads(options))
