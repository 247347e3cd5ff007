"""Routed merges at work: models that run as the one expert that each input chooses beforehand.

A first pass through the merge as it is asks routers in front of its layers l; their scores add up,
and the whole example takes the expert t with the largest sum,

    t = argmax_t Σ_l (z_l · p_{l,t} − o_{l,t}),        W = M + left_t right_t,

with z_l the mean over the tokens of one example in front of layer l, padding left out, or that mean
and then the standard deviation of every number over the same tokens.  A second pass runs
with that expert's W for every tensor M that has a branch, norms, biases and embeddings included:
two forward passes, the first up to its last router.  An example whose two best sums are nearer to
each other than `margin` runs with the mean of the two experts.  Examples that choose alike run
together.

The parts ride with the model's tensors, under `names.part_name` of the tensor, and in its layout; T
experts stand one below the other in each:

    left (T, rows, r), right (T, r, columns) of a tensor seen as a matrix of so many rows or,
    without left, right (T, …) the whole difference
    prototypes (T, d_in), or (T, 2 d_in) with deviations, and offsets (T,) beside the weights in
    front of which the router asks
    margin () beside one of them
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..names import module_of
from .routing import Router, Routing, batch_of, by_example, mean_token, told

Forward = Any  # a model's `forward`


class _Stop(Exception):
    """All routers were asked."""


def change(parts: Mapping[str, Tensor], shares: Sequence[float], like: Tensor) -> Tensor:
    """What the branches of all experts, by their shares, add to a tensor, in its shape, dtype and
    device."""
    total = torch.zeros_like(like)
    for expert, share in enumerate(shares):
        if share:
            right = parts["right"][expert].to(like)
            if "left" in parts:
                right = parts["left"][expert].to(like) @ right
            total += share * right.reshape(like.shape)
    return total


class Choosing:
    """What makes a model choose first, and run as the chosen expert then.

    changes   parameter's name in the module → its parts, `right` among them
    routers   the module in front of which each router asks
    margin    below which two experts are mixed
    """

    def __init__(
        self,
        changes: Mapping[str, Mapping[str, Tensor]],
        routers: Mapping[str, Router],
        margin: float = 0.0,
    ) -> None:
        self.changes, self.routers, self.margin = changes, routers, margin

    @classmethod
    def of(cls, beside: Mapping[str, Mapping[str, Tensor]], names: Mapping[str, str]) -> Choosing:
        """From the parts beside tensors; `names`: the file's name of each parameter."""
        own = {source: name for name, source in names.items()}
        changes = {own[name]: parts for name, parts in beside.items() if "right" in parts}
        asked = {own[name]: parts for name, parts in beside.items() if "prototypes" in parts}
        margin = sum(float(parts["margin"]) for parts in asked.values() if "margin" in parts)
        return cls(changes, {module_of(name): Router.of(p) for name, p in asked.items()}, margin)

    def attached(self, model: nn.Module) -> Iterator[Any]:
        """The handle of what stands in the place of the model's `forward`."""
        yield _Instead(model, self._forward)

    def shares(self, model: nn.Module, plain: Forward, args: Any, kwargs: Any) -> Tensor:
        """The shares (n, T) of the experts with which each example of a call runs."""
        seen = _seen_before(model, plain, (args, kwargs), self.routers)
        scores = []
        for name, router in self.routers.items():
            assert router.prototypes is not None  # `of` takes no other ones
            read = seen[name][:, : router.prototypes.shape[1]]
            scores.append(router.scores(read[:, None]))
        return shares_of(torch.stack(scores).sum(0), self.margin)

    def _forward(self, model: nn.Module, plain: Forward, *args: Any, **kwargs: Any) -> Any:
        shares = self.shares(model, plain, args, kwargs)
        told(next(iter(self.routers)), shares[:, None])
        alike, which = shares.unique(dim=0, return_inverse=True)
        groups = [(which == number).nonzero()[:, 0] for number in range(len(alike))]
        answers = []
        for mixed, places in zip(alike.tolist(), groups, strict=True):
            own = (args, kwargs) if len(groups) == 1 else _taken((args, kwargs), which, places)
            with self._as(model, mixed):
                answers.append(plain(*own[0], **own[1]))
        return _stitched(answers, groups)

    @contextlib.contextmanager
    def _as(self, model: nn.Module, shares: Sequence[float]) -> Iterator[None]:
        """A context in which the model's parameters are those of one expert, or a mean of them."""
        held: dict[int, list[tuple[dict[str, Any], str]]] = {}
        for module in model.modules():
            for name, value in module._parameters.items():
                held.setdefault(id(value), []).append((module._parameters, name))
        undo = []
        try:
            for name, parts in self.changes.items():
                value: Any = model.get_submodule(module_of(name))._parameters[_leaf(name)]
                changed = value + change(parts, shares, value)
                for owner, key in held[id(value)]:  # all of them, where it is tied
                    undo.append((owner, key, value))
                    owner[key] = changed
            yield
        finally:
            for owner, key, value in undo:
                owner[key] = value


