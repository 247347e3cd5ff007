"""Whether a merge finds the memory and the disk that it needs, and what would fit if not."""

from __future__ import annotations

from typing import Any

from ..checkpoints import partial_of
from ..errors import InputError, size
from ..merging import output_specs
from ..methods import METHODS, SIMPLEST
from ..recipes import prepare
from ..system import memory as machine_memory
from .merge_cost import Estimate, chosen, estimate_plan

RESERVE = 0.9  # share of the free memory that a merge may take
DISK_RESERVE = 16 * 2**20  # bytes for what lies beside the weights, and the file system's own


def shortage(found: Estimate) -> tuple[str, int, int] | None:
    """(whose memory, needed, available) if the merge cannot fit; None if it can, or if unknown."""
    places = (
        ("memory", found.memory_bytes, machine_memory.available_memory()),
        (f"memory of the {found.device} device", found.device_bytes,
         machine_memory.device_memory(found.device)),
    )  # fmt: skip
    for name, needed, free in places:
        if free is not None and needed > RESERVE * free:
            return name, needed, free
    return None


def fits(found: Estimate) -> bool:
    """Whether the merge fits into memory."""
    return shortage(found) is None


def require(found: Estimate) -> None:
    """Raise `InputError` with what is needed, available and would fit, if a merge does not fit."""
    _require_disk(found)
    missing = shortage(found)
    if missing is None:
        return
    name, needed, free = missing
    part = max(found.memory, key=lambda name: found.memory[name])
    part = f"layer '{found.largest}' of all experts" if part == "largest layer" else part
    raise InputError(
        f"{name} for '{found.method}' with {len(found.recipe.experts)} experts",
        expected=f"{size(needed)} (the largest part: {part})",
        found=f"{size(free)} free",
        remedy=_advice(found),
    )


def _require_disk(found: Estimate) -> None:
    recipe = found.recipe
    if not recipe.output:
        return
    target = recipe.path(recipe.output)
    free = machine_memory.free_disk(target)
    needed = found.disk_bytes + DISK_RESERVE
    if free is None or needed <= free + machine_memory.allocated(partial_of(target)):
        return
    ways = ["free some", "choose an output on another disk"]
    wide = [d for d, _ in output_specs(prepare(recipe, found.inputs)).values()]
    if recipe.output_dtype is None and any(d.itemsize > 2 for d in wide if d.is_floating_point):
        ways.append("write half as much with `output_dtype: bfloat16`")
    raise InputError(
        f"disk for '{target}'",
        expected=f"{size(needed)} for '{found.method}'",
        found=f"{size(free)} free",
        remedy=f"{ways[0].capitalize()}, {' or '.join(ways[1:])}.",
    )


def _advice(found: Estimate) -> str:
    """What would fit, each tried by an estimate of its own."""
    recipe, ways = found.recipe, []
    if recipe.dtype == "float64" and _would_fit(found, dtype="float32"):
        ways.append("choose float32 arithmetic")
    fixed = METHODS[recipe.method].experts is not None
    counts = range(0 if fixed else len(recipe.experts) - 1, 0, -1)
    fewer = next((n for n in counts if _would_fit(found, experts=recipe.experts[:n])), 0)
    if fewer:
        ways.append(f"merge at most {fewer} expert{'s' if fewer > 1 else ''}")
    if recipe.rounds > 1 and _would_fit(found, rounds=1):
        ways.append("merge in one round")
    if not recipe.output and _would_fit(found, output="merged", evaluate=False):
        ways.append(
            "write the model to disk without a test, which holds one layer at a time "
            "(`python -m mats_core merge recipe.yaml --output FOLDER --no-evaluate`)"
        )
    simplest = {"method": SIMPLEST, "options": {}, "search": None, "rounds": 1}
    if recipe.method != SIMPLEST and _would_fit(found, **simplest):
        title = METHODS[SIMPLEST].title.lower()
        ways.append(f"choose a method that needs no statistics, such as the {title}")
    if not ways:
        return "Free some memory, or run this on a machine that has more."
    return f"{ways[0][:1].upper()}{'; or '.join(ways)[1:]}."


def _would_fit(found: Estimate, **changes: Any) -> bool:
    recipe = found.recipe.model_copy(update=changes)
    plan = prepare(recipe, chosen(found.inputs, recipe))
    return fits(estimate_plan(plan, examples=found.examples, speeds=found.speeds))
