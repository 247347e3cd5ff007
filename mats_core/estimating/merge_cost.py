"""What a merge will cost, before it is run: memory, time, and what happens to each tensor.

`estimate(inputs, recipe)` reads shapes only.  Work is counted method by method (`costs.py`) and
divided by speeds that were measured on this machine (`machine.py`).  `require` refuses a merge that
cannot fit, and says what would.

Memory is the peak beyond what the process holds already: the merged model (where it stays in
memory), what is remembered for the next merge, and the largest of these moments: the largest layer
with every expert, its statistics and the method's copies; the test of the merged model; and with
`rounds` the measuring at a merge, whose statistics are held from then on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..checkpoints import partial_of
from ..errors import InputError
from ..merging import Inputs, Job, Recipe, Unit, output_specs, pieces, prepare, rounds, units
from ..methods import COSTS, METHODS, Cost, Shape, Treatment, passes, selection, times, together
from ..names import is_matrix, is_weight, module_of
from ..statistics import Statistics
from ..system import CALL, OPENING, Rates, Work
from ..system import memory as machine_memory
from ..system import speeds as machine
from .forward import measuring, statistics_bytes, testing

IN_FACTORS = ("regmean", "kfac", "essential")  # methods that take Grams so; others multiply out
DISK = 300e6  # bytes a second of a slow SSD; measuring it would mean writing
RESERVE = 0.9  # share of the free memory that a merge may take
DISK_RESERVE = 16 * 2**20  # bytes for what lies beside the weights, and the file system's own

WORKSPACE = 8 * 2**20  # bytes of slack in the libraries and the allocator, as measured


@dataclass(frozen=True)
class Estimate:
    """What one merge will cost.

    memory_bytes   peak of the system's memory, beyond what is held now
    device_bytes   peak of the GPU's own memory; 0 on a CPU
    disk_bytes     what is written, with what lies beside it meanwhile
    seconds        on this machine as busy as when its speeds were measured, nothing remembered
    flops          floating-point operations of products and decompositions
    parts          seconds of merging, measuring again, testing, writing
    memory         bytes of what makes the peak: merged model, remembered, largest layer, testing,
                   measuring, statistics of the merge
    largest        the layer that needs most
    coverage       tensors by treatment; the counts add up to the checkpoint
    """

    method: str
    device: str
    memory_bytes: int
    device_bytes: int
    disk_bytes: int
    seconds: float
    flops: float
    parts: Mapping[str, float]
    memory: Mapping[str, int]
    largest: str
    coverage: Mapping[Treatment, int]
    plan: Plan = field(repr=False, compare=False)

    @property
    def sentence(self) -> str:
        """What to expect, in a few words for a page."""
        return f"About {duration(self.seconds)} and {size(self.memory_bytes)} of memory"

    @property
    def measuring_share(self) -> float:
        """How long measuring again takes, in units of one round's merging."""
        rounds = self.plan.recipe.rounds
        if rounds == 1 or not self.parts["merging"]:
            return 1.0
        return self.parts["measuring"] / (rounds - 1) / (self.parts["merging"] / rounds)


@dataclass(frozen=True)
class Plan:
    """What an estimate is of."""

    inputs: Inputs
    recipe: Recipe
    examples: Mapping[str, int]
    speeds: Rates


def estimate(
    inputs: Inputs,
    recipe: Recipe,
    *,
    examples: Mapping[str, int] | None = None,
    speeds: Rates | None = None,
) -> Estimate:
    """The cost of `run(recipe, inputs=inputs)`, from shapes alone.

    `examples`: how many there are to test on, by expert.  The experts' own accuracies are taken as
    known, as they are once a family is open in the app.  `speeds`: `machine.rates` of the recipe's
    device, which are measured now if they never were.  Raises `InputError` as `prepare` does.
    """
    inputs = _chosen(inputs, recipe)
    rounds.require(recipe, inputs)
    job = prepare(recipe, inputs)
    speeds = speeds or machine.rates(job.device)
    return _estimate(job, Plan(inputs, recipe, dict(examples or {}), speeds))


