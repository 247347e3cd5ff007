"""What passes of the merged model over examples cost: its test, and measuring statistics at it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..adapters import takes_factors
from ..evaluation import KEPT, ROUND
from ..merging import examples_of, lora_bytes, output_specs, streams_budget
from ..methods import (
    Cost,
    SequentialOptions,
    calls,
    operations,
    passes,
    svd_bytes,
    two_factors,
)
from ..models import BATCH
from ..recipes import Evaluation, Plan
from ..statistics import AT_ONCE, CHUNK_BYTES
from ..system import Work

EXAMPLES = 500  # of a task, where nobody says how many there are
TOKENS = 128  # of an example, where the configuration does not say
TYPICAL = 0.8  # accuracy, for the number of examples that an interval needs
MEASURED = 64  # examples of a batch that is measured
ACTIVATION = 5.0  # bytes that are moved in the time of one transcendental function
# Forward passes of a walk, of one model: with the outputs of the parts of a block kept, and without
# (0.2 + 0.5 + 0.6 + 1 + 1 of each block).
WALKED, AGAIN = 1.1, 3.3
EIGEN = 9.0  # operations of a symmetric eigendecomposition, as a multiple of its cube
BUILDING = 2_000.0  # operations, whatever their size, to build a model for each matrix in it


class Forward:
    """One forward pass of the encoder.

    matrices             shapes of the weights of linear layers
    parameters           numbers that it has
    tokens, pixels       of an example
    products, outputs    operations, and numbers that linear layers give, of an example
    """

    def __init__(self, plan: Plan) -> None:
        family = plan.inputs.family
        config = family.base.config
        self.matrices = [family.shape(n) for n, role in family.roles.items() if role == "matrix"]
        self.parameters = sum(family.base.tensors[name].elements for name in family.shared)
        self.tokens, self.pixels = _tokens(config), _pixels(config)
        products = 2 * self.tokens * sum(math.prod(shape) for shape in self.matrices)
        products += _convolutions(plan, self.tokens) + _attention(config, self.tokens)
        self.products = float(products)
        self.outputs = sum(shape[0] for shape in self.matrices) * self.tokens

    def values(self, examples: int) -> Work:
        """Products and activations of so many examples."""
        activations = Work(moved=ACTIVATION * self.outputs * examples / 2)
        return operations(self.products * examples, "float32") + activations

    def batches(self, batch: int, number: int) -> Work:
        """What passes through memory, beside the products."""
        count = len(self.matrices)
        layers = passes(4 * batch * self.outputs // max(1, count), 5 * count * number)
        return layers + passes(4 * batch * self.pixels, 6 * number) + calls(12.0 * count * number)


def testing(plan: Plan, examples: Mapping[str, int]) -> Cost:
    """Forward passes on every task; nothing where no expert names one."""
    settings, family = plan.recipe.evaluate, plan.inputs.family
    tasks = [expert for expert in family.experts if expert.can_be_asked]
    if not isinstance(settings, Evaluation) or not tasks:
        return Cost("merged")
    forward = Forward(plan)
    counts = [_asked(examples.get(e.name, EXAMPLES), settings, len(tasks)) for e in tasks]
    total, rounds = sum(counts), sum(math.ceil(count / ROUND) for count in counts)
    batch = min(ROUND, BATCH, max(counts))
    stored = next(iter(output_specs(plan).values()))[0].itemsize
    work = forward.values(total) + forward.batches(batch, rounds)
    # The encoder as float32, once a batch.
    work += passes((stored + 4) * forward.parameters, rounds)
    work += calls(4.0 * len(family.shared) * rounds)
    kept = sum(k for count in counts if (k := 4 * forward.pixels * count) <= KEPT)
    widest = max((shape[0] for shape in forward.matrices), default=0)
    alive = batch * (forward.tokens * (4 * widest) + 3 * forward.pixels) * 4
    return Cost("merged", work, kept + alive + 4 * forward.parameters)


def measuring(plan: Plan) -> Cost:
    """All experts' statistics measured once at a merge (`rounds`): forward and backward, Grams, and
    each example's own gradient of every weight.  The bytes are beside the statistics themselves."""
    forward = Forward(plan)
    grams = 2.0 * forward.tokens * sum(m * m + n * n for m, n in forward.matrices)
    weights = sum(math.prod(shape) for shape in forward.matrices)
    gradients = 2.0 * forward.tokens * weights
    work = Work()
    for own in plan.inputs.statistics:
        count = examples_of(own) if own is not None else 0
        number = math.ceil(count / MEASURED)
        work += forward.values(count) * 2 + forward.batches(min(MEASURED, count), number) * 3
        work += operations((grams + gradients) * count, "float32")
        for m, n in forward.matrices:  # every example's gradient: formed, squared, and summed up
            work += passes(4 * MEASURED * m * n, 4.0 * number)
        work += passes(4 * forward.parameters, 6.0) + calls(BUILDING * len(forward.matrices))
    seen = sum(shape[0] * 3 + shape[1] for shape in forward.matrices)
    largest = max((math.prod(shape) for shape in forward.matrices), default=0)
    alive = 4 * MEASURED * (forward.tokens * seen + 3 * forward.pixels)
    chunk = max(4 * largest, min(CHUNK_BYTES, 4 * MEASURED * largest))
    return Cost("merged", work, 4 * forward.parameters + alive + chunk)


