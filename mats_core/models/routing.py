"""Routed merges at work: linear layers that add the branch of one expert, chosen by the input.

    y = M x + b + Σ_t s_t(x) (left_t right_t x + β_t)

M and b are the merged layer, the branches lead from there to the experts
(`mats_core.linear.branches`), and the shares s come from the inputs of this layer and of those
before it; the router is never told the task.  With x_n the tokens of one example, padding left out:

    prototypes   t = argmax cos(mean_n x_n, p_t), p_t the mean input of expert t's examples; s_t = 1
    prototypes, offsets   t = argmax mean_n x_n · p_t − o_t, the mean also over the routed stages so
                 far: a linear discriminant; s_t = 1
    gate         t = argmax mean_n log(‖G_t x_n‖² / ‖x_n‖²) − o_t, with G_t of the update, the mean
                 also over the routed stages so far; s_t = 1
    gate, top    g_t = ‖G_t x‖ token by token; s is the softmax over the largest `top` of them

The parts of a layer ride with the model's tensors, under `names.part_name` of its weight; T experts
stand one below the other in each:

    left (T, d_out, r), right (T, r, d_in) or, without left, (T, d_out, d_in); bias (T, d_out);
    stage (), the number of the router, which layers of one input share; beside the first of them
    prototypes (T, d_in); gate (T, k, d_in); offsets (T,); top ()
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import Tensors
from ..names import module_of, part_name, weight_and_part

PARTS = ("left", "right", "bias", "stage", "prototypes", "gate", "offsets", "margin", "top")
TINY = 1e-30
MASK = "attention_mask"
Noted = Callable[[str, Tensor], None]  # (module, shares (examples, tokens or 1, T))

_noting: ContextVar[Noted | None] = ContextVar("noting", default=None)


@dataclass(frozen=True)
class Router:
    """What chooses among T experts (see the module's text); one serves all layers of one input.

    prototypes   (T, d_in), the mean input of each expert's examples, or with offsets the directions
                 of a discriminant; None: gates choose
    gate         (T, k, d_in), what each expert's update makes of an input
    offsets      (T,), what is taken off each score; None: zero
    top          how many branches each token mixes; None: one for a whole example
    """

    prototypes: Tensor | None = None
    gate: Tensor | None = None
    offsets: Tensor | None = None
    top: int | None = None

    @property
    def adds_up(self) -> bool:
        """Whether the scores of the stages before count, too; cosines stand for themselves."""
        return self.top is None and (self.prototypes is None or self.offsets is not None)

    @classmethod
    def of(cls, parts: Mapping[str, Tensor]) -> Router:
        """From its parts, by the names of `PARTS`."""
        top = parts.get("top")
        kept = (parts.get(name) for name in ("prototypes", "gate", "offsets"))
        return cls(*kept, top=None if top is None else int(top))

    def scores(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        """Scores (n, T) of examples x (n, tokens, d), of each token (n, tokens, T) with `top`.

        there   (n, tokens), which tokens are no padding; None: all of them
        """
        if self.prototypes is not None and self.offsets is not None:
            return mean_token(x, there) @ self.prototypes.to(x).mT - self.offsets.to(x)
        if self.prototypes is not None:
            unit = torch.nn.functional.normalize
            return unit(mean_token(x, there), dim=-1) @ unit(self.prototypes.to(x), dim=-1).mT
        assert self.gate is not None
        answers = torch.einsum("nsd,tkd->nstk", x, self.gate.to(x)).square().sum(-1)
        if self.top is not None:
            return answers.sqrt()
        size = x.square().sum(-1, keepdim=True).clamp_min(TINY)
        own = mean_token((answers / size).clamp_min(TINY).log(), there)
        return own if self.offsets is None else own - self.offsets.to(x)

    def shares(self, scores: Tensor) -> Tensor:
        """The shares s (n, 1, T), or (n, tokens, T) with `top`; every row sums to one."""
        if self.top is None:
            return torch.zeros_like(scores).scatter_(1, scores.argmax(1, keepdim=True), 1)[:, None]
        best, which = scores.topk(min(self.top, scores.shape[-1]), -1)
        return torch.zeros_like(scores).scatter_(-1, which, best.softmax(-1))


@dataclass(frozen=True)
class Branches:
    """The branches of one layer.

    right    (T, r, d_in), or the whole difference (T, d_out, d_in)
    left     (T, d_out, r); None: right is the whole difference
    bias     (T, d_out), what leads to each expert's bias; None: none
    stage    number of its router
    """

    right: Tensor
    left: Tensor | None = None
    bias: Tensor | None = None
    stage: int = 0

    @classmethod
    def of(cls, parts: Mapping[str, Tensor]) -> Branches:
        """From its parts, by the names of `PARTS`."""
        return cls(parts["right"], parts.get("left"), parts.get("bias"), int(parts["stage"]))

    def answer(self, expert: int, x: Tensor) -> Tensor:
        """What the branch of one expert adds for inputs x (tokens, d_in): (tokens, d_out)."""
        found = x @ self.right[expert].to(x).mT
        if self.left is not None:
            found = found @ self.left[expert].to(x).mT
        return found if self.bias is None else found + self.bias[expert].to(x)


def mean_token(x: Tensor, there: Tensor | None) -> Tensor:
    """The mean over the tokens of each example (n, tokens, d) that are `there`: (n, d)."""
    if there is None:
        return x.mean(1)
    weights = there.to(x)[..., None]
    return (x * weights).sum(1) / weights.sum(1).clamp_min(1)


def batch_of(signature: inspect.Signature, args: Any, kwargs: Any) -> tuple[int, Tensor | None]:
    """How many examples a call of a model has, and its (examples, tokens) of which tokens are no
    padding, where that is given."""
    given = signature.bind_partial(*args, **kwargs).arguments
    given = {**given, **given.get("kwargs", {})}
    tensors = [value for value in given.values() if isinstance(value, Tensor)]
    mask = given.get(MASK)
    return len(tensors[0]), mask if isinstance(mask, Tensor) else None


def by_example(x: Tensor, examples: int, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A layer's inputs as (examples, tokens, d), and which tokens are no padding where a mask
    (examples, tokens) says so."""
    tokens = x.reshape(examples, -1, x.shape[-1])
    return tokens, mask if mask is not None and mask.shape == tokens.shape[:2] else None


def parted(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Plain tensors, and a weight → the parts that lie beside it."""
    plain: dict[str, Tensor] = {}
    beside: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        weight, part = weight_and_part(name)
        if part:
            beside.setdefault(weight, {})[part] = value
        else:
            plain[name] = value
    return plain, beside


def joined(beside: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """All parts in one mapping, by their names beside the weights: the inverse of `parted`."""
    return {
        part_name(weight, part): value
        for weight, parts in beside.items()
        for part, value in parts.items()
    }


class Routing:
    """The branches that modules add while a model is asked.

    branches   by the module; more may come while it works
    routers    by the number of their stage
    """

    def __init__(self) -> None:
        self.branches: dict[str, Branches] = {}
        self.routers: dict[int, Router] = {}
        self.entering(1, None)

    @classmethod
    def of(cls, beside: Mapping[str, Mapping[str, Tensor]], names: Mapping[str, str]) -> Routing:
        """From the parts beside weights; `names`: the file's name of each parameter."""
        own = {source: module_of(name) for name, source in names.items()}
        found = cls()
        for weight, parts in beside.items():
            found.add(own[weight], parts)
        return found

    def add(self, module: str, parts: Mapping[str, Tensor]) -> None:
        """Take the branches of one module, and its router where that lies beside them."""
        self.branches[module] = branches = Branches.of(parts)
        if "prototypes" in parts or "gate" in parts:
            self.routers[branches.stage] = Router.of(parts)

    def entering(
        self, examples: int, mask: Tensor | None, evidence: dict[int, Tensor] | None = None
    ) -> None:
        """Take note of the batch that is asked next.

        examples   of the batch
        mask       (examples, tokens), which tokens are no padding; None: all of them
        evidence   of each stage that was asked about this batch already: its scores
        """
        self._examples = examples
        self._mask = mask
        self._evidence = {} if evidence is None else evidence

    def attached(self, model: nn.Module) -> Iterator[Any]:
        """Handles of the hooks that make the model's modules add their branches."""
        signature = inspect.signature(model.forward)

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.entering(*batch_of(signature, args, kwargs))

        yield model.register_forward_pre_hook(enter, with_kwargs=True)
        for name in self.branches:
            yield self.added(model, name)

    def added(self, model: nn.Module, name: str) -> Any:
        """The handle of the hook of one module, by its name."""

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
            return self._routed(
                name, self.branches[name], next(iter((*args, *kwargs.values()))), output
            )

        return model.get_submodule(name).register_forward_hook(hook, with_kwargs=True)

    def rows(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Inputs as (examples, tokens, d), and which tokens are no padding where that is known."""
        return by_example(x, self._examples, self._mask)

    def _shares(self, stage: int, x: Tensor, there: Tensor | None) -> Tensor:
        """The shares of a stage, from its scores and those of the stages before it."""
        router = self.routers[stage]
        self._evidence[stage] = scores = router.scores(x, there)
        if router.adds_up:
            before = [value for number, value in self._evidence.items() if number <= stage]
            scores = torch.stack(before).mean(0)
        return router.shares(scores)

    def _routed(self, name: str, branches: Branches, x: Tensor, output: Tensor) -> Tensor:
        tokens, there = self.rows(x)
        shares = self._shares(branches.stage, tokens, there)
        told(name, shares)
        each = shares.expand(-1, tokens.shape[1], -1).reshape(-1, shares.shape[-1])
        flat, found = tokens.reshape(-1, x.shape[-1]), output.reshape(-1, output.shape[-1])
        for expert in range(each.shape[1]):
            rows = each[:, expert].nonzero()[:, 0]
            if len(rows):
                answer = branches.answer(expert, flat[rows]) * each[rows, expert, None]
                found = found.index_add(0, rows, answer)
        return found.reshape(output.shape)


def told(name: str, shares: Tensor) -> None:
    """Tell whoever is `noting` the shares of a module."""
    if (noted := _noting.get()) is not None:
        noted(name, shares)


@contextlib.contextmanager
def noting(noted: Noted) -> Iterator[None]:
    """A context in which `noted` is told the shares of every routed layer that is asked."""
    token = _noting.set(noted)
    try:
        yield
    finally:
        _noting.reset(token)
