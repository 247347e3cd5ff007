"""What a merge will cost, before it is run: memory, time, and what happens to each tensor.

`estimate(inputs, recipe)` reads shapes only.  Work is counted method by method (`Method.cost`) and
divided by three rates that were measured on this machine (`system.speeds`).  `require` refuses a
merge that cannot fit, and says what would.

Memory is the peak beyond what the process holds already: the merged model (where it stays in
memory), what is remembered for the next merge, and the largest of these moments: the largest layer
with every expert, its statistics and the method's copies; the test of the merged model; and with
`rounds` the measuring at a merge, whose statistics are held from then on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..checkpoints import companions
from ..errors import duration, size
from ..merging import (
    bytes_at_once,
    cost_of,
    gram_sides,
    inputs_bytes,
    lora_bytes,
    most_bytes,
    output_specs,
    planned,
    shape_of,
    statistics_sizes,
    together,
)
from ..methods import Cost, Shape, Treatment, calls, passes, selection
from ..recipes import Inputs, Plan, Recipe, Unit, units
from ..system import Rates, Shown, Work, remembered
from ..system import speeds as machine
from .forward import (
    branching,
    calibrating,
    factoring,
    measuring,
    refining,
    statistics_bytes,
    testing,
)

DISK = 300e6  # bytes a second of a slow SSD; measuring it would mean writing

WORKSPACE = 8 * 2**20  # bytes of slack in the libraries and the allocator, as measured


@dataclass(frozen=True, repr=False)
class Estimate(Shown):
    """The cost of one merge, in advance.

    method         of the recipe
    device         that it will run on
    memory_bytes   peak of the system's memory, beyond what is held now
    device_bytes   peak of the GPU's own memory; 0 on a CPU
    disk_bytes     what is written, with what lies beside it meanwhile
    seconds        on this machine as busy as when its speeds were measured, nothing remembered
    flops          floating-point operations of products and decompositions
    parts          seconds of merging, measuring again, testing, writing, refining, branching,
                   factoring
    memory         bytes of what makes the peak: merged model, remembered, largest layer, testing,
                   measuring, statistics of the merge, refining, branching, factoring
    size           of the model at most, branches included, as a multiple of the merge
    held           bytes that the process remembers now (`MATS_REMEMBER`), beside that peak
    largest        the layer that needs most
    coverage       tensors by treatment; the counts add up to the checkpoint
    inputs         opened files
    recipe         of the merge
    examples       expert → number of examples to test on
    speeds         of the device
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
    size: float
    held: int
    largest: str
    coverage: Mapping[Treatment, int]
    inputs: Inputs = field(repr=False, compare=False)
    recipe: Recipe = field(repr=False, compare=False)
    examples: Mapping[str, int] = field(repr=False, compare=False)
    speeds: Rates = field(repr=False, compare=False)

    def __repr__(self) -> str:
        return f"Estimate({self.method} on {self.device}: {self.sentence})"

    @property
    def sentence(self) -> str:
        """Time and memory in a few words, for a page."""
        return f"About {duration(self.seconds)} and {size(self.memory_bytes)} of memory"

    @property
    def measuring_share(self) -> float:
        """The time of measuring again, as a multiple of the merging of one round."""
        rounds = self.recipe.rounds
        if rounds == 1 or not self.parts["merging"]:
            return 1.0
        return self.share_of("measuring") / (rounds - 1)

    def share_of(self, part: str) -> float:
        """The time of a part of `parts`, as a multiple of the merging of one round; 0 where that
        takes none."""
        merging = self.parts["merging"] / self.recipe.rounds
        return self.parts[part] / merging if merging else 0.0


def estimate(
    inputs: Inputs,
    recipe: Recipe,
    *,
    examples: Mapping[str, int] | None = None,
    speeds: Rates | None = None,
) -> Estimate:
    """The cost of `run(recipe, inputs=inputs)`, from shapes alone.

    `examples`: the number to test on, by expert.  The accuracies of the experts are taken as known,
    as they are once a family is open in the app.  `speeds`: `system.speeds.rates` of the recipe's
    device, which are measured now if they never were.  Raises `InputError` as `prepare` does.
    """
    plan = planned(recipe, chosen(inputs, recipe))
    return estimate_plan(plan, examples=examples, speeds=speeds)


def chosen(inputs: Inputs, recipe: Recipe) -> Inputs:
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