def _chosen(inputs: Inputs, recipe: Recipe) -> Inputs:
    """The inputs of the recipe's experts only, where more were opened."""
    names = {entry.name for entry in recipe.experts}
    experts = inputs.family.experts
    if len(names) == len(experts):
        return inputs
    kept = [index for index, expert in enumerate(experts) if expert.name in names]
    return replace(
        inputs,
        family=replace(inputs.family, experts=tuple(experts[index] for index in kept)),
        statistics=tuple(inputs.statistics[index] for index in kept),
    )


def _estimate(job: Job, plan: Plan) -> Estimate:
    layers = _Layers(job.of_vectors())
    layers.fold(job)
    output = sum(_bytes(shape, dtype.itemsize) for dtype, shape in output_specs(job).values())
    written = output if job.recipe.output else 0
    searched = (job.recipe.search or {}).values()
    merges = 1 + math.prod(len(values) for values in searched) if searched else 1
    tested = testing(job, plan.examples)
    again = job.recipe.rounds - 1
    measured = measuring(job) if again else Cost("merged")
    parts = {
        "merging": merges * (1 + again) * plan.speeds.seconds(layers.work),
        "measuring": merges * again * plan.speeds.seconds(measured.work),
        "testing": merges * plan.speeds.seconds(tested.work),
        "writing": written / DISK,
    }
    peak, device = _memory(job, layers, tested.nbytes, measured.nbytes, output)
    flops = (1 + again) * machine.flops(layers.work) + again * machine.flops(measured.work)
    return Estimate(
        method=job.method.name,
        device=job.device,
        memory_bytes=round(sum(peak.values())),
        device_bytes=device,
        disk_bytes=written + _heads(job) + round(layers.spool) if written else 0,
        seconds=sum(parts.values()),
        flops=merges * (flops + machine.flops(tested.work)),
        parts=parts,
        memory={name: round(value) for name, value in peak.items()},
        largest=layers.largest,
        coverage=layers.coverage,
        plan=plan,
    )


def _heads(job: Job) -> int:
    family = job.inputs.family
    return sum(
        expert.checkpoint.tensors[name].nbytes
        for expert in family.experts
        for name in family.head_of(expert)
    )


def _bytes(shape: tuple[int, ...], width: int) -> int:
    return math.prod(shape) * width


# Layers -------------------------------------------------------------------------------------------