def refining(plan: Plan) -> Cost:
    """What training after the merge costs: all epochs, forward and backward, with the validation
    rows after each.  The bytes are the tensors in their states (trained, gradients, two moments,
    the last and the best epoch's, the merge's), and one batch of one task."""
    settings = plan.recipe.refine
    if settings is None:
        return Cost("merged")
    forward, experts = Forward(plan), len(plan.inputs.family.experts)
    drawn, held = settings.examples * experts, settings.validation * experts
    steps = math.ceil(settings.examples / settings.batch) * experts * settings.epochs
    asked = held * (settings.epochs + 2) + drawn  # the expert, and the merge after each epoch
    work = forward.values(drawn * settings.epochs) * 3 + forward.values(asked)
    work += forward.batches(settings.batch, steps) * 3
    work += passes(4 * forward.parameters, 14.0 * steps / max(1, experts))
    work += calls(BUILDING * len(forward.matrices))
    alive = 4 * settings.batch * (3 * forward.outputs + 3 * forward.pixels)
    inputs = 4 * (drawn + held) * forward.pixels
    return Cost("merged", work, 8 * 4 * forward.parameters + alive + inputs)


def calibrating(plan: Plan) -> Cost:
    """What a walk through the model costs beside its solves: both models run every stage of each
    block again, and the whole block once.  The bytes are two models, what lies in front of a block
    for all examples, and one batch.  Before it every expert looks at what it may choose from."""
    if not isinstance(plan.options, SequentialOptions):
        return Cost("merged")
    forward, experts = Forward(plan), len(plan.inputs.family.experts)
    pictures = _tokens_of_pictures(plan.inputs.family.base.config) is not None
    each = max(plan.options.examples, plan.options.augment_to if pictures else 0)
    work, nbytes = _walk(forward, each, experts)
    models = 2
    if plan.options.inputs != "own":  # each layer once, and its update beside it
        looked = plan.options.candidates * experts
        work += forward.values(looked) * 2
        work += forward.batches(MEASURED, math.ceil(looked / MEASURED)) * 2
        models = 3
    if plan.options.curvature == "answers":
        asked, held = _turning(forward, each, experts)
        work, nbytes, models = work + asked, nbytes + held, 3
    return Cost("merged", work, models * 4 * forward.parameters + nbytes)


def _turning(forward: Forward, each: int, experts: int) -> tuple[Work, float]:
    """The work of asking how the answers of each expert turn with the outputs of its layers, and
    the bytes of what it found and of the inputs that are asked at once."""
    count, turned = each * experts, sum(m * m for m, _ in forward.matrices)
    work = forward.values(count) * 3
    work += forward.batches(AT_ONCE, math.ceil(each / AT_ONCE) * experts) * 3
    work += operations(2.0 * forward.tokens * turned * count, "float32")
    held = min(4.0 * turned * experts, streams_budget())
    return work, held + 4 * AT_ONCE * 3 * forward.outputs


def branching(plan: Plan) -> Cost:
    """What the branches of a routed merge cost: a walk on its examples as of `calibrating`, and of
    every matrix a fit and a decomposition an expert.  The bytes are those of the walk, beside the
    branches themselves."""
    routed = plan.recipe.routed
    if routed is None or routed.rank == 0:
        return Cost("merged")
    forward, experts = Forward(plan), len(plan.inputs.family.experts)
    work, nbytes = _walk(forward, routed.samples, experts, routed=True)
    if not routed.fits:
        work, nbytes = work * (AGAIN / (AGAIN + WALKED)), nbytes / 2
    fits = sum(n**3 / 3 + 2 * n * n * m for m, n in forward.matrices) if routed.fits else 0.0
    cut = sum(EIGEN * (n**3 + min(m, n) ** 3) for m, n in forward.matrices)
    work += operations(experts * (fits + cut), "float64")
    return Cost("merged", work, 2 * 4 * forward.parameters + nbytes)