def estimate_plan(
    plan: Plan, *, examples: Mapping[str, int] | None = None, speeds: Rates | None = None
) -> Estimate:
    """The cost of `run_plan(plan)`; the arguments are those of `estimate`."""
    speeds = speeds or machine.rates(plan.device)
    examples = dict(examples or {})
    layers = _Layers(plan)
    output = sum(math.prod(shape) * dtype.itemsize for dtype, shape in output_specs(plan).values())
    branches = most_bytes(plan)
    # Of a LoRA the whole merge lies beside it until it is complete.
    written = output + branches + lora_bytes(plan) if plan.recipe.output else 0
    # The pieces that a stopped merge goes on from, beside the branches or beside an adapter; where
    # the latter lies the whole merge does not any more.
    kept = branches + max(0, lora_bytes(plan) - output)
    searched = (plan.recipe.search or {}).values()
    merges = 1 + math.prod(len(values) for values in searched) if searched else 1
    tested = testing(plan, examples)
    again = plan.recipe.rounds - 1
    measured = measuring(plan) if again else Cost("merged")
    walked, trained, branched = calibrating(plan), refining(plan), branching(plan)
    cut = factoring(plan)
    parts = {
        "merging": merges * (1 + again) * speeds.seconds(layers.work + walked.work),
        "measuring": merges * again * speeds.seconds(measured.work),
        "testing": merges * speeds.seconds(tested.work),
        "writing": written / DISK,
        "refining": speeds.seconds(trained.work),
        "branching": speeds.seconds(branched.work),
        "factoring": speeds.seconds(cut.work),
    }
    needs = {
        "testing": tested.nbytes,
        "measuring": measured.nbytes,
        "walking": walked.nbytes,
        "refining": trained.nbytes,
        "branching": branched.nbytes,
        "factoring": cut.nbytes,
    }
    peak, device = _memory(plan, layers, needs, output)
    peak["merged model"] += branches
    flops = (1 + again) * (layers.work + walked.work).flops + again * measured.work.flops
    return Estimate(
        method=plan.method.name,
        device=plan.device,
        memory_bytes=round(sum(peak.values())),
        device_bytes=device,
        disk_bytes=(
            written + kept + _beside(plan) + round(layers.spool + layers.sums) + _of_rounds(plan)
            if written
            else 0
        ),
        seconds=sum(parts.values()),
        flops=merges * (flops + tested.work.flops)
        + trained.work.flops
        + branched.work.flops
        + cut.work.flops,
        parts=parts,
        memory={name: round(value) for name, value in peak.items()},
        size=1 + branches / output,
        held=remembered(),
        largest=layers.largest,
        coverage=layers.coverage,
        inputs=plan.inputs,
        recipe=plan.recipe,
        examples=examples,
        speeds=speeds,
    )


def _of_rounds(plan: Plan) -> int:
    """Bytes of the statistics that rounds measure, which are kept until the merge is done."""
    own = [one for one in plan.inputs.statistics if one is not None]
    elements = sum(math.prod(shape) for one in own for shape in one.shapes.values())
    return 4 * elements * (plan.recipe.rounds - 1)


def _beside(plan: Plan) -> int:
    """Bytes of what is written beside the weights: the experts' heads, and the base's files."""
    family = plan.inputs.family
    heads = ((expert, name) for expert in family.experts for name in family.head_of(expert))
    kept = sum(expert.checkpoint.tensors[name].nbytes for expert, name in heads)
    return kept + companions(family.base).nbytes


# Layers -------------------------------------------------------------------------------------------


# What layers have in common that cost the same: shape, whether it is a running statistic, rules.
_Alike = tuple[Shape, bool, tuple[int, ...]]


class _Layers:
    """All layers of a plan: their work, the largest one, and what becomes of each tensor.

    Layers of one shape cost the same and are counted together, which keeps this fast.
    """

    def __init__(self, whole: Plan) -> None:
        self.plan = plan = whole.of_vectors()
        self.work = Work()
        self.peak, self.largest = 0.0, ""
        self.kept, self.spool, self.wider, self.sums = 0.0, 0.0, 0.0, 0.0
        self.coverage = _untouched(plan)
        like: dict[_Alike, list[Unit]] = {}
        for unit in units(plan):
            running, own = unit.name in plan.inputs.family.running, plan.local.get(unit.name)
            rules = own.rules if own is not None else ()
            like.setdefault((shape_of(plan, unit), running, rules), []).append(unit)
        # As in `read_layer`: what is remembered is read once, whoever asks for it.
        self.held = {shape: inputs_bytes(plan, shape) for shape, *_ in like}
        everything = sum(self.held[shape] * len(alike) for (shape, *_), alike in like.items())
        again = everything > plan.inputs.memo.limit
        self.at_once = together(plan, (alike[0] for alike in like.values()))
        for (shape, *_), alike in like.items():
            self._add(shape, alike, again)
        self._fold(whole)

    def _add(self, shape: Shape, alike: list[Unit], again: bool) -> None:
        held, count = self.held[shape], len(alike)
        cost = cost_of(self.plan, alike[0], shape)
        work = cost.work + _reading(self.plan, shape, alike[0])
        # What came out is checked and kept; a second pass scales it once more.
        work += shape.passes(4 + (7 if self.plan.method.rescale else 0)) + calls(30.0)
        if self.plan.method.surveys(self.plan.options) == "model":
            sweeps = 4 if shape.width == 8 else 2
            once = shape.passes(3 * shape.experts) + calls(20.0)
            reading = _reading(self.plan, replace(shape, measured=frozenset()), alike[0])
            work += (once + reading if again else once) * sweeps + selection(shape)
        self.work += work * count
        nbytes = bytes_at_once(self.plan, alike[0], self.at_once)
        if nbytes > self.peak:
            self.peak, self.largest = nbytes, alike[0].name
        # Beside its inputs a method remembers about one update a task.
        read = 0 if self.plan.inputs.in_memory else held  # what was given is read where it lies
        self.kept += count * (read + shape.experts * shape.nbytes * (cost.treatment == "merged"))
        spooled = self.plan.method.rescale is not None and cost.treatment == "merged"
        self.spool += count * shape.nbytes * spooled
        if self.plan.recipe.keep_sums and self.plan.method.sums is not None:
            kept = self.plan.method.sums.elements(shape, self.plan.options)
            self.sums += count * kept * shape.width
        stored = self.plan.inputs.family.base.tensors[alike[0].name].dtype.itemsize
        self.wider += count * shape.elements * (shape.width - stored) * spooled
        self.coverage[cost.treatment] += sum(1 + (unit.bias is not None) for unit in alike)

    def _fold(self, plan: Plan) -> None:
        """Where vectors are merged: every tensor of the base is read, scaled and written."""
        vectors = plan.inputs.vectors
        if vectors is None:
            return
        for treatment, count in _untouched(plan).items():
            self.coverage[treatment] += count
        for name in plan.inputs.family.shared:
            if name in vectors.family.base.tensors:
                continue
            self.coverage["merged" if vectors.scaling(name) else "copied"] += 1
            size = 2 * math.prod(plan.inputs.family.shape(name)) * plan.dtype.itemsize
            if size > self.peak:
                self.peak, self.largest = size, name


