"""Routed merges: branches beside a static merge, made layer by layer inside of the model.

Of every block those layers get branches whose output is added to no residual stream: query, key
and value, and the first matrix of the MLP (as in ESM++, arXiv 2606.19164), told by structure and
not by name (`stages.py`); or all of its linear layers.  With examples they walk through the routed
model itself, one stream an expert, so that a router is fitted to the inputs that it will get,
earlier branches included; from weights alone (SMILE, arXiv 2408.10174) no input is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import models
from ..checkpoints import Tensors
from ..errors import InputError, listing
from ..evaluation import with_head
from ..families import Expert
from ..linear import discriminant, input_gate, output_branch, worth_factors
from ..models import Router, Routing, joined, mean_token, noting
from ..names import bias_of, module_of
from ..statistics import Block, Stage, Stream, blocks_of, room, stage_inputs
from ..system import Event, nbytes
from . import calibration_inputs
from .calibration import apart, base_names, few, streams_budget
from .plan import Plan
from .reading import treated_as_matrix
from .recipe import Routed

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Built:
    """The branches of a routed merge.

    beside    a weight, by the base's name → its parts, by the names of `models.routing.PARTS`
    rightly   an expert → the share of its examples, over all routed layers, that take its branch
              (of tokens with `smile`); empty where none were read
    """

    beside: Mapping[str, Parts]
    rightly: Mapping[str, float]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All parts by their names beside the weights."""
        return joined(self.beside)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return nbytes(self.tensors)


def require(plan: Plan) -> None:
    """Raise `InputError` for a routed merge that these models cannot have."""
    routed = plan.recipe.routed
    if routed is None:
        return
    thing, experts = "'routed'", plan.inputs.family.experts
    if plan.inputs.vectors is not None:
        raise InputError(thing, expected="experts with weights", found="(IA)³ vectors")
    if plan.inputs.earlier is not None:
        raise InputError(
            thing,
            expected="the files of all experts, to which its branches lead",
            found="a merge that adds to another, by 'adds_to'",
            remedy="Merge all experts at once.",
        )
    if routed.by in ("prototypes", "discriminant") and not routed.examples:
        raise InputError(
            f"'routed' by '{routed.by}'",
            expected="'examples' of at least 1: it is fitted to inputs",
            found="0",
            remedy="Choose by 'updates' or 'smile', which need no data.",
        )
    named = {"the base": plan.inputs.family.base, experts[0].name: experts[0].checkpoint}
    bare = [name for name, weights in named.items() if weights.directory is None]
    if bare:
        raise InputError(
            thing,
            expected="models in directories, whose layers can be looked at",
            found=f"bare tensors of {listing(bare)}",
        )
    without = [e.name for e in experts if not e.task or e.checkpoint.directory is None]
    if routed.samples and without:
        raise InputError(
            f"'routed' by '{routed.by}' with 'examples' {routed.examples}",
            expected="a task and a model's directory for every expert",
            found=f"none for {listing(without)}",
            remedy="Name tasks in the recipe, or choose by 'smile', or by 'updates' with "
            "'examples' 0, which need no data.",
        )


def branches(plan: Plan, encoder: Tensors) -> Generator[Event, None, Built]:
    """The branches of a routed merge; of a static one none, without an event."""
    if plan.recipe.routed is None:
        return Built({}, {})
    return (yield from building(plan, encoder))


def told(plan: Plan, encoder: Tensors, built: Built) -> dict[str, Any]:
    """What a report says of the branches; nothing of a static merge."""
    routed = plan.recipe.routed
    if routed is None:
        return {}
    merged = sum(value.nbytes for value in encoder.values())
    return {
        **routed.model_dump(),
        "layers": len(built.beside),
        "bytes": built.nbytes,
        "size": 1 + built.nbytes / merged,
        "rightly": dict(built.rightly),
    }


def most_bytes(plan: Plan) -> int:
    """Bytes that the branches of a plan take at most, from shapes alone: of every matrix, for which
    of them read the residual stream is seen in the model only."""
    routed, family = plan.recipe.routed, plan.inputs.family
    if routed is None or routed.rank == 0:
        return 0
    total, experts = 0, len(family.experts)
    for name in family.shared:
        if treated_as_matrix(plan, name):
            rows, columns = family.shape(name)
            rank = _rank(routed, rows, columns)
            own = rank * (rows + columns) if worth_factors(rows, columns, rank) else rows * columns
            each = own + rows + routed.gate * columns
            total += experts * each * family.base.tensors[name].dtype.itemsize
    return total


def _rank(routed: Routed, rows: int, columns: int) -> int:
    """The rank of a branch of a matrix, which its sides bound."""
    whole = min(rows, columns)
    return whole if routed.rank == "full" else min(routed.rank, whole)


