"""The library's front door: what `import mats_core` hands out beyond its records.

A merge is opened once, judged here, and then run (`merging.run_plan`): the page, the command line
and Python come in by the same way.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import nn

from . import models, tasks
from .checkpoints import SHARD_BYTES, Weights, partial_of
from .errors import InputError
from .estimating import Estimate, estimate_plan, require
from .evaluation import Score, examining, scoring_loader
from .evaluation import evaluate as evaluation
from .merging import (
    Merge,
    evaluating_output,
    family_record,
    planned,
    recipe_record,
    require_output,
    run_plan,
    weights_record,
    work_done,
)
from .recipes import (
    Examined,
    Finished,
    Inputs,
    Plan,
    Recipe,
    Source,
    TaskList,
    inputs_of,
    measured_of,
    named,
    open_source,
    patterns,
    recipe_of,
    statistics_of,
    weights_of,
)
from .statistics import (
    EXAMPLES,
    Labels,
    Loss,
    MeasureSettings,
    Statistics,
    measuring_loader,
    measuring_task,
)
from .system import UNMEASURED, Event, Rates, changed, existing_device, part, watched
from .tasks import SplitName, Task

Measured = Statistics | str | Path  # statistics, or the file that holds them
FAMILY = "family.yaml"
Asked = Merge | nn.Module | Weights | str | Path  # what can be evaluated


# Merging ------------------------------------------------------------------------------------------


def merge_models(
    base: Source,
    experts: Mapping[Any, Source] | Sequence[Source],
    method: str = "average",
    *,
    statistics: Mapping[Any, Measured] | None = None,
    weights: Mapping[Any, float] | Sequence[float] | None = None,
    base_statistics: Measured | None = None,
    heads: Sequence[str] | str | None = None,
    strangers: bool = False,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    dtype: Literal["float32", "float64"] = "float32",
    output_dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = None,
    seed: int = 0,
    after: Sequence[str | Mapping[str, Mapping[str, Any]]] = (),
    by: Sequence[Mapping[str, Any]] = (),
    routed: Mapping[str, Any] | None = None,
    lora: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Merge:
    """The merge of models that were fine-tuned from one base.

    base             a module, a state dict, or the path (or hub id) of a checkpoint
    experts          the same, by name or in a list (`expert 1`, `expert 2`, …); kinds may be mixed,
                     and a PEFT adapter's directory is opened over the base
    method           a name of `METHODS`; its options are further keyword arguments
    statistics       of each expert, by its name: what `measure` returned, or a file
    weights          α_m of each expert, by name or in their order; 1 by default
    base_statistics  of the base, for methods that ask for them
    heads            patterns of tensors that belong to a task and are not merged, instead of
                     recognising them; an empty list: no heads
    strangers        whether experts are merged too that have nothing in common with the base
    device, dtype    of the arithmetic; results have the base's dtypes (or `output_dtype`) and lie
                     on the base's devices
    seed             of what is random, such as the drops of DARE
    after            steps on the merged update of every layer, as in a recipe: {"stretch":
                     {"scale": 1.3}}, "svc"
    by               rules on weights and options of layers, as in a recipe
    routed           branches beside the merge, one chosen by each input, as in a recipe; of models
                     given by their directories and without their tasks by {"by": "smile"}, or by
                     {"by": "updates", "examples": 0}
    lora             {"rank": 8} or {"energy": 0.99}: what one LoRA on the base holds of the merge,
                     as `save` writes it; the tensors are those of the base with it
    progress         whether a bar is shown; by default in notebooks and terminals

    Nothing is copied: a module's tensors are read where they lie, layer by layer, and the modules
    stay as they are.  What is loaded into the base afterwards, such as the merge, is therefore what
    `merged.inputs` shows from then on, and where the next merge starts.  Raises `InputError` for
    models or statistics that do not fit, and for unknown methods or options (with the nearest
    name).
    """
    sources, wanted = named(experts), patterns(heads)
    opened = open_source(base, "base")
    finetuned = {name: open_source(source, name, opened) for name, source in sources.items()}
    measured = statistics_of(statistics, list(sources))
    prior = None if base_statistics is None else measured_of(base_statistics, "base")
    shares = weights_of(weights, list(sources))
    # What is misspelt is told before anything is read.
    recipe = recipe_of(
        base, sources, method, options, weights=shares, device=device, dtype=dtype,
        output_dtype=output_dtype, seed=seed, heads=wanted, after=after, by=by, lora=lora,
        routed=routed, strangers="allow" if strangers else "refuse",
    )  # fmt: skip
    plan = planned(
        recipe, inputs_of(opened, finetuned, measured, prior, wanted, strangers=strangers)
    )
    judge(plan)
    return Merge.of(watched(run_plan(plan), progress), recipe)


def run(
    recipe: Recipe,
    *,
    force: bool = False,
    resume: bool = False,
    check_fit: bool = True,
    inputs: Inputs | None = None,
    keep: Sequence[int] = (),
    shard_bytes: int = SHARD_BYTES,
) -> Generator[Event, None, Finished]:
    """Events of a merge, the last of which is `Finished`; ending the iteration cancels the merge.

    `force`: replace an output that exists, or one that an unfinished merge has begun.  `resume`: go
    on with an unfinished one.  `check_fit`: refuse what finds neither memory nor disk, from the
    files' headers alone.  `inputs`: files that are open already, which are not judged again.
    `keep`: CG iterations whose iterates the `LayerDone` events carry.  Raises `InputError` before
    any work for bad input.
    """
    refuse(recipe, force=force, resume=resume)
    plan = planned(recipe, inputs, keep)
    if check_fit and inputs is None:
        judge(plan)
    return (yield from run_plan(plan, force=force, resume=resume, shard_bytes=shard_bytes))


def merge(
    recipe: Recipe,
    *,
    force: bool = False,
    resume: bool = False,
    check_fit: bool = True,
    inputs: Inputs | None = None,
    progress: bool | None = None,
) -> Merge:
    """The merged model of a recipe, with its report; the arguments are those of `run`.

    `progress`: whether a bar is shown; by default in notebooks and terminals.  Warns of doubts
    about experts and tasks before the first layer is merged; the report keeps them.
    """
    events = run(recipe, force=force, resume=resume, check_fit=check_fit, inputs=inputs)
    return Merge.of(watched(changed(events, _warning), progress), recipe)


def _warning(event: Event) -> Event:
    """The event, after a warning for each doubt that it tells of."""
    for note in event.notes if isinstance(event, Examined) else ():
        warnings.warn(note, stacklevel=2)
    return event


# Measuring ----------------------------------------------------------------------------------------


def measure(
    model: nn.Module | Weights | str | Path,
    data: Iterable[Any] | Task | str,
    *,
    examples: int | None = None,
    labels: Labels = "empirical",
    loss: Loss | None = None,
    seed: int = 0,
    blocks: int = 0,
    rank: int = 0,
    names: Mapping[str, str] | None = None,
    device: torch.device | str | None = None,
    base: Weights | str | Path | None = None,
    progress: bool | None = None,
) -> Statistics:
    """Statistics of a fine-tuned model on examples of its task: Grams and diagonal Fishers.

    model     a module, or the path (or hub id) of a checkpoint
    data      for a module its loader: batches `(x, y)`, or mappings with `labels` as Hugging Face
              makes them; for a checkpoint its task: a file, `sample:NAME`, or a `Task`.  Examples
              come first, in a batch and in what every layer sees; where other rows are seen, the
              layer is left out (other rows, as many as the examples, cannot be told apart)
    examples  at most so many: by default all of a loader's, 256 of a task's
    labels    `empirical`: the data's own; `true`: drawn from the model's predictions
    loss      for models that give no logits: (model, batch) → the loss of each example (n,), or
              their sum
    seed      of what is drawn
    blocks    parameters of at most so many elements also get their full Fisher block
    rank      Grams of at least twice as many columns are kept as so many rows; 0: none
    names     the tensors' names by the module's parameters'; the same by default
    device    where to measure: where the module lies, or the CPU
    base      what a PEFT adapter's directory is opened over
    progress  whether a bar is shown; by default in notebooks and terminals

    Raises `InputError` for an empty loader and for batches or models of another form.
    """
    of_task = not isinstance(model, nn.Module)
    settings = MeasureSettings(
        examples=EXAMPLES if examples is None and of_task else examples, labels=labels, seed=seed,
        blocks=blocks, rank=rank, device=device,
    )  # fmt: skip
    steps: Any
    if isinstance(model, nn.Module):
        loader: Any = data  # anything that is iterated; `measuring_loader` looks closer
        steps = measuring_loader(model, loader, settings, loss=loss, names=names)
    else:
        _require_task(model, data)
        task = data if isinstance(data, Task) else tasks.load(str(data))
        over = None if base is None else open_source(base, "base")
        steps = measuring_task(open_source(model, "model", over), task, settings)
    return watched(steps, progress)


def _require_task(model: Any, data: Any) -> None:
    """Raise `InputError` for what is neither a module nor a checkpoint with its task."""
    if isinstance(model, Merge | Mapping):
        found, remedy = "a state dict", "Load it into a module, and measure that."
        if isinstance(model, Merge):
            found, remedy = "a merge", "Measure `merged.model()`."
        expected = "a module, or the path of a checkpoint"
        raise InputError("model to measure", expected=expected, found=found, remedy=remedy)
    if not isinstance(data, Task | str | Path):
        raise InputError(
            "data to measure on",
            expected="a task (a file, `sample:NAME` or a `Task`), for the path of a checkpoint",
            found=type(data).__name__,
            remedy="Pass the module instead of its path, to measure it on a loader.",
        )


# Evaluating and inspecting ------------------------------------------------------------------------


@overload
def evaluate(model: Asked, data: None = None, **settings: Any) -> TaskList: ...
@overload
def evaluate(model: Asked, data: Iterable[Any] | Task | str, **settings: Any) -> Score: ...
def evaluate(  # pyright: ignore[reportInconsistentOverload]  # the settings are spelt out below
    model: Asked,
    data: Iterable[Any] | Task | str | None = None,
    *,
    split: SplitName = "test",
    expert: str | None = None,
    examples: int | None = None,
    device: str | None = None,
    base: Weights | str | Path | None = None,
    progress: bool | None = None,
) -> Score | TaskList:
    """The score of a model on data, or without data those of a merge on its experts' tasks: a list
    of `TaskResult` that shows itself as a table.

    model     a merge, a module, or the path (or hub id) of a checkpoint or of an output directory
    data      a loader, for a module or a merge of modules; a task (file, `sample:NAME` or `Task`),
              for a checkpoint or a merge of directories
    split     of a task
    expert    whose head and names a merge is asked with
    examples  at most so many
    base      what a PEFT adapter's directory is opened over
    progress  whether a bar is shown; by default in notebooks and terminals

    Warns of what was decided to ask a task (classes that are spelt otherwise, rows left out).
    Raises `InputError` for what cannot be asked, and without data where no task is named.
    """
    if data is None:
        return watched(_evaluating_tasks(model, split, examples, device), progress)
    if not isinstance(data, Task | str):
        if not isinstance(model, Merge | nn.Module):
            found = open_source(model, "model")
            raise InputError(f"model '{found.path}'", expected="a task", found="a loader")
        asked = model.model(expert) if isinstance(model, Merge) else model
        scoring = scoring_loader(asked, data, examples=examples, device=device)
        return watched(scoring, progress)
    task = tasks.load(data) if isinstance(data, str) else data
    if isinstance(model, Merge):
        weights: Any = model.weights_of(expert)
        held = model.routed_state(expert)
    else:
        over = None if base is None else open_source(base, "base")
        weights = open_source(model, "model", over)
        held = models.tensors_of(weights)
    asking = models.check(weights, task)
    for note in asking.notes:
        warnings.warn(note, stacklevel=2)
    some = asking.task.split(split).first(examples)
    place = existing_device(device or "cpu")
    return watched(evaluation.scoring(weights.directory, held, some, device=place), progress)


def _evaluating_tasks(
    model: Any, split: SplitName, examples: int | None, device: str | None
) -> Generator[Event, None, TaskList]:
    if isinstance(model, str | Path):
        return TaskList((yield from evaluating_output(Path(model), split)))
    if not isinstance(model, Merge) or not model.tasks:
        raise InputError(
            "data to evaluate on",
            expected="a loader or a task",
            found="none, and no expert that names a task",
        )
    family = model.inputs.family
    place = str(existing_device(device or "cpu"))
    preparing = examining(family, model.recipe.folder, split, examples, place)
    found = yield from part(preparing, 0.0, 0.5)
    return TaskList((yield from part(found.take({**model.tensors, **model.branches}), 0.5, 1.0)))


def inspect(source: Source, *, base: Weights | str | Path | None = None) -> dict[str, Any]:
    """What a recipe, a checkpoint or a model in memory holds, as plain values.

    For the path of a recipe or a family: the whole preflight and the role of every tensor, without
    merging.  For anything else: tensors, dtypes, classes and fingerprint.  `base`: what a PEFT
    adapter's directory is opened over.
    """
    if isinstance(source, str | Path) and _is_family(Path(source)):
        return family_record(Path(source))
    if isinstance(source, str | Path) and Path(source).suffix in (".yaml", ".yml"):
        return recipe_record(Path(source))
    over = None if base is None else open_source(base, "base")
    weights = open_source(source, "model", over)
    path = str(source) if isinstance(source, str | Path) else str(weights.path)
    return weights_record(weights, path)


def _is_family(path: Path) -> bool:
    """Whether a path is that of a family.yaml, or of a folder with one and no weights beside it."""
    inside = os.path.isfile(path / FAMILY)  # which takes any text for a path
    return path.name == FAMILY or (inside and not any(path.glob("model*.safetensors")))


# Judging ------------------------------------------------------------------------------------------


def refuse(recipe: Recipe, *, force: bool = False, resume: bool = False) -> None:
    """Raise `InputError` where an output cannot be written without a loss.

    No input, foreign file or unfinished merge is thrown away; what a merge wrote before, and an
    unfinished one, with `force` alone.
    """
    if recipe.output is None:
        return
    target = recipe.path(recipe.output)
    require_output(target, recipe, force=force)
    done = "" if resume or force else work_done(partial_of(target))
    if done:
        raise InputError(
            f"output '{target}'",
            expected="no unfinished merge beside it",
            found=f"one that has done {done}",
            remedy="Pass --resume to go on with it, or --force to start again (resume=True or "
            "force=True in Python).",
        )


def judge(
    plan: Plan, *, examples: Mapping[str, int] | None = None, speeds: Rates | None = UNMEASURED
) -> Estimate:
    """The estimate of a merge that finds memory and disk; raises `InputError` for another one.

    `examples`: how many there are to test on, by expert.  `speeds`: None for those of this machine,
    where seconds are asked for.
    """
    found = estimate_plan(plan, examples=examples, speeds=speeds)
    require(found)
    return found