def shares_of(scores: Tensor, margin: float) -> Tensor:
    """Of scores (n, T) the shares (n, T) of the experts: one for the best, or a half for each of
    the two best where they are less than a margin apart."""
    best, which = scores.topk(min(2, scores.shape[1]), 1)
    unsure = (best[:, :1] - best[:, -1:] < margin) & (best.shape[1] > 1)
    half = torch.where(unsure, 0.5, 1.0).to(scores)
    given = torch.cat([half, 1 - half], 1)[:, : best.shape[1]]
    return torch.zeros_like(scores).scatter_(1, which, given)


class _Instead:
    """A handle of a function that stands in the place of a model's `forward` until `remove`."""

    def __init__(self, model: nn.Module, function: Any) -> None:
        self.model, plain = model, model.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            return function(model, plain, *args, **kwargs)

        model.forward = forward

    def remove(self) -> None:
        """Give the model its `forward` back."""
        del self.model.forward


def routed_by(
    beside: Mapping[str, Mapping[str, Tensor]], names: Mapping[str, str]
) -> Choosing | Routing:
    """What adds these parts to a model: layer by layer where they name stages, or by a choice
    beforehand (`Choosing.of` and `Routing.of` have the arguments)."""
    by_layer = any("stage" in parts for parts in beside.values())
    return Routing.of(beside, names) if by_layer else Choosing.of(beside, names)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def seen_inputs(
    model: nn.Module, inputs: Mapping[str, Tensor], modules: Sequence[str]
) -> dict[str, Tensor]:
    """Mean and standard deviation (n, 2 d) over the tokens of each example of a batch, in front of
    modules, in their order."""
    found = _seen_before(model, model.forward, ((), inputs), modules)
    return {name: found[name] for name in modules}


def _seen_before(
    model: nn.Module, plain: Forward, call: tuple[Any, Any], modules: Collection[str]
) -> dict[str, Tensor]:
    """What `seen_inputs` returns, of one call, which ends when all modules were reached."""
    count, mask = batch_of(inspect.signature(plain), *call)
    found: dict[str, Tensor] = {}

    def noting(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            x = next(iter((*args, *kwargs.values())))
            tokens, there = by_example(x, count, mask)
            mean = mean_token(tokens, there)
            spread = mean_token((tokens - mean[:, None]).square(), there).sqrt()
            found[name] = torch.cat([mean, spread], 1)
            if len(found) == len(modules):
                raise _Stop

        return model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)

    handles = list(map(noting, modules))
    try:
        with torch.no_grad(), contextlib.suppress(_Stop):
            plain(*call[0], **call[1])
    finally:
        for handle in handles:
            handle.remove()
    return found


def _taken(value: Any, chosen: Tensor, places: Tensor) -> Any:
    """A call's arguments for some of its examples: whatever has a row for each of them is cut."""
    if isinstance(value, Tensor):
        whole = value.ndim > 0 and len(value) == len(chosen)
        return value[places.to(value.device)] if whole else value
    if isinstance(value, tuple | list):
        return type(value)(_taken(one, chosen, places) for one in value)
    if isinstance(value, dict):
        return {name: _taken(one, chosen, places) for name, one in value.items()}
    return value


def _stitched(answers: Sequence[Any], places: Sequence[Tensor]) -> Any:
    """The answers to all examples from those of groups: tensors with a row for each are put
    together, scalars (a loss) are means; of what is neither, such as a cache, nothing is kept."""
    first = answers[0]
    if len(answers) == 1:
        return first
    if isinstance(first, Tensor) and first.ndim == 0:
        sizes = [len(rows) for rows in places]
        return sum(a * n for a, n in zip(answers, sizes, strict=True)) / sum(sizes)
    if isinstance(first, Tensor):
        order = torch.cat(list(places)).argsort().to(first.device)
        return torch.cat(list(answers))[order]
    if isinstance(first, Mapping):
        rows = {name: _stitched([one[name] for one in answers], places) for name in first}
        return type(first)(**rows)
    if isinstance(first, tuple | list):
        return type(first)(_stitched(each, places) for each in zip(*answers, strict=True))
    return None
