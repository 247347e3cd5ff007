"""The branches of a routed merge whose expert is chosen in a first pass, for the whole input.

The static merge itself is what chooses, so that its routers see what they are fitted to: one linear
discriminant of the mean inputs of all layers that read the residual stream, and of their deviations
over an example's tokens where that tells more of held-out examples rightly.  Behind the choice
nothing stays merged: norms, biases and what else has no matrix lie whole in a branch, matrices and
embeddings in factors.  Calibrated, a walk through the model fits each stage's branches to what is
left on the inputs that they get behind the branches before them, an expert's examples at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import models
from ..checkpoints import Tensors
from ..linear import discriminant, output_branch, worth_factors
from ..models import joined, parted
from ..names import bias_of
from ..recipes import Plan, Routed
from ..statistics import Block, Stage, Stream, moments
from .branching import Parts, Work, calibrated, on_cpu, rank_of, stage_key
from .later import Later, Piece
from .side_by_side import Pair, values_of

ROUTERS = "routers of the first pass"  # the key of a piece
FOLDS = 2  # of the examples, for the share that is rightly routed
MIXED = 0.25  # what is lost by the mean of two experts, as a share of what a wrong one loses


def as_matrix(shape: Sequence[int]) -> tuple[int, int]:
    """(rows, columns) as which a tensor is factored: its axes in two halves whose factors are
    smallest; one row of a vector."""
    sizes = [int(torch.Size(shape[:k]).numel()) for k in range(len(shape))]
    whole = torch.Size(shape).numel()
    return min(((rows, whole // rows) for rows in sizes), key=sum, default=(1, 1))


class FirstPass(Work):
    """The merge as a model that becomes each expert in turn, as far as its branches lead.

    leads   the layers in front of which the routers ask
    """

    def __init__(self, plan: Plan, routed: Routed, encoder: Tensors, later: Later) -> None:
        super().__init__(plan, routed, encoder, later)
        stages = [stage for block in self.blocks for stage in block.stages]
        reading = [stage for stage in stages if len(stage.streams) < len(stage.layers)]
        self.leads = [stage.layers[0] for stage in reading or stages]
        self._seen: list[Tensor] = []  # (examples, leads × 2 d), an expert
        self._rightly: dict[str, float] = {}
        inside = {self.names[layer] for stage in stages for layer in stage.layers}
        inside |= set(map(bias_of, inside))
        known = set(self.named.values())
        for name in plan.inputs.family.shared:
            if name in encoder and name in known and name not in inside:
                self._branch_of_rest(name)

    def routes(self, stage: Stage) -> Stage | None:
        """All layers of a stage."""
        return stage

    def _branch_of_rest(self, name: str) -> None:
        """Make the branch of a tensor that no stage holds, where an expert has changed it."""
        merged = self.encoder[name]
        if not merged.is_floating_point():
            return
        wide = merged.to(self.plan.device, self.plan.dtype)
        where = {"dtype": self.plan.dtype, "device": self.plan.device}
        experts = self.plan.inputs.family.experts
        updates = [expert.checkpoint.read(name, **where) - wide for expert in experts]
        if not any(map(torch.any, updates)):
            return
        rows = as_matrix(merged.shape)
        key, changes = f"branch of {name}", [update.reshape(rows) for update in updates]

        def made() -> Piece:
            return Piece(joined({name: self._as_read(name, self._factored(changes, []))}))

        self._keep(self.kept(key, made))

    def _factored(self, updates: Sequence[Tensor], grams: Sequence[Tensor]) -> Parts:
        """The parts of matrices (rows, columns), one an expert: factors where they are smaller."""
        rows, columns = updates[0].shape
        rank = rank_of(self.routed, rows, columns)
        if not worth_factors(rows, columns, rank):
            return {"right": torch.stack(list(updates))}
        weighed = grams or [None] * len(updates)
        pairs = [output_branch(u, rank, gram) for u, gram in zip(updates, weighed, strict=True)]
        left, right = (torch.stack(factors) for factors in zip(*pairs, strict=True))
        return {"left": left, "right": right}

    def _as_read(self, name: str, parts: Mapping[str, Tensor]) -> Parts:
        """The parts beside a tensor as they will be read from the file."""
        dtype = self.encoder[name].dtype
        return on_cpu({part: value.to(dtype) for part, value in parts.items()})

    def _keep(self, piece: Piece) -> None:
        """Put the parts of a piece beside their tensors."""
        for name, parts in parted(piece.tensors)[1].items():
            self.beside.setdefault(name, {}).update(parts)

    # The first pass ------------------------------------------------------------------------------

    def pair(self, index: int, kept: Any) -> Pair | None:
        """What the routers see of an expert's examples is noted; then as of `Work`, with the
        expert's branches in the model.  None where nothing is calibrated."""
        batches = self._inputs(self.plan.inputs.family.experts[index])
        if not self.known(ROUTERS):
            self._as(None, "")
            seen = [models.seen_inputs(self.model, batch, self.leads) for batch in batches]
            self._seen.append(torch.cat([torch.cat(list(one.values()), 1).cpu() for one in seen]))
        if self.expert is None:
            return None
        self._as(index, "")
        self._become(index, "")
        block = self.blocks[0].module
        return Pair(index, *(Stream(m, block, batches, kept) for m in (self.model, self.expert)))

    def ready(self) -> None:
        """Fit the routers, when all examples were seen."""
        routers = self.kept(ROUTERS, self._routers)
        self._keep(routers)
        self._rightly = dict(routers.told)

    def keys(self) -> list[str]:
        return [*super().keys(), ROUTERS]

    def _routers(self) -> Piece:
        """The parts of the routers; an expert → the share of its examples that choose it, when
        routers are fitted to the others of them."""
        seen, widths = readable(self._seen, [self._width(lead) for lead in self.leads])
        directions, offsets = _fitted(seen)
        shares, margin = _held_out(seen)
        each = directions.split(widths, 1)
        found: dict[str, Parts] = {}
        for lead, part in zip(self.leads, each, strict=True):
            first, name = lead == self.leads[0], self.names[lead]
            parts = {"prototypes": part.contiguous()}
            parts["offsets"] = offsets if first else torch.zeros_like(offsets)
            parts |= {"margin": torch.tensor(margin)} if first else {}
            found[name] = self._as_read(name, parts)
        names = [expert.name for expert in self.plan.inputs.family.experts]
        return Piece(joined(found), dict(zip(names, shares, strict=True)) if shares else {})

    def _width(self, layer: str) -> int:
        return self.plan.inputs.family.shape(self.names[layer])[1]

    def _only(self, index: int) -> list[float]:
        return [float(index == n) for n in range(len(self.plan.inputs.family.experts))]

    def rightly(self) -> dict[str, float]:
        return self._rightly

    # The second ----------------------------------------------------------------------------------

    def add(self, block: Block, stage: Stage, streams: Sequence[Pair]) -> None:
        """Make the branches of a stage's layers."""
        made = self.kept(stage_key(stage), lambda: Piece(joined(self._made(block, stage, streams))))
        self._keep(made)

    def _made(self, block: Block, stage: Stage, streams: Sequence[Pair]) -> dict[str, Parts]:
        found: dict[str, Parts] = {}
        seen = []
        for pair in streams:
            self._as(pair.expert, block.module)
            self._become(pair.expert, block.module)
            seen.append(moments(pair.merge, pair.own, block, stage))
        family = self.plan.inputs.family
        for layer in stage.layers:
            name, damping = self.names[layer], self.routed.damping
            bias = bias_of(name) if bias_of(name) in family.shared else ""
            updates, shifts = [], []
            for index, expert in enumerate(family.experts):
                weight = self._read(expert.checkpoint, name)
                shift = self._read(expert.checkpoint, bias) if bias else None
                if seen:
                    weight, shift = calibrated(weight, shift, seen[index], layer, damping)
                updates.append(weight - self._merged(name))
                shifts += [] if shift is None else [shift - self._merged(bias)]
            grams = [one.gram[:-1, :-1].to(updates[0]) for one in seen]
            parts = self._in_layout(name, self._factored(updates, grams))
            found[name] = self._as_read(name, parts)
            if shifts:
                found[bias] = self._as_read(bias, {"right": torch.stack(shifts)})
        return found

    def _in_layout(self, name: str, parts: Parts) -> Parts:
        """Parts of (d_out, d_in) as those of the tensor that its file holds."""
        if name not in self.plan.inputs.family.transposed:
            return parts
        turned = {part: value.mT.contiguous() for part, value in parts.items()}
        if "left" not in turned:
            return turned
        return {"left": turned["right"], "right": turned["left"]}

    def go_on(self, block: Block, pair: Pair) -> None:
        """Pass an expert's examples through a block."""
        self._as(pair.expert, block.module)
        self._become(pair.expert, block.module)
        pair.merge.go_on(block.module)
        pair.own.go_on(block.module)

    def _as(self, index: int | None, block: str) -> None:
        """Put the merge, with the branches of an expert so far, into a block ("" for all of it)."""
        held, roles = values_of(self.model), self.plan.inputs.family.roles
        for own, name in self.named.items():
            mine = name in self.encoder and roles.get(name) != "head"
            if mine and (not block or own.startswith(f"{block}.")):
                value = self.encoder[name].to(held[own])
                parts = self.beside.get(name, {})
                if index is not None and "right" in parts:
                    value = value + models.change(parts, self._only(index), value)
                held[own].copy_(value)