def factoring(plan: Plan) -> Cost:
    """What a merge costs as one LoRA: of every matrix and table the SVD of its update, which is
    taken from the merge that was made before.  The bytes are those of the adapter and one SVD."""
    lora, base = plan.recipe.lora, plan.inputs.family.base
    if lora is None:
        return Cost("merged")
    work, largest = Work(), 0
    for name in plan.inputs.family.shared:
        if takes_factors(plan.inputs.family, name):
            rows, columns = base.tensors[name].shape
            work += two_factors(rows, columns, lora.rank, lora.energy, plan.recipe.dtype)
            largest = max(largest, svd_bytes(rows, columns) + 4 * 8 * rows * columns)
    return Cost("merged", work, lora_bytes(plan) + largest)


def _walk(forward: Forward, each: int, experts: int, *, routed: bool = False) -> tuple[Work, float]:
    """The work of passing so many examples of each expert through two models, stage by stage, and
    the bytes of what lies in front of a block, of what parts of it gave, and of one batch.

    routed   the merge's model notes how it routes, which it does whenever it runs
    """
    count, number = each * experts, math.ceil(each / MEASURED) * experts
    sums = 2.0 * forward.tokens * sum(2 * n * n + m * n for m, n in forward.matrices)
    width = max((min(shape) for shape in forward.matrices), default=0)
    widest = max((n for _, n in forward.matrices), default=0)
    streams, parts = (4.0 * count * forward.tokens * d for d in (2 * width, 3 * width + widest))
    kept = streams + parts <= streams_budget()
    passes = (AGAIN if routed or not kept else WALKED) + (WALKED if kept else AGAIN)
    work = forward.values(count) * passes + forward.batches(MEASURED, number) * passes
    work += operations(sums * count, "float32") + calls(BUILDING * len(forward.matrices))
    seen = sum(shape[0] for shape in forward.matrices) // max(1, len(forward.matrices))
    alive = 4 * MEASURED * (forward.tokens * 8 * seen + 3 * forward.pixels)
    inputs = 4 * each * forward.pixels  # of one expert at a time
    return work, min(streams + parts, streams_budget()) + inputs + alive


def statistics_bytes(plan: Plan) -> int:
    """What statistics that were measured again take: all kinds, as float32, in memory."""
    known = [own for own in plan.inputs.statistics if own is not None]
    return sum(4 * math.prod(shape) for own in known for shape in own.shapes.values())


def _asked(there: int, settings: Evaluation, tasks: int) -> int:
    """How many examples of a task will be asked."""
    count = min(there, settings.examples or there)
    if settings.precision is None:
        return count
    spread = 1.96**2 * TYPICAL * (1 - TYPICAL) / tasks / 0.9**2
    enough = math.ceil(spread / settings.precision**2)
    return min(count, ROUND * math.ceil(enough / ROUND))


def _tokens(config: Mapping[str, Any]) -> int:
    return _tokens_of_pictures(config) or TOKENS


def _tokens_of_pictures(config: Mapping[str, Any]) -> int | None:
    """Of a model that cuts pictures into patches; None of another."""
    image, patch = config.get("image_size"), config.get("patch_size")
    if isinstance(image, int) and isinstance(patch, int) and patch:
        return (image // patch) ** 2 + 1
    return None


def _pixels(config: Mapping[str, Any]) -> int:
    image = config.get("image_size")
    return int(config.get("num_channels", 3)) * image**2 if isinstance(image, int) else TOKENS


def _convolutions(plan: Plan, tokens: int) -> int:
    """A patch embedding is one product a token; other convolutions are taken as the same."""
    base, roles = plan.inputs.family.base, plan.inputs.family.roles
    vectors = [entry for name, entry in base.tensors.items() if roles[name] == "vector"]
    return 2 * tokens * sum(entry.elements for entry in vectors if len(entry.shape) == 4)


def _attention(config: Mapping[str, Any], tokens: int) -> int:
    width, depth = config.get("hidden_size", 0), config.get("num_hidden_layers", 0)
    # Products of single heads over few tokens run at a fraction of the rate of a large one.
    slower = max(2.0, 256 / tokens)
    return round(slower * 4 * tokens**2 * int(width) * int(depth))