class _Layers:
    """All layers of a job: their work, the largest one, and what becomes of each tensor.

    Layers of one shape cost the same and are counted together, which keeps this fast.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.work: Work = Counter()
        self.peak, self.largest = 0.0, ""
        self.kept, self.spool, self.wider = 0.0, 0.0, 0.0
        self.coverage = _untouched(job)
        like: dict[Shape, list[Unit]] = {}
        for unit in units(job):
            like.setdefault(shape_of(job, unit), []).append(unit)
        # As in `read_layer`: what is remembered is read once, whoever asks for it.
        self.held = {shape: _inputs_bytes(job, shape) for shape in like}
        everything = sum(self.held[shape] * len(alike) for shape, alike in like.items())
        again = everything > job.inputs.memo.limit
        for shape, alike in like.items():
            self._add(shape, alike, again)

    def _add(self, shape: Shape, alike: list[Unit], again: bool) -> None:
        held, count, cost = self.held[shape], len(alike), self._cost(shape)
        work = together(cost.work, _reading(self.job, shape, alike[0]), _finishing(self.job, shape))
        if self.job.method.surveys(self.job.options) == "model":
            sweeps = 4 if shape.width == 8 else 2
            once = together(shape.passes(3 * shape.experts), Counter({(CALL,): 20.0}))
            reading = _reading(self.job, replace(shape, measured=frozenset()), alike[0])
            each = together(once, reading) if again else once
            work = together(work, times(each, sweeps), selection(shape))
        self.work.update(times(work, count))
        at_once = layer_bytes(self.job, alike[0])
        if at_once > self.peak:
            self.peak, self.largest = at_once, alike[0].name
        # Beside its inputs a method remembers about one update a task.
        self.kept += count * (held + shape.experts * shape.nbytes * (cost.treatment == "merged"))
        spooled = self.job.method.rescale is not None and cost.treatment == "merged"
        self.spool += count * shape.nbytes * spooled
        stored = self.job.inputs.family.base.tensors[alike[0].name].dtype.itemsize
        self.wider += count * shape.elements * (shape.width - stored) * spooled
        self.coverage[cost.treatment] += sum(1 + (unit.bias is not None) for unit in alike)

    def fold(self, job: Job) -> None:
        """Where vectors are merged: every tensor of the base is read, scaled and written."""
        vectors = job.inputs.vectors
        if vectors is None:
            return
        for treatment, count in _untouched(job).items():
            self.coverage[treatment] += count
        for name in job.inputs.family.shared:
            if name in vectors.family.base.tensors:
                continue
            self.coverage["merged" if vectors.scaling(name) else "copied"] += 1
            size = 2 * _bytes(job.inputs.family.shape(name), job.dtype.itemsize)
            if size > self.peak:
                self.peak, self.largest = size, name

    def _cost(self, shape: Shape) -> Cost:
        return COSTS[self.job.method.name](shape, self.job.options)


def layer_bytes(job: Job, unit: Unit) -> float:
    """Bytes that merging one layer, or a piece of it where it comes in pieces, takes."""
    shape, spans = shape_of(job, unit), pieces(job, unit)
    if spans:
        start, stop = spans[0]
        shape = replace(shape, size=(stop - start,), is_matrix=False, measured=frozenset())
    ahead = len(spans[:2]) or 1  # the next piece is read while one is merged
    return ahead * _inputs_bytes(job, shape) + COSTS[job.method.name](shape, job.options).nbytes


def _untouched(job: Job) -> dict[Treatment, int]:
    roles = Counter(job.inputs.family.roles.values())
    return {
        "merged": 0,
        "averaged": 0,
        "head": roles["head"],
        "copied": roles["copied"],
        "tied": roles["tied"],
    }


def shape_of(job: Job, unit: Unit) -> Shape:
    """How a method will find a layer; the rules of `layers.read_layer`."""
    family = job.inputs.family
    own = family.shape(unit.name)
    module = module_of(unit.name)
    statistics = [s for s in job.inputs.statistics if s is not None]
    square = len(own) == 2 and is_weight(unit.name)
    everywhere = len(statistics) == len(family.experts)
    names = {"fisher": f"{unit.name}.fisher", "block": f"{unit.name}.block"}
    if square:
        kinds = ("input_gram", "input_mean", "output_gradient_gram")
        names |= {kind: f"{module}.{kind}" for kind in kinds}
    measured = frozenset(
        kind
        for kind, name in names.items()
        if kind in job.kinds and everywhere and all(name in s for s in statistics)
    )
    base = job.inputs.base_statistics
    gram = square and any(f"{module}.input_gram" in s for s in statistics)
    ranks = (0, 0)
    if square and not unit.bias and everywhere and job.method.name in IN_FACTORS:
        ranks = (
            _rows(statistics, f"{module}.input"),
            _rows(statistics, f"{module}.output_gradient"),
        )
    return Shape(
        ranks=ranks,
        size=(own[0], own[1] + 1) if unit.bias else own,
        experts=len(family.experts),
        dtype=job.recipe.dtype,
        is_matrix=is_matrix(unit.name, own) or gram,
        measured=measured,
        prior=base is not None and names["fisher"] in base.shapes and "fisher" in job.kinds,
    )


def _rows(statistics: list[Statistics], gram: str) -> int:
    """The most rows that a Gram has in factors; 0 where any expert's is a matrix."""
    rows = [s.shapes.get(f"{gram}_factor", (0,))[0] for s in statistics]
    return max(rows) if all(rows) else 0


