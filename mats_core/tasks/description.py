"""The short YAML that describes a task: one pydantic model, for reading and for writing.

    kind: text
    train: sst2.train.jsonl.gz
    test: sst2.test.jsonl.gz
    inputs: [text]
    classes: [negative, positive]

docs/tasks.md has an example of each kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..errors import InputError, existing, parsing, read_yaml, validated
from .task import Form, Length, MetricName

Share = Annotated[float, Field(gt=0, lt=1)]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Columns = Annotated[tuple[str, ...], BeforeValidator(_several)]


class Description(BaseModel):
    """A task's YAML; `folder` is where its relative paths start."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["text", "image", "choices", "language"]
    name: str = ""
    description: str = Field("", description="a sentence for the page")
    dataset: str | None = Field(None, description="of the Hugging Face hub, instead of files")
    subset: str | None = None
    revision: str | None = None
    train: str | None = Field(None, description="file or folder; of a hub data set, the split")
    test: str | Share | None = Field(None, description="a file, or a share of the training rows")
    validation: str | Share | None = Field(None, description="likewise; a fifth by default")
    inputs: Columns = Field((), max_length=2, description="columns: one text, or a pair")
    label: str = Field("label", description="column: a class's name or its number")
    classes: tuple[str, ...] | str | None = Field(None, description="names, or a .json of them")
    prompt: str = Field("", description="template with {columns}")
    choices: tuple[str, ...] = Field((), description="templates of the answers")
    target: str = Field("", description="template of the text that should follow")
    metric: Literal["accuracy", "f1", "matthews", "macro"] = "accuracy"
    max_length: int | None = Field(None, ge=2, description="tokens an example is cut to")
    length_normalised: bool | Literal["characters", "bytes"] = Field(
        False, description="divide an answer's log-likelihood by its tokens (true) or its length"
    )
    size: int | None = Field(None, ge=1, description="images: pixels of a side")
    missing: Literal["error", "drop"] = Field(
        "error", description="what a row without a label or a text is: an error, or left out"
    )
    seed: int = Field(0, ge=0, description="of every share that is drawn")
    folder: Path = Field(Path(), exclude=True)

    @property
    def form(self) -> Form:
        metric: MetricName = "likelihood" if self.kind == "language" else self.metric
        return Form(self.kind, metric, self.max_length, self._length())

    def _length(self) -> bool | Length:
        """What an answer's log-likelihood is divided by; white space that all answers begin with
        separates them from the prompt and has no part in it."""
        if isinstance(self.length_normalised, bool):
            return self.length_normalised
        heads = (len(one) - len(one.lstrip()) for one in self.choices)
        return Length(self.length_normalised, min(heads, default=0))

    def path(self, reference: str) -> Path:
        return self.folder / Path(reference).expanduser()

    def class_names(self) -> tuple[str, ...] | None:
        """The names that the description gives, if it gives any."""
        if not isinstance(self.classes, str):
            return self.classes
        thing = f"classes of task '{self.name}'"
        if not self.classes.endswith(".json"):
            raise InputError(
                thing,
                expected="a list of names, or the path of a .json file",
                found=f"'{self.classes}'",
                remedy="Write a list: classes: [no, yes].",
            )
        file = existing(thing, self.path(self.classes))
        with parsing(f"'{file}'", "a JSON list"):
            names = json.loads(file.read_text("utf-8"))
        if not isinstance(names, list):
            raise InputError(f"'{file}'", expected="a JSON list", found=type(names).__name__)
        return tuple(str(name) for name in names)


HOLD_OUT = "Write 'test: 0.2' to hold out a fifth of the training rows."
NEEDS: dict[str, tuple[str, ...]] = {
    "text": ("inputs",),
    "image": (),
    "choices": ("prompt", "choices"),
    "language": (),
}
OF_OTHERS: dict[str, tuple[str, ...]] = {
    "text": ("prompt", "choices", "target", "length_normalised", "size"),
    "image": ("prompt", "choices", "target", "length_normalised", "max_length"),
    "choices": ("inputs", "target", "size"),
    "language": ("label", "classes", "choices", "metric", "length_normalised", "size"),
}


def read(path: Path) -> Description:
    """The description in a file; raises `InputError` that names what is missing or unknown."""
    content = read_yaml("task", path, Description)
    told = {"name": path.stem, **content, "folder": path.parent}
    found = validated(f"task '{path}'", Description, told)
    _check(found, content, path)
    return found


def _check(found: Description, content: Mapping[str, Any], path: Path) -> None:
    """What the fields of one kind have to do with each other."""
    thing = f"task '{path}' of kind '{found.kind}'"
    for name in NEEDS[found.kind]:
        if not getattr(found, name):
            raise InputError(thing, expected=f"'{name}'", found="none")
    for name in OF_OTHERS[found.kind]:
        if name in content:
            raise InputError(
                thing, found=f"'{name}', which this kind does not use", remedy="Remove it."
            )
    if found.kind == "language" and bool(found.inputs) == bool(found.target):
        raise InputError(
            thing,
            expected="either 'inputs', a column of plain text, or 'target' (and 'prompt')",
            found="both" if found.inputs else "neither",
        )
    if found.kind == "language" and len(found.inputs) > 1:
        raise InputError(thing, expected="one column in 'inputs'", found=f"{len(found.inputs)}")
    if found.kind == "image" and (found.train or "").endswith(".npz"):
        return  # holds both halves
    if found.dataset is None and (found.train is None or found.test is None):
        absent = "train" if found.train is None else "test"
        raise InputError(
            thing,
            expected="'train' and 'test' files, or a 'dataset' of the hub",
            found=f"no '{absent}'",
            remedy=HOLD_OUT if absent == "test" else "",
        )
