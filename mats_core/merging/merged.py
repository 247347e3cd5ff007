"""`Merge`: a merged model with its report, whether it lies in memory or in a directory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import models
from ..adapters import Lora, open_expert
from ..checkpoints import (
    SHARD_BYTES,
    CheckpointWriter,
    InMemory,
    Spec,
    Weights,
    hub,
    original,
    staged_directory,
    stem_of,
)
from ..errors import InputError, listing, member, validated
from ..evaluation import evaluate
from ..families import Expert
from ..names import part_name, weight_and_part
from ..recipes import Finished, Inputs, LoraOutput, Recipe, Report, prepare, saved_names_of
from ..system import Shown, drain, temporary_folder
from . import as_lora
from .directory import finish_directory, require_output


@dataclass(frozen=True, repr=False)
class Merge(Shown):
    """A merged model: weights by the base's names, and the report of how they came about.

    report    what happened to every tensor, and the accuracy on the tasks where it was tested
    tensors   name → merged tensor; read from the output directory where the merge was written
    recipe    what was merged and how, with the options that were chosen
    inputs    the base, the experts and their statistics, as they were opened
    branches  of a routed merge, by their names beside the weights (`mats_core.models.routing`)
    """

    report: Report
    tensors: Mapping[str, Tensor]
    recipe: Recipe
    inputs: Inputs = field(repr=False)
    branches: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, finished: Finished, recipe: Recipe) -> Merge:
        """The merge that a recipe's events ended with."""
        report, base = finished.report, finished.inputs.family.base
        tensors: Mapping[str, Tensor]
        if report.output:
            tensors = _Lazy(open_expert(report.output, base))
        else:
            on = {name: _device(base, name) for name in finished.tensors}
            tensors = {name: value.to(device=on[name]) for name, value in finished.tensors.items()}
        chosen = {"options": dict(report.options), "search": None}
        chosen_recipe = recipe.model_copy(update=chosen)
        return cls(report, tensors, chosen_recipe, finished.inputs, finished.branches)

    def __repr__(self) -> str:
        experts = listing(expert.name for expert in self.inputs.family.experts)
        return f"Merge of {experts}: {self.report!r}"

    def state_dict(self, head_of: str | None = None) -> dict[str, Tensor]:
        """Tensors that load into the base as it is; with `head_of` into that expert's model.

        `head_of`: an expert's name; its head and its own names of the tensors are taken.  Tied
        tensors are there under each of their names.  The order is the module's, where the model was
        given as one.  In memory these are the merge's own tensors, not copies: what is changed in
        them is changed in the merge.  Of a routed merge it is the static one that its branches lie
        beside (`model` and `routed_state` have them).  Raises `InputError` for an unknown expert.
        """
        if head_of is None:
            base = self.inputs.family.base
            return _in_order(base, {base.own(name): self._merged(name) for name in base.tensors})
        expert = self._expert(head_of)
        found = evaluate.for_expert(self.tensors, self.inputs.family, expert)
        for name in expert.checkpoint.tensors:
            if expert.own(name) not in found:  # its head, and buffers that only it has
                device = _device(expert.checkpoint, name)
                found[expert.own(name)] = expert.checkpoint.read(name, device=device)
        return _in_order(expert.checkpoint, found)

    def routed_state(self, expert: str | None = None) -> dict[str, Tensor]:
        """`state_dict` with the branches beside the weights, as `models.build` and `mats_core`'s
        evaluation take them; of a static merge `state_dict` alone."""
        family = self.inputs.family
        if expert is None:
            renamed: Mapping[str, Tensor] = {
                part_name(family.base.own(weight), part): value
                for name, value in self.branches.items()
                for weight, part in (weight_and_part(name),)
            }
        else:
            renamed = evaluate.for_expert(self.branches, family, self._expert(expert))
        return {**self.state_dict(expert), **renamed}

    def model(self, expert: str | None = None) -> nn.Module:
        """A module with the merged weights: a copy of the base, or of an expert with its head.

        Modules that were given are copied; for directories transformers builds the model that
        their `config.json` describes, in evaluation mode.  Of a routed merge its layers add the
        branches, whose expert each input chooses.  Raises `InputError` where the model was given as
        a bare state dict or file, of which no module is known.
        """
        weights = self.weights_of(expert)
        source, state = original(weights), self.routed_state(expert)
        if isinstance(source, InMemory) and source.module is not None:
            built = copy.deepcopy(source.module)
            built.load_state_dict(state)
            return built
        if source.directory is None:
            raise InputError(
                f"model of '{expert or 'the base'}'",
                expected="a module, or a directory with config.json",
                found=f"bare tensors in '{source.path}'",
                remedy="Load `state_dict()` into a module of yours.",
            )
        kinds = {v.dtype for v in state.values() if v.is_floating_point()}
        dtype = next(iter(kinds)) if len(kinds) == 1 else torch.float32
        return models.build(source.directory, state, dtype=dtype)

    def save(
        self, folder: str | Path, *, force: bool = False, lora: Mapping[str, Any] | None = None
    ) -> Path:
        """The directory that was written: weights, heads, recipe, report and model card.

        It is the output of the command line's `merge`, with the base's configuration and tokenizer
        where the base has them, and it appears whole or not at all.  Of a base that is a module of
        transformers it holds `config.json` and the names of `save_pretrained`: `from_pretrained`
        opens it.  Raises `InputError` where
        something lies at `folder` and `force` is not set.  With `force` an empty folder is
        replaced, or what an earlier merge wrote; never a folder of other things, and none that
        holds the base, an expert or statistics, or lies inside of them.

        `lora`: {"rank": 8} or {"energy": 0.99} writes one LoRA on the base in place of the weights,
        as the recipe's key of that name does (and the merge of such a recipe is saved so anyway).
        Scores of a merge before it was cut down to a LoRA are left out of its report.
        """
        if not isinstance(folder, str | Path):
            raise InputError("folder to save in", expected="a path", found=type(folder).__name__)
        target = Path(folder)

        def allow(place: Path) -> None:
            require_output(place, self.recipe, self.inputs, force=force)

        allow(target)
        report = replace(self.report, output=str(target.resolve()))
        # The sums lie beside the merge that was written, if anywhere.
        changes = {"output": str(target.resolve()), "keep_sums": False}
        if lora is not None:
            changes = {**changes, "lora": validated("lora", LoraOutput, lora)}
        recipe = self.recipe.model_copy(update=changes)
        plan = prepare(recipe, self.inputs)
        as_lora.require(plan)
        adapter = None
        if recipe.lora is not None:
            adapter = drain(as_lora.factoring(plan, self.tensors, self._merged))
            report = self._told(report, recipe.lora, adapter)
        base = self.inputs.family.base
        names = saved_names_of(base)
        specs = {names[name]: (v.dtype, tuple(v.shape)) for name, v in self._sorted()}
        with staged_directory(target, allow=allow) as staging:
            if adapter is not None:
                as_lora.put(plan, adapter, staging)
            else:
                self._write(staging, specs, names)
            finish_directory(plan, staging, report, self.branches)
        return target

    def _write(self, folder: Path, specs: Mapping[str, Spec], names: Mapping[str, str]) -> None:
        stem = stem_of(self.inputs.family.base)
        with CheckpointWriter(folder, specs, shard_bytes=SHARD_BYTES, stem=stem) as writer:
            for name, value in self._sorted():
                writer.add(names[name], value)

    def _told(self, report: Report, wanted: LoraOutput, adapter: Lora) -> Report:
        """The report of the merge as an adapter; its scores, where they are that one's."""
        notes = [*report.warnings, *as_lora.notes_on(adapter)]
        if wanted != self.recipe.lora and report.tasks:
            notes.append("the merge was tested before it was cut down to a LoRA: no scores of it")
            report = replace(report, tasks=())
        told = as_lora.told(wanted, adapter)
        return replace(report, lora=told, warnings=tuple(dict.fromkeys(notes)))

    def push_to_hub(self, name: str, *, private: bool = True) -> str:
        """The address of a repository on the Hugging Face hub, made now with what `save` writes.

        name      `organisation/model`, or `model` for the account that is logged in
        private   whether only its owners see it

        The one call of this library that sends anything away; nothing else calls it.
        """
        with temporary_folder("push") as folder:
            return hub.push(self.save(folder / "merged"), name, private=private)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that experts name and that their directories can be asked about."""
        return self.inputs.family.tasks

    def weights_of(self, expert: str | None = None) -> Weights:
        """The weights that were opened for the base, or for an expert."""
        return self.inputs.family.base if expert is None else self._expert(expert).checkpoint

    def _sorted(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor), one at a time, in the base's order."""
        for name in self.inputs.family.base.tensors:
            if name in self.tensors:
                yield name, self.tensors[name]

    def _merged(self, name: str) -> Tensor:
        # What is tied is written once, with the one that it follows.
        return self.tensors[name if name in self.tensors else self.inputs.family.tied_to[name]]

    def _expert(self, name: str) -> Expert:
        experts = {expert.name: expert for expert in self.inputs.family.experts}
        return experts[member("expert", name, experts)]


def _in_order(weights: Weights, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in the order of the module that the weights were taken from."""
    source = original(weights)
    module = source.module if isinstance(source, InMemory) else None
    names = () if module is None else [name for name in module.state_dict() if name in state]
    return {**{name: state[name] for name in names}, **state}


def _device(weights: Weights, name: str) -> torch.device | None:
    """Where a tensor of a model lies; None for files."""
    source, own = original(weights), weights.own(name)
    return source.held[own].device if isinstance(source, InMemory) else None


class _Lazy(Mapping[str, Tensor]):
    """Tensors of a checkpoint, read when they are asked for."""

    def __init__(self, checkpoint: Weights) -> None:
        self.checkpoint = checkpoint

    def __getitem__(self, name: str) -> Tensor:
        return self.checkpoint.read(name)

    def __contains__(self, name: object) -> bool:  # without reading it
        return name in self.checkpoint.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.checkpoint.tensors)

    def __len__(self) -> int:
        return len(self.checkpoint.tensors)

    def __repr__(self) -> str:
        return f"{len(self)} tensors in '{self.checkpoint.path}'"