def _statistics_sizes(shape: Shape) -> Iterator[tuple[int, int]]:
    """(elements, how many) of each kind of statistics of a layer."""
    n = shape.elements
    sizes = {"fisher": n, "block": n * n}
    if len(shape.size) == 2:
        rows, columns = shape.size
        grams = {"input_gram": columns**2, "output_gradient_gram": rows**2, "input_mean": columns}
        if shape.ranks[0]:
            grams["input_gram"] = shape.ranks[0] * columns
        if shape.ranks[1]:
            grams["output_gradient_gram"] = shape.ranks[1] * rows
        sizes |= grams
    for kind in shape.measured:
        yield sizes[kind], shape.experts
    if shape.prior:
        yield n, 1


def _inputs_bytes(job: Job, shape: Shape) -> float:
    statistics = sum(elements * count for elements, count in _statistics_sizes(shape))
    return (shape.experts + 1) * shape.nbytes + statistics * shape.width


def _reading(job: Job, shape: Shape, unit: Unit) -> Work:
    """Every tensor and statistic of a layer: read, converted, and (statistics) checked."""
    stored = job.inputs.family.base.tensors[unit.name].dtype.itemsize
    files = shape.experts + 1
    parts = [
        Counter({(OPENING,): float(files), (CALL,): 25.0 * files}),
        passes(shape.elements * stored, 3.0 * files),
        shape.passes(files),
    ]
    for elements, count in _statistics_sizes(shape):
        parts += [
            Counter({(OPENING,): float(count), (CALL,): 40.0 * count}),
            passes(4 * elements, 10.0 * count),  # into fresh memory, page by page
        ]
    return together(*parts)


def _finishing(job: Job, shape: Shape) -> Work:
    """Check and keep what came out; a second pass scales it once more."""
    again = 7 if job.method.rescale else 0
    return together(shape.passes(4 + again), Counter({(CALL,): 30.0}))


# Memory -------------------------------------------------------------------------------------------


def _memory(
    job: Job, layers: _Layers, testing: float, measuring: float, output: int
) -> tuple[dict[str, float], int]:
    """Bytes of the parts of the peak, and those on a GPU of its own."""
    to_disk, tested = bool(job.recipe.output), testing > 0
    remembered = min(layers.kept, max(0, job.inputs.memo.limit - job.inputs.memo.used))
    own = job.device == "cuda"
    layer, on_device = (0.0, layers.peak) if own else (layers.peak, 0.0)
    on_device = max(on_device, measuring if own else 0.0)
    testing, test_device = (0.0, testing) if own else (testing, 0.0)
    # A search merges in memory, whatever becomes of the best one; what waits for a second pass has
    # the width of the arithmetic.
    searched = bool(job.recipe.search)
    kept = 0.0 if to_disk and not searched else output + max(0.0, layers.wider)
    merging = {"merged model": kept, "largest layer": layer}
    # What was written is read again to be tested.
    held = tested or searched or not to_disk
    asking = {"merged model": float(output if held else 0), "testing": testing}
    moments = [merging, asking]
    if job.recipe.rounds > 1:
        held = float(statistics_bytes(job))  # those of the last round, until the end
        merging["statistics of the merge"] = asking["statistics of the merge"] = held
        # A third round measures while those of the second are still there.
        sets = 1 if job.recipe.rounds == 2 else 2
        moments.append(
            {
                "merged model": float(output),
                "statistics of the merge": sets * held,
                "measuring": 0.0 if own else measuring,
            }
        )
    peak = max(moments, key=lambda parts: sum(parts.values()))
    place = remembered if own else 0.0
    found = {**peak, "workspace": float(WORKSPACE)}
    if remembered and not own:
        found["remembered"] = remembered
    return found, round(place + max(on_device, test_device + (output if own else 0)))


