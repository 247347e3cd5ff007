"""The branches of a routed merge, one stage of the model at a time.

A stage's router is fitted to the inputs that it gets in the routed model, then its layers get their
branches, and the next stage is asked with them in place.  `routing.py` says in which order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import models
from ..checkpoints import Tensors
from ..errors import InputError
from ..evaluation import with_head
from ..families import Expert
from ..linear import discriminant, input_gate, output_branch, solve_positive, worth_factors
from ..models import Router, Routing, joined, mean_token, noting, parted
from ..names import bias_of, module_of
from ..recipes import Plan, Routed
from ..statistics import Block, Moments, Stage, Stream, blocks_of, moments, stage_inputs
from . import calibration_inputs
from .later import Later, Piece, digest_of
from .reading import treated_as_matrix
from .side_by_side import Pair, apart, base_names, few, put_into

Parts = dict[str, Tensor]
RIGHTLY = "branches taken rightly"  # the key of a piece


def rank_of(routed: Routed, rows: int, columns: int) -> int:
    """The rank of a branch of a matrix, which its sides bound."""
    whole = min(rows, columns)
    return whole if routed.rank == "full" else min(routed.rank, whole)


def stage_key(stage: Stage) -> str:
    """The key of the piece that holds the branches of a stage."""
    return f"branches of {stage.layers[0]}"


@dataclass(frozen=True)
class _Seen:
    """What one expert's examples showed of a stage's inputs.

    gram      E[x xᵀ] over the tokens (d, d)
    means     mean token of each example (n, d)
    moments   with those of the expert's inputs, where branches are calibrated
    """

    gram: Tensor
    means: Tensor
    moments: Moments | None = None


class Work:
    """The merge as a model that gets its branches.

    beside   what was made so far
    names    the module of a layer that is merged as a matrix → its weight, by the base's name
    """

    def __init__(self, plan: Plan, routed: Routed, encoder: Tensors, later: Later) -> None:
        self.plan, self.routed, self.encoder, self.later = plan, routed, encoder, later
        self.beside: dict[str, Parts] = {}
        family, first = plan.inputs.family, plan.inputs.family.experts[0]
        tensors = with_head(encoder, family, first)
        self.model = apart(first, tensors, plan.device)
        self.expert = apart(first, tensors, plan.device) if routed.fits else None
        matrices = {n for n in family.shared if treated_as_matrix(plan, n)}
        self.named = base_names(first, tensors, self.model)
        self.names = {module_of(own): n for own, n in self.named.items() if n in matrices}
        batch = self._inputs(first)[0] if routed.samples else self._probe(first, tensors)
        self.blocks = blocks_of(self.model, few(batch), self.names)
        self.routing = Routing()
        self._made_from = self._digest() if later.keeps else ""
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

    def _digest(self) -> str:
        """Of all that the branches are made from and the journal does not say."""
        experts = self.plan.inputs.family.experts if self.routed.samples else ()
        drawn = (calibration_inputs.of_task(self.plan, e, self.routed.samples) for e in experts)
        return digest_of([one.split.digest for one, _ in drawn], self.encoder)

    def kept(self, key: str, make: Callable[[], Piece]) -> Piece:
        """A piece of these branches, made unless it is kept."""
        return self.later.piece(f"{key} {self._made_from}", make)

    def known(self, key: str) -> bool:
        """Whether a piece was made by a merge that this one goes on from."""
        return self.later.has(f"{key} {self._made_from}")

    def keys(self) -> list[str]:
        """The pieces that examples are read for."""
        stages = [stage for block in self.blocks for stage in map(self.routes, block.stages)]
        return [*(stage_key(stage) for stage in stages if stage is not None), RIGHTLY]

    def complete(self) -> bool:
        """Whether no example has to be read any more."""
        return all(map(self.known, self.keys()))

    def name(self, pair: Pair) -> str:
        """The name of the expert whose examples a pair of streams carries."""
        return self.plan.inputs.family.experts[pair.expert].name

    def ready(self) -> None:
        """Called once, when all examples are in front of the first block."""

    def pair(self, index: int, kept: Any) -> Pair | None:
        """An expert's examples in front of the first block, of the merge and of the expert; where
        nothing is calibrated, of the merge alone."""
        batches = self._inputs(self.plan.inputs.family.experts[index])
        block = self.blocks[0].module
        merge = Stream(self.model, block, batches, kept, self.routing.entering)
        if self.expert is None:
            return Pair(index, merge, merge)
        self._become(index, "")
        return Pair(index, merge, Stream(self.expert, block, batches, kept))

    def _become(self, index: int, block: str) -> None:
        if self.expert is not None:
            family = self.plan.inputs.family
            put_into(self.expert, self.named, family, family.experts[index], block)

    def routes(self, stage: Stage) -> Stage | None:
        """The layers of a stage that are routed; None where there are none."""
        every = self.routed.layers == "all"
        layers = tuple(one for one in stage.layers if every or one not in stage.streams)
        streams = {layer: seen for layer, seen in stage.streams.items() if layer in layers}
        return Stage(layers, streams) if layers else None

    # One stage -----------------------------------------------------------------------------------

    def add(self, block: Block, stage: Stage, streams: Sequence[Pair]) -> None:
        """Make the branches of a stage's layers and their router, and put them into the model."""
        piece = self.kept(
            stage_key(stage), lambda: Piece(joined(self._made(block, stage, streams)))
        )
        beside = parted(piece.tensors)[1]
        for layer in stage.layers:
            name = self.names[layer]
            self.beside[name] = beside[name]
            self.routing.add(layer, {n: v.to(self.plan.device) for n, v in beside[name].items()})
            self.routing.added(self.model, layer)

    def _made(self, block: Block, stage: Stage, streams: Sequence[Pair]) -> dict[str, Parts]:
        """A weight → its parts, as they will be read from the file: what is tested now is what is
        tested then."""
        seen = [self._seen(pair, block, stage) for pair in streams]
        dtype = self.encoder[self.names[stage.layers[0]]].dtype
        router = {name: value.to(dtype) for name, value in self._router(stage, seen).items()}
        if streams and self.routed.by == "updates":
            router["offsets"] = self._offsets(router, block, stage, streams).to(dtype)
        if self.routed.by == "smile":
            router["top"] = torch.tensor(min(self.routed.top, len(self.plan.inputs.family.experts)))
        router["stage"] = torch.tensor(len(self.routing.routers))
        made: dict[str, Parts] = {}
        for layer in stage.layers:
            parts = {name: v.to(dtype) for name, v in self._branches(layer, seen).items()}
            made[self.names[layer]] = {**on_cpu(parts), **router}
            router = {"stage": router["stage"]}  # which lies beside the first of its layers
        return made

    def _seen(self, pair: Pair, block: Block, stage: Stage) -> _Seen:
        means: list[Tensor] = []
        if self.expert is not None:
            self._become(pair.expert, block.module)
            found = moments(
                pair.merge, pair.own, block, stage, lambda x, t: means.append(mean_token(x, t))
            )
            return _Seen(found.gram[:-1, :-1], torch.cat(means), found)
        gram: Any = 0
        tokens = 0
        for x, there in stage_inputs(pair.merge, block, stage):
            rows = x.reshape(-1, x.shape[-1]) if there is None else x[there.bool()]
            gram, tokens = gram + rows.mT @ rows, tokens + len(rows)
            means.append(mean_token(x, there))
        return _Seen(gram / tokens, torch.cat(means))

    def _router(self, stage: Stage, seen: Sequence[_Seen]) -> Parts:
        """Prototypes, or gates of all updates of the stage's layers, stacked over their outputs."""
        if self.routed.by == "prototypes":
            return on_cpu({"prototypes": torch.stack([one.means.mean(0) for one in seen])})
        if self.routed.by == "discriminant":
            directions, offsets = discriminant([one.means for one in seen])
            return on_cpu({"prototypes": directions, "offsets": offsets})
        gates = []
        for expert in self.plan.inputs.family.experts:
            updates = [self._update(expert, self.names[layer]) for layer in stage.layers]
            whole = torch.cat(updates)
            rank = min(self.routed.gate, *whole.shape)
            gates.append(input_gate(whole, rank, scaled=self.routed.by == "updates"))
        return on_cpu({"gate": torch.stack(gates)})

    def _offsets(
        self, router: Parts, block: Block, stage: Stage, streams: Sequence[Pair]
    ) -> Tensor:
        """The mean score of each expert over all tasks' examples, each task counted alike."""
        asked = Router(gate=router["gate"].to(self.plan.device))
        means = []
        for pair in streams:
            found = [asked.scores(x, there) for x, there in stage_inputs(pair.merge, block, stage)]
            means.append(torch.cat(found).mean(0))
        return torch.stack(means).mean(0).cpu()

    def _branches(self, layer: str, seen: Sequence[_Seen]) -> Parts:
        """Factors of `W_t − M` for every expert, whole where factors would be larger, and what
        leads to its bias where there is one."""
        name = self.names[layer]
        family, merged = self.plan.inputs.family, self._merged(name)
        bias = bias_of(name) if bias_of(name) in family.shared else ""
        rows, columns = merged.shape
        rank = rank_of(self.routed, rows, columns)
        factored = worth_factors(rows, columns, rank)
        lefts, rights, biases = [], [], []
        for index, expert in enumerate(family.experts):
            weight = self._read(expert.checkpoint, name)
            shift = self._read(expert.checkpoint, bias) if bias else None
            found = seen[index] if seen else None
            if found is not None and found.moments is not None:
                weight, shift = calibrated(weight, shift, found.moments, layer, self.routed.damping)
            update = weight - merged
            if factored:
                left, update = output_branch(update, rank, found and found.gram.to(update))
                lefts.append(left)
            rights.append(update)
            biases += [] if shift is None else [shift - self._merged(bias)]
        parts = {"right": torch.stack(rights), "left": lefts, "bias": biases}
        return {
            n: v if isinstance(v, Tensor) else torch.stack(v) for n, v in parts.items() if len(v)
        }

    def _update(self, expert: Expert, name: str) -> Tensor:
        return self._read(expert.checkpoint, name) - self._read(self.plan.inputs.family.base, name)

    def _read(self, checkpoint: Any, name: str) -> Tensor:
        place = {"dtype": self.plan.dtype, "device": self.plan.device}
        return self.plan.inputs.family.weight(checkpoint, name, **place)

    def _merged(self, name: str) -> Tensor:
        value = self.encoder[name].to(self.plan.device, self.plan.dtype)
        return self.plan.inputs.family.oriented(name, value)

    # How the examples are routed -----------------------------------------------------------------

    def go_on(self, block: Block, pair: Pair) -> None:
        """Pass an expert's examples through a block, and count those that take its branch."""
        leads = {stage.layers[0] for stage in filter(None, map(self.routes, block.stages))}
        name = self.name(pair)

        def noted(module: str, shares: Tensor) -> None:
            if module in leads:
                hits = shares.argmax(-1) == pair.expert
                self._hits[name].append((int(hits.sum()), hits.numel()))

        with noting(noted):
            pair.merge.go_on(block.module)
        if self.expert is not None:
            self._become(pair.expert, block.module)
            pair.own.go_on(block.module)

    def told(self) -> dict[str, float]:
        """What `Built.rightly` says."""
        return dict(self.kept(RIGHTLY, lambda: Piece(told=self.rightly())).told)

    def rightly(self) -> dict[str, float]:
        """The share of each expert's examples that take its branch."""
        sums = {name: map(sum, zip(*hits, strict=True)) for name, hits in self._hits.items()}
        return {name: right / asked for name, (right, asked) in sums.items()}