def readable(groups: Sequence[Tensor], widths: Sequence[int]) -> tuple[list[Tensor], list[int]]:
    """What routers read of each example, and how many numbers of it belong to each layer: the mean
    inputs alone, unless their deviations help to tell held-out examples rightly.

    groups   of T experts, (n_t, Σ 2 d): for each layer the mean input, then its deviations
    widths   d of each layer
    """
    mean = torch.cat([torch.arange(2 * width) < width for width in widths])
    means = [group[:, mean] for group in groups]
    if sum(_held_out(groups)[0]) > sum(_held_out(means)[0]):
        return list(groups), [2 * width for width in widths]
    return means, list(widths)


def _fitted(groups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Directions (T, d) and offsets (T,) of the discriminant of examples whose numbers are all
    brought to the same spread, which no unit of theirs decides then."""
    rows = torch.cat(list(groups))
    middle, spread = rows.mean(0), rows.std(0)
    spread = spread + 1e-6 * spread.mean() + 1e-12
    directions, offsets = discriminant([(group - middle) / spread for group in groups])
    directions = directions / spread
    return directions, offsets + directions @ middle


def _held_out(groups: Sequence[Tensor]) -> tuple[list[float], float]:
    """How examples fare that routers are not fitted to, in folds: the share of each group that is
    told rightly, and the margin below which mixing two experts costs least; no share, and a margin
    of 0, of too few examples."""
    if min(map(len, groups)) < 2 * FOLDS or len(groups) < 2:
        return [], 0.0
    shares, hits, margins = [0.0] * len(groups), [], []
    for fold in range(FOLDS):
        rest = [torch.cat([g[n::FOLDS] for n in range(FOLDS) if n != fold]) for g in groups]
        directions, offsets = _fitted(rest)
        for index, group in enumerate(groups):
            scores = group[fold::FOLDS] @ directions.mT - offsets
            best = scores.topk(2, 1).values
            hits.append(scores.argmax(1) == index)
            margins.append(best[:, 0] - best[:, 1])
            shares[index] += float(hits[-1].sum()) / len(group)
    return shares, cheapest_margin(torch.cat(hits), torch.cat(margins))


def cheapest_margin(hits: Tensor, margins: Tensor) -> float:
    """The margin τ that minimises `wrong above τ + MIXED · all below τ` over examples, each with
    whether its choice is right and how far it is ahead; 0 where no mixing pays."""
    order = margins.argsort()
    wrong = (~hits[order]).double()
    below = torch.arange(len(order) + 1, dtype=torch.float64)
    costs = wrong.sum() - torch.cat([wrong.new_zeros(1), wrong.cumsum(0)]) + MIXED * below
    count = int(costs.argmin())
    return 0.0 if count == 0 else float(margins[order[count - 1]]) * (1 + 1e-6)
