"""`family.yaml`: a base and its experts with their tasks, from which any recipe can be made.

name: Drawn eight
base: base
base_task: sample:pretraining        # optional; gradient matching measures the base on it
heads: ["classifier.*"]              # optional; patterns of head tensors, if not recognised
experts:
  - {name: digits, model: digits, task: "sample:digits"}
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .. import tasks
from ..adapters import open_expert
from ..checkpoints import Weights, hub
from ..errors import existing, listing, member, read_yaml, validated
from ..statistics import (
    MeasureSettings,
    Member,
    cached_path,
    measuring_on_ray,
    measuring_once,
)
from ..system import Event, Shown, part, watched
from .recipe import Recipe, parse_recipe
from .sections import ExpertEntry

MEAN = "base"  # the folder beside the family.yaml where the experts' mean stands in for their base


class FamilyFile(Shown, BaseModel):
    """A family as its `family.yaml` describes it: one base and the experts fine-tuned from it.

    name        what the page calls it
    base        the pre-trained checkpoint: a path or a hub id
    base_task   the task on which the base is measured, for gradient matching; optional
    heads       patterns of head tensors, instead of recognising them
    strangers   `allow` merges experts that have nothing in common with the base
    experts     name, checkpoint and task of each
    folder      where relative paths start; not part of the file
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    base: str
    base_task: str | None = None
    heads: tuple[str, ...] | None = None
    strangers: Literal["refuse", "allow"] = "refuse"
    experts: tuple[ExpertEntry, ...] = Field(min_length=1)
    folder: Path = Field(Path(), exclude=True)

    def __repr__(self) -> str:
        """One line; the experts may be many."""
        names = listing(expert.name for expert in self.experts)
        return f"FamilyFile({self.name}: {names} over {self.base})"

    def model_path(self, reference: str) -> Path:
        """The directory or file of a checkpoint, which may be a hub id (see `hub.locate`)."""
        return hub.locate(reference, self.folder)

    def members(self, *, with_base: bool = False) -> list[tuple[str, Path, str]]:
        """(name, checkpoint, task) of everything that can be measured."""
        found = [
            (expert.name, self.model_path(expert.model), expert.task)
            for expert in self.experts
            if expert.task
        ]
        if with_base and self.base_task:
            found.append(("base", self.model_path(self.base), self.base_task))
        return found

    def open(self, path: Path) -> Weights:
        """The weights of a member; an adapter is opened over the family's base."""
        return open_expert(path, self.model_path(self.base))

    def recipe(
        self,
        method: str,
        options: Mapping[str, Any] | None = None,
        *,
        statistics: Mapping[str, Path] | None = None,
        experts: tuple[str, ...] | None = None,
        weights: Mapping[str, float] | None = None,
        **settings: Any,
    ) -> Recipe:
        """A recipe over this family; `experts` restricts it, `statistics` maps names to files."""
        files = {name: str(Path(file).resolve()) for name, file in (statistics or {}).items()}
        entries = []
        for expert in self.experts:
            if experts is not None and expert.name not in experts:
                continue
            entry = expert.model_dump(exclude_none=True)
            if expert.name in files:
                entry["statistics"] = files[expert.name]
            if weights and expert.name in weights:
                entry["weight"] = weights[expert.name]
            entries.append(entry)
        if self.heads is not None:
            settings.setdefault("heads", self.heads)
        if self.strangers != "refuse":
            settings.setdefault("strangers", self.strangers)
        if "base" in files:
            settings["base_statistics"] = files["base"]
        content = {
            "base": self.base,
            "experts": entries,
            "method": method,
            "options": dict(options or {}),
            **settings,
        }
        return parse_recipe(content, self.folder)


def load_family(path: str | Path) -> FamilyFile:
    """The family that a `family.yaml`, or the folder that holds one, describes.

    Raises `InputError` for a missing file, bad YAML or unknown keys.
    """
    path = existing("family", path)
    if path.is_dir():
        path = existing("family", path / "family.yaml")
    content = {**read_yaml("family", path, FamilyFile, ExpertEntry), "folder": path.parent}
    return validated(f"family '{path}'", FamilyFile, content, ExpertEntry)


def measuring_all(
    collection: FamilyFile,
    settings: MeasureSettings,
    *,
    with_base: bool = True,
    engine: Literal["local", "ray"] = "local",
) -> Generator[Event, None, dict[str, Path]]:
    """Statistics of every member, measured where the machine's cache has none: name → file.

    `settings`: examples, labels, seed and device, as `measuring_once` takes them.  An event before
    each member, and after each batch of those that are measured.  `engine`: one after the other in
    this process, or side by side on a Ray cluster, which sees the cache under the same path; there
    an event when the cluster is ready, and after each member.
    """
    member("engine", engine, ("local", "ray"))
    members = collection.members(with_base=with_base)
    files: dict[str, Path] = {}
    together: dict[Path, Member] = {}  # two names of one expert and task are one file
    for index, (name, path, reference) in enumerate(members):
        start, stop = index / len(members), (index + 1) / len(members)
        whose = f"statistics of {name} ({index + 1} of {len(members)})"
        begun = start if engine == "local" else 0.0  # the cluster counts from the start
        yield Event(fraction=begun, text=f"Looking for the {whose}")
        one = _looked_up(collection, settings, name, path, reference)
        files[name] = one.file
        if one.file.is_file():
            continue
        if engine == "ray":
            together.setdefault(one.file, one)
        else:
            steps = measuring_once(collection.open(path), one.task, settings)
            yield from part(steps, start, stop, f"Measuring {whose}, once")
    if together:
        yield from measuring_on_ray(list(together.values()), settings)
    return files


def _looked_up(
    collection: FamilyFile, settings: MeasureSettings, name: str, path: Path, reference: str
) -> Member:
    """A member with its task, and where its statistics lie in this machine's cache, or will."""
    task = tasks.load(reference, root=collection.folder)
    file = cached_path(collection.open(path), task, settings)
    base = collection.model_path(collection.base)
    return Member(name, path, base, task, file, keep=True)


def measure_all(
    collection: FamilyFile,
    *,
    with_base: bool = True,
    engine: Literal["local", "ray"] = "local",
    progress: bool | None = None,
    **settings: Any,
) -> dict[str, Path]:
    """Statistics of every member, measured where the machine's cache has none: name → file.

    `settings`: `examples`, `labels`, `seed` and the other fields of `MeasureSettings`.
    `engine`: `ray` measures members side by side on a Ray cluster (docs/distributed.md).
    `progress`: whether a bar is shown; by default in notebooks and terminals.
    """
    how = MeasureSettings(**settings)
    return watched(measuring_all(collection, how, with_base=with_base, engine=engine), progress)


def missing_statistics(collection: FamilyFile, *, examples: int = 256, seed: int = 0) -> list[str]:
    """Names of the members that `measure_all` would have to measure."""
    settings = MeasureSettings(examples=examples, seed=seed)
    members = collection.members(with_base=True)
    looked_up = (_looked_up(collection, settings, *one) for one in members)
    return [one.name for one in looked_up if not one.file.is_file()]