def calibrated(
    weight: Tensor, bias: Tensor | None, seen: Moments, layer: str, damping: float
) -> tuple[Tensor, Tensor | None]:
    """The weight and bias whose outputs on the merge's inputs are nearest to the expert's on its
    inputs, corrected by what the residual stream has lost, damped towards the expert's:

        W̃ = (W̃_t (X + δ I) + R) (S + δ I)⁻¹,  W̃_t = [W_t b_t]   (S, X, R: `statistics.streams`)
    """
    size = None if bias is not None else -1
    whole = weight if bias is None else torch.cat([weight, bias[:, None]], 1)
    assert seen.cross is not None
    gram, cross = (one[:size, :size].to(weight) for one in (seen.gram, seen.cross))
    ridge = damping * float(gram.diagonal().mean()) * torch.eye(len(gram)).to(weight)
    target = whole @ (cross + ridge)
    if layer in seen.lost:
        target = target + seen.lost[layer][:, :size].to(weight)
    solved = solve_positive(gram + ridge, target)
    found = whole if solved is None else solved
    return (found, None) if bias is None else (found[:, :-1], found[:, -1])


def on_cpu(parts: Mapping[str, Tensor]) -> Parts:
    """Parts in the memory of the processor."""
    return {name: value.cpu() for name, value in parts.items()}