def building(plan: Plan, encoder: Tensors) -> Generator[Event, None, Built]:
    """The branches from a static merge back to the experts of a plan; an event before each stage.

    encoder   the merged tensors by the base's names
    """
    routed = plan.recipe.routed
    assert routed is not None
    if routed.rank == 0:
        return Built({}, {})
    yield Event(text="Looking for the layers that are routed")
    work = _Work(plan, routed, encoder)
    with room(streams_budget()) as kept:
        streams: list[Stream] = []
        for expert in plan.inputs.family.experts if routed.samples else ():
            yield Event(text=f"Reading the calibration inputs of {expert.name}")
            streams.append(work.stream(expert, kept))
        for number, block in enumerate(work.blocks):
            far, said = number / len(work.blocks), f"Block {number + 1} of {len(work.blocks)}"
            for stage in filter(None, map(work.routes, block.stages)):
                text = f"{said}: branches of {listing(stage.layers, 1)}"
                yield Event(fraction=far, text=text)
                work.add(block, stage, streams)
            for expert, stream in zip(plan.inputs.family.experts, streams, strict=False):
                yield Event(fraction=far, text=f"{said}: going on with {expert.name}")
                work.go_on(block, stream, expert)
    return Built(work.beside, work.rightly())


@dataclass(frozen=True)
class _Seen:
    """What one expert's examples showed of a stage's inputs.

    gram    E[x xᵀ] over the tokens (d, d)
    means   mean token of each example (n, d)
    """

    gram: Tensor
    means: Tensor


