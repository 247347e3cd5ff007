"""What to merge and how: the one description that page, command line and notebooks share.

A recipe is a YAML file (see `docs/recipes.md`).  Relative paths in it start at its own folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..checkpoints import hub
from ..errors import InputError, listing, member, read_yaml, validated
from ..methods import (
    METHODS,
    STEPS,
    Applied,
    Options,
    as_mapping,
    describe,
    named_checkpoints,
    named_tasks,
)
from ..system import Shown
from ..tasks import names_file
from .mergekit_recipe import from_mergekit, is_mergekit
from .sections import Evaluation, ExpertEntry, LoraOutput, Refine, Routed, Rule
from .tuned import Tuned

Device = Literal["auto", "cpu", "cuda", "mps"]
Arithmetic = Literal["float32", "float64"]
IN_MEMORY = "memory:"  # before the name of a model that was given as a module or a state dict
OutputDtype = Literal["float32", "float64", "bfloat16", "float16"]

# Of `after`: one key each, the step's name, with its options; a bare name is one without options.
Steps = tuple[Annotated[dict[str, dict[str, Any]], BeforeValidator(as_mapping)], ...]


class Recipe(Shown, BaseModel):
    """A merge, completely described.

    base               the pre-trained checkpoint
    experts            the fine-tuned models, with their weights, statistics and tasks
    method             a name of `METHODS`
    options            of the method, by name; those left out have their defaults
    output             directory to write; without it nothing is written
    seed               of all that is random, such as the drops of DARE
    device             where the arithmetic runs; `auto`: the fastest device of the machine
    dtype              of the arithmetic
    output_dtype       that of the base by default
    weighting          `examples` multiplies each weight by its examples (FedAvg)
    heads              patterns of head tensors, instead of recognising them
    strangers          `allow` merges experts that have nothing in common with the base
    base_statistics    statistics of the base, for gradient matching
    base_fingerprint   if given, the base must have it
    engine             where layers are merged: in this process, or on a Ray cluster
    rounds             2: measure statistics again at the merge, and merge once more; 3: and again
    keep_sums          whether sums are written beside the merge, so that experts can be added later
    adds_to            the folder of a merge with such sums: `experts` are added to its experts
    by                 weights and options of layers by their names and depths
    after              steps on the merged update of every layer, in their order
    refine             how the merge is trained further; None, the default: it is not
    routed             branches beside the merge, one chosen by each input; None: a static merge
    lora               writes one LoRA on the base; None: the whole checkpoint
    evaluate           what is evaluated after the merge, or False
    search             options → values to try on validation data; the best is used
    tuned              how a search has chosen the settings
    folder             where relative paths start; not part of the file
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    experts: tuple[ExpertEntry, ...] = Field(min_length=1)
    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    output: str | None = None
    seed: int = Field(default=0, ge=0)
    device: Device = "auto"
    dtype: Arithmetic = "float32"
    output_dtype: OutputDtype | None = None
    weighting: Literal["weights", "examples"] = "weights"
    heads: tuple[str, ...] | None = None
    strangers: Literal["refuse", "allow"] = "refuse"
    base_statistics: str | None = None
    base_fingerprint: str | None = None
    engine: Literal["local", "ray"] = "local"
    rounds: int = Field(default=1, ge=1, le=5)
    keep_sums: bool = False
    adds_to: str | None = None
    by: tuple[Rule, ...] = ()
    after: Steps = ()
    refine: Refine | None = None
    routed: Routed | None = None
    lora: LoraOutput | None = None
    evaluate: Evaluation | Literal[False] = Evaluation()
    search: dict[str, tuple[Any, ...]] | None = None
    tuned: Tuned | None = None
    folder: Path = Field(Path(), exclude=True)

    def __repr__(self) -> str:
        """One line; the experts may be many."""
        names = listing(expert.name for expert in self.experts)
        return f"Recipe({self.method} of {names} over {self.base})"

    def path(self, reference: str) -> Path:
        """A path of the recipe, relative to the working directory instead of to `folder`."""
        return self.folder / hub.home(reference)

    def model_path(self, reference: str) -> Path:
        """The directory or file of a checkpoint, which may be a hub id (see `hub.locate`)."""
        if reference.startswith(IN_MEMORY):
            raise InputError(
                f"model '{reference.removeprefix(IN_MEMORY)}' of the recipe",
                expected="the path of a checkpoint",
                found="a model that was given in memory when it was merged",
                remedy="Save that model and name its path, or merge again with `merge_models`.",
            )
        return hub.locate(reference, self.folder)

    def parsed_options(self, earlier: int = 0) -> Options:
        """The method's options, validated, with defaults filled in.

        earlier   experts of the merge that these are added to
        """
        return parse_options(self.method, self.options, self.folder, self.count + earlier)

    @property
    def count(self) -> int:
        """How many experts take part: one of weight zero is left out."""
        weights = {entry.name: entry.weight for entry in self.experts}
        return taking_part(weights, weights)

    def steps(self) -> tuple[Applied, ...]:
        """The steps of `after`, validated, with defaults filled in."""
        return tuple(map(_step, self.after))


def taking_part(experts: Iterable[str], weights: Mapping[str, float]) -> int:
    """How many of the experts have a weight other than 0; one that is not named has weight 1."""
    return sum(weights.get(name, 1.0) != 0 for name in experts)