def _untouched(plan: Plan) -> dict[Treatment, int]:
    roles = Counter(plan.inputs.family.roles.values())
    return {
        "merged": 0,
        "averaged": 0,
        "head": roles["head"],
        "copied": roles["copied"],
        "tied": roles["tied"],
    }


def _reading(plan: Plan, shape: Shape, unit: Unit) -> Work:
    """Every tensor and statistic of a layer: read, converted, and (statistics) checked."""
    stored = plan.inputs.family.base.tensors[unit.name].dtype.itemsize
    files = shape.experts + 1
    work = passes(shape.elements * stored, 3.0 * files) + shape.passes(files) + calls(31.0 * files)
    for elements, count in statistics_sizes(shape):
        # Into fresh memory, page by page.
        work += passes(4 * elements, 10.0 * count) + calls(46.0 * count)
    for side, count in gram_sides(shape):
        # That it is positive semi-definite is seen by a Cholesky factorisation.
        work += Work(products=count * side**3 / 3)
    return work


# Memory -------------------------------------------------------------------------------------------


def _memory(
    plan: Plan, layers: _Layers, needs: Mapping[str, float], output: int
) -> tuple[dict[str, float], int]:
    """Bytes of the parts of the peak, and those on a GPU of its own."""
    testing, measuring, walking = needs["testing"], needs["measuring"], needs["walking"]
    to_disk, tested = bool(plan.recipe.output), testing > 0
    room = max(0, plan.inputs.memo.limit - plan.inputs.memo.used)
    kept_for_next = min(layers.kept, room)
    # With a GPU, layers and batches are in its memory and not in the system's.
    own = plan.device == "cuda"
    here = 0.0 if own else 1.0
    # A search merges in memory, whatever becomes of the best one; what waits for a second pass has
    # the width of the arithmetic.
    searched = bool(plan.recipe.search)
    kept = 0.0 if to_disk and not searched else output + max(0.0, layers.wider)
    merging = {"merged model": kept, "largest layer": here * layers.peak}
    if walking:
        merging |= {"merged model": float(output), "measuring": here * walking}
    # What was written is read again to be tested.
    held = tested or searched or not to_disk
    asking = {"merged model": float(output if held else 0), "testing": here * testing}
    moments = [merging, asking]
    for after in ("refining", "branching", "factoring"):
        if needs[after]:
            moments.append({"merged model": float(output), after: here * needs[after]})
    if plan.recipe.rounds > 1:
        held = float(statistics_bytes(plan))  # those of the last round, until the end
        merging["statistics of the merge"] = asking["statistics of the merge"] = held
        # A third round measures while those of the second are still there.
        sets = 1 if plan.recipe.rounds == 2 else 2
        again = {"merged model": float(output), "statistics of the merge": sets * held}
        moments.append({**again, "measuring": here * measuring})
    peak = max(moments, key=lambda parts: sum(parts.values()))
    found = {**peak, "workspace": float(WORKSPACE)}
    if own:
        after = max(needs["refining"], needs["branching"], needs["factoring"])
        most = max(layers.peak + walking, measuring, testing + output, after)
        return found, round(kept_for_next + most)
    if kept_for_next:
        found["remembered"] = kept_for_next
    return found, 0