class _Work:
    """The merge as a model that gets its branches.

    beside   what was made so far
    names    the module of a layer that is merged as a matrix → its weight, by the base's name
    """

    def __init__(self, plan: Plan, routed: Routed, encoder: Tensors) -> None:
        self.plan, self.routed, self.encoder = plan, routed, encoder
        self.beside: dict[str, Parts] = {}
        family, first = plan.inputs.family, plan.inputs.family.experts[0]
        tensors = with_head(encoder, family, first)
        self.model = apart(first, tensors, plan.device)
        matrices = {n for n in family.shared if treated_as_matrix(plan, n)}
        named = base_names(first, tensors, self.model)
        self.names = {module_of(own): name for own, name in named.items() if name in matrices}
        batch = self._inputs(first)[0] if routed.samples else self._probe(first, tensors)
        self.blocks = blocks_of(self.model, few(batch), self.names)
        self.routing = Routing()
        self._hits: dict[str, list[tuple[int, int]]] = defaultdict(list)
        if not any(map(self.routes, (stage for one in self.blocks for stage in one.stages))):
            raise InputError(
                "'routed'",
                expected="a model with linear layers whose output is added to no residual stream",
                found="none among those that are merged",
                remedy="Leave 'routed' out.",
            )

    def _probe(self, first: Expert, tensors: Tensors) -> Mapping[str, Tensor]:
        shapes = models.shapes_of(tensors)
        return models.probe(first.checkpoint.directory, shapes, device=self.plan.device)

    def _inputs(self, expert: Expert) -> list[Mapping[str, Tensor]]:
        drawn, _ = calibration_inputs.of_task(self.plan, expert, self.routed.samples)
        tensors = with_head(self.encoder, self.plan.inputs.family, expert)
        return calibration_inputs.batches(self.plan, expert, [drawn.split], tensors)

    def stream(self, expert: Expert, kept: Any) -> Stream:
        """An expert's examples in front of the first block."""
        batches, block = self._inputs(expert), self.blocks[0].module
        return Stream(self.model, block, batches, kept, self.routing.entering)

    def routes(self, stage: Stage) -> Stage | None:
        """The layers of a stage that are routed; None where there are none."""
        every = self.routed.layers == "all"
        layers = tuple(one for one in stage.layers if every or one not in stage.streams)
        return Stage(layers) if layers else None

    # One stage -----------------------------------------------------------------------------------

    def add(self, block: Block, stage: Stage, streams: Sequence[Stream]) -> None:
        """Make the branches of a stage's layers and their router, and put them into the model."""
        seen = [self._seen(stream, block, stage) for stream in streams]
        dtype = self.encoder[self.names[stage.layers[0]]].dtype
        router = {name: value.to(dtype) for name, value in self._router(stage, seen).items()}
        if streams and self.routed.by == "updates":
            router["offsets"] = self._offsets(router, block, stage, streams).to(dtype)
        if self.routed.by == "smile":
            router["top"] = torch.tensor(min(self.routed.top, len(self.plan.inputs.family.experts)))
        router["stage"] = torch.tensor(len(self.routing.routers))
        for layer in stage.layers:
            parts = {name: v.to(dtype) for name, v in self._branches(layer, seen).items()}
            # As they will be read from the file: what is tested now is what is tested then.
            self.beside[self.names[layer]] = kept = {**_on_cpu(parts), **router}
            self.routing.add(layer, {n: v.to(self.plan.device) for n, v in kept.items()})
            self.routing.added(self.model, layer)
            router = {"stage": router["stage"]}  # which lies beside the first of its layers

    def _seen(self, stream: Stream, block: Block, stage: Stage) -> _Seen:
        gram: Any = 0
        means: list[Tensor] = []
        tokens = 0
        for x, there in stage_inputs(stream, block, stage):
            rows = x.reshape(-1, x.shape[-1]) if there is None else x[there.bool()]
            gram, tokens = gram + rows.mT @ rows, tokens + len(rows)
            means.append(mean_token(x, there))
        return _Seen(gram / tokens, torch.cat(means))

    def _router(self, stage: Stage, seen: Sequence[_Seen]) -> Parts:
        """Prototypes, or gates of all updates of the stage's layers, stacked over their outputs."""
        if self.routed.by == "prototypes":
            return _on_cpu({"prototypes": torch.stack([one.means.mean(0) for one in seen])})
        if self.routed.by == "discriminant":
            directions, offsets = discriminant([one.means for one in seen])
            return _on_cpu({"prototypes": directions, "offsets": offsets})
        gates = []
        for expert in self.plan.inputs.family.experts:
            updates = [self._update(expert, self.names[layer]) for layer in stage.layers]
            whole = torch.cat(updates)
            rank = min(self.routed.gate, *whole.shape)
            gates.append(input_gate(whole, rank, scaled=self.routed.by == "updates"))
        return _on_cpu({"gate": torch.stack(gates)})

    def _offsets(
        self, router: Parts, block: Block, stage: Stage, streams: Sequence[Stream]
    ) -> Tensor:
        """The mean score of each expert over all tasks' examples, each task counted alike."""
        asked = Router(gate=router["gate"].to(self.plan.device))
        means = []
        for stream in streams:
            found = [asked.scores(x, there) for x, there in stage_inputs(stream, block, stage)]
            means.append(torch.cat(found).mean(0))
        return torch.stack(means).mean(0).cpu()

    def _branches(self, layer: str, seen: Sequence[_Seen]) -> Parts:
        """Factors of `W_t − M` for every expert, whole where factors would be larger."""
        name = self.names[layer]
        family, merged = self.plan.inputs.family, self._merged(name)
        rows, columns = merged.shape
        rank = _rank(self.routed, rows, columns)
        factored = worth_factors(rows, columns, rank)
        lefts, rights = [], []
        for index, expert in enumerate(family.experts):
            update = self._read(expert.checkpoint, name) - merged
            if factored:
                gram = seen[index].gram.to(update) if seen else None
                left, update = output_branch(update, rank, gram)
                lefts.append(left)
            rights.append(update)
        parts = {"right": torch.stack(rights)}
        return parts | ({"left": torch.stack(lefts)} if factored else {}) | self._biases(name)

    def _biases(self, name: str) -> Parts:
        """What leads from the merged bias to every expert's, where there is one."""
        bias, family = bias_of(name), self.plan.inputs.family
        if bias not in family.shared:
            return {}
        read = [self._read(expert.checkpoint, bias) for expert in family.experts]
        return {"bias": torch.stack(read) - self._merged(bias)}

    def _update(self, expert: Expert, name: str) -> Tensor:
        return self._read(expert.checkpoint, name) - self._read(self.plan.inputs.family.base, name)

    def _read(self, checkpoint: Any, name: str) -> Tensor:
        place = {"dtype": self.plan.dtype, "device": self.plan.device}
        return self.plan.inputs.family.weight(checkpoint, name, **place)

    def _merged(self, name: str) -> Tensor:
        value = self.encoder[name].to(self.plan.device, self.plan.dtype)
        return self.plan.inputs.family.oriented(name, value)

    # How the examples are routed -----------------------------------------------------------------

    def go_on(self, block: Block, stream: Stream, expert: Expert) -> None:
        """Pass an expert's examples through a block, and count those that take its branch."""
        own = self.plan.inputs.family.experts.index(expert)
        leads = {stage.layers[0] for stage in filter(None, map(self.routes, block.stages))}

        def noted(module: str, shares: Tensor) -> None:
            if module in leads:
                hits = shares.argmax(-1) == own
                self._hits[expert.name].append((int(hits.sum()), hits.numel()))

        with noting(noted):
            stream.go_on(block.module)

    def rightly(self) -> dict[str, float]:
        """What `Built.rightly` says."""
        sums = {name: map(sum, zip(*hits, strict=True)) for name, hits in self._hits.items()}
        return {name: right / asked for name, (right, asked) in sums.items()}


def _on_cpu(parts: Mapping[str, Tensor]) -> Parts:
    return {name: value.cpu() for name, value in parts.items()}