# Whether it fits ----------------------------------------------------------------------------------


def shortage(found: Estimate) -> tuple[str, int, int] | None:
    """(whose memory, needed, available) if the merge cannot fit; None if it can or nobody knows."""
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
    """Whether the merge finds the memory that it needs."""
    return shortage(found) is None


def require(found: Estimate) -> None:
    """Raise `InputError` with what is needed, what there is and what would fit, if it does not."""
    _require_disk(found)
    missing = shortage(found)
    if missing is None:
        return
    name, needed, free = missing
    raise InputError(
        f"{name} for '{found.method}' with {len(found.plan.recipe.experts)} experts",
        expected=f"{size(needed)} (the largest part: {_largest_part(found)})",
        found=f"{size(free)} free",
        remedy=_advice(found.plan),
    )


def _require_disk(found: Estimate) -> None:
    recipe = found.plan.recipe
    if not recipe.output:
        return
    target = recipe.path(recipe.output)
    free = machine_memory.free_disk(target)
    needed = found.disk_bytes + DISK_RESERVE
    if free is None or needed <= free + machine_memory.allocated(partial_of(target)):
        return
    ways = ["free some", "choose an output on another disk"]
    wide = [d for d, _ in output_specs(prepare(recipe, found.plan.inputs)).values()]
    if recipe.output_dtype is None and any(d.itemsize > 2 for d in wide if d.is_floating_point):
        ways.append("write half as much with `output_dtype: bfloat16`")
    raise InputError(
        f"disk for '{target}'",
        expected=f"{size(needed)} for '{found.method}'",
        found=f"{size(free)} free",
        remedy=f"{ways[0].capitalize()}, {' or '.join(ways[1:])}.",
    )


def _largest_part(found: Estimate) -> str:
    name = max(found.memory, key=lambda part: found.memory[part])
    return f"layer '{found.largest}' of all experts" if name == "largest layer" else name


def _advice(plan: Plan) -> str:
    """What would fit, each tried by an estimate of its own."""
    recipe, ways = plan.recipe, []
    if recipe.dtype == "float64" and _would_fit(plan, dtype="float32"):
        ways.append("choose float32 arithmetic")
    fixed = METHODS[recipe.method].experts is not None
    fewer = next(
        (
            count
            for count in range(0 if fixed else len(recipe.experts) - 1, 0, -1)
            if _would_fit(plan, experts=recipe.experts[:count])
        ),
        0,
    )
    if fewer:
        ways.append(f"merge at most {fewer} expert{'s' if fewer > 1 else ''}")
    if recipe.rounds > 1 and _would_fit(plan, rounds=1):
        ways.append("merge in one round")
    if not recipe.output and _would_fit(plan, output="merged", evaluate=False):
        ways.append(
            "write the model to disk without a test, which holds one layer at a time "
            "(`python -m mats_core merge recipe.yaml --output FOLDER --no-evaluate`)"
        )
    if recipe.method != "average" and _would_fit(
        plan, method="average", options={}, search=None, rounds=1
    ):
        ways.append("choose a method that needs no statistics, such as the average")
    if not ways:
        return "Free some memory, or run this on a machine that has more."
    return f"{ways[0][:1].upper()}{'; or '.join(ways)[1:]}."


def _would_fit(plan: Plan, **changes: Any) -> bool:
    recipe = plan.recipe.model_copy(update=changes)
    inputs = _chosen(plan.inputs, recipe)
    return fits(_estimate(prepare(recipe, inputs), replace(plan, inputs=inputs, recipe=recipe)))


# Words --------------------------------------------------------------------------------------------


def size(nbytes: float) -> str:
    """`120 MB`, `1.5 GB`: two digits where there are two."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if nbytes >= scale:
            value = nbytes / scale
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{nbytes / 1e3:.0f} kB" if nbytes >= 1e3 else f"{nbytes:.0f} bytes"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `2.5 h`."""
    if seconds < 0.1:
        return "0.1 s"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