def _step(item: Mapping[str, Mapping[str, Any]]) -> Applied:
    if len(item) != 1:
        raise InputError(
            "a step of 'after'",
            expected="the name of one step with its options, as in `- stretch: {scale: 1.3}`",
            found=listing(item) or "none",
            remedy="Begin each step with a dash of its own.",
        )
    ((name, options),) = item.items()
    step = STEPS[member("a step of 'after'", name, STEPS)]
    return Applied(step, validated(f"options of the step '{name}'", step.options, options))


def parse_options(
    method: str, options: Mapping[str, Any], folder: Path = Path(), experts: int | None = None
) -> Options:
    """Validated options of a method, with defaults filled in.

    experts   how many are merged, by which some defaults differ; None: many

    Raises `InputError` for an unknown method or option (naming the nearest) or a bad value.
    """
    member("method", method, METHODS)
    parsed = validated(f"options of '{method}'", METHODS[method].options, dict(options))
    for name, path in named_checkpoints(method, parsed.model_dump()).items():
        if not (folder / path).exists():
            names = next(field.checkpoint for field in describe(method) if field.name == name)
            raise InputError(
                f"option '{name}' of '{method}'",
                expected=f"one of {', '.join(names)}, or the path of a checkpoint",
                found=f"'{path}'",
            )
    left = {
        own.name: own.default
        for own in describe(method, experts)
        if own.by_experts and own.name not in options
    }
    return parsed.model_copy(update=left) if left else parsed


def parse_recipe(content: Any, folder: str | Path = ".") -> Recipe:
    """The recipe of parsed YAML (or a dictionary); all but the files' contents is validated."""
    if not isinstance(content, Mapping):
        raise InputError("recipe", expected="a YAML mapping", found=type(content).__name__)
    content = {**content, "folder": Path(folder)}
    parts = (ExpertEntry, Evaluation, Rule, Refine, Routed, LoraOutput, Tuned)
    recipe = validated("recipe", Recipe, content, *parts)
    recipe.parsed_options()
    recipe.steps()
    for number, rule in enumerate(recipe.by, 1):
        _require_rule(recipe, rule, f"rule {number} of 'by'")
    known = METHODS[recipe.method].options.model_fields
    for name, values in (recipe.search or {}).items():
        member(f"search over an option of '{recipe.method}'", name, known)
        if not values:
            raise InputError(f"search over '{name}'", expected="values to try", found="none")
        for value in values:
            parse_options(recipe.method, {**recipe.options, name: value}, recipe.folder)
    return recipe


def _require_rule(recipe: Recipe, rule: Rule, thing: str) -> None:
    """Raise `InputError` for what is wrong with a rule whatever the tensors are called."""
    low, high = rule.depth or (0.0, 1.0)
    wrong: dict[str, str | Literal[False]] = {
        "'match' or 'depth', for the layers that it is about": rule.match is None
        and rule.depth is None
        and "neither",
        "'weight' or 'options', for what is otherwise there": rule.weight is None
        and not rule.options
        and "neither",
        "a 'depth' that rises": low > high and f"{low:g} to {high:g}",
    }
    for expected, found in wrong.items():
        if found:
            raise InputError(thing, expected=expected, found=found)
    for name in rule.weight if isinstance(rule.weight, dict) else ():
        member(f"weight of {thing}", name, [entry.name for entry in recipe.experts])
    parse_options(recipe.method, {**recipe.options, **rule.options}, recipe.folder)


def load_recipe(path: str | Path) -> Recipe:
    """The recipe that a file holds, which may be a mergekit configuration; a warning says then what
    became of it.

    Raises `InputError` for a missing file, bad YAML, a bad recipe, or what mergekit alone can do.
    """
    content = read_yaml("recipe", path, Recipe, ExpertEntry, Rule, Refine)
    folder = Path(path).parent
    if is_mergekit(content):
        content, notes = from_mergekit(content, folder)
        for note in notes:
            warnings.warn(note, stacklevel=2)
    return parse_recipe(content, folder)


def _elsewhere(recipe: Recipe, reference: str) -> str:
    """A checkpoint as any folder can name it: a hub id as it is, a path from the root."""
    if reference.startswith(IN_MEMORY) or hub.is_id(reference, recipe.folder):
        return reference
    return str(recipe.path(reference).resolve())


def pinned_models(recipe: Recipe) -> Recipe:
    """The recipe with the commit of every hub id; paths stay as they are."""
    experts = tuple(
        entry.model_copy(update={"model": hub.pinned(entry.model, recipe.folder)})
        for entry in recipe.experts
    )
    base = hub.pinned(recipe.base, recipe.folder)
    return recipe.model_copy(update={"base": base, "experts": experts})


def dump_recipe(recipe: Recipe, *, absolute: bool = False) -> str:
    """The YAML of a recipe; with `absolute` paths it may lie anywhere on this machine."""
    content = recipe.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    content = {"base": recipe.base, **content, "method": recipe.method, "seed": recipe.seed}
    if absolute:
        content["base"] = _elsewhere(recipe, content["base"])
        for key in ("base_statistics", "adds_to", "output"):
            if content.get(key):
                content[key] = str(recipe.path(content[key]).resolve())
        for expert in content["experts"]:
            expert["model"] = _elsewhere(recipe, expert["model"])
            for key in ("statistics", "optimizer"):
                if expert.get(key):
                    expert[key] = str(recipe.path(expert[key]).resolve())
            if names_file(expert.get("task") or ""):
                expert["task"] = str(recipe.path(expert["task"]).resolve())
        options = content.get("options", {})
        for name, path in named_checkpoints(recipe.method, options).items():
            options[name] = str(recipe.path(path).resolve())
        for name, task in named_tasks(recipe.method, options).items():
            if names_file(task):
                options[name] = str(recipe.path(task).resolve())
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
