"""Tasks of lm-evaluation-harness: `lm_eval:NAME`, or a YAML in the harness's form.

The harness (the extra [lm-eval]) reads its data and words every prompt and answer; which answer a
model gives is found here, as for any task: the answer with the highest score by the task's metric,

    acc        Σ log p(token) over the tokens of an answer
    acc_norm   that, divided by the characters of the answer, its delimiter not counted
    acc_bytes  that, divided by its bytes of UTF-8

A task has one metric here: of those in its `metric_list` one by length before `acc`, which is also
that of a task without such a list.  A prompt holds as many solved examples as the task names: none,
if it names no number.

A YAML may come from anybody: functions beside it are refused, and its templates run in Jinja's
sandbox, which the harness itself does not use.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError, cut, listing, member, needed, read_yaml, reason
from ..system import recall
from . import rows
from .description import Description
from .tables import offline_first
from .task import Kind, Length, Split, SplitName, Task

SIGNS = ("output_type", "doc_to_text", "doc_to_target", "doc_to_choice", "include", "dataset_path")
KINDS: dict[str, Kind] = {
    "multiple_choice": "choices", "loglikelihood": "language", "loglikelihood_rolling": "language",
}  # fmt: skip
SOURCE = "lm_eval"
BY_LENGTH: dict[str, Literal["characters", "bytes"]] = {
    "acc_norm": "characters", "acc_bytes": "bytes",
}  # fmt: skip
MOST = 5000  # training rows that are worded: statistics take a few hundred
HELD_OUT = 0.2  # of the rows, where the harness has no training rows
SEED = 1234  # of the examples in a prompt, the harness's default
FUNCTION = b"!function"


def named(name: str) -> str:
    """The reference of the task with this name; raises `InputError` without the harness."""
    name = name.strip()
    if not re.fullmatch(r"[\w.+-]+", name):
        raise InputError("task of lm_eval", expected="a name, such as arc_easy", found=f"'{name}'")
    if importlib.util.find_spec("lm_eval") is None:
        _package(f"task 'lm_eval:{name}'")
    return f"{SOURCE}:{name}"


def tells(content: Mapping[str, Any]) -> bool:
    """Whether the content of a YAML has the form of the harness."""
    return "kind" not in content and any(key in content for key in SIGNS)


def load(name: str) -> Task:
    """The task of the harness with this name, remembered.

    Raises `InputError` without the harness, for an unknown name, and for what is no single task.
    """
    return recall(("lm_eval", name), lambda: _named(name))


def _named(name: str) -> Task:
    manager = _package(f"task 'lm_eval:{name}'").TaskManager()
    member("task of lm_eval", name, manager.all_tasks)
    return _task(name, _built(f"task 'lm_eval:{name}'", manager, name))


def described(path: Path) -> Task:
    """The task that a YAML in the harness's form describes; its files start at its folder."""
    thing = f"task '{path}'"
    manager = _package(thing).TaskManager(include_defaults=False)
    config = {"task": path.stem, **content(path)}
    config.pop("include", None)
    settings = dict(config.get("dataset_kwargs") or {})
    for key in ("data_files", "data_dir"):
        if key in settings:
            settings[key] = _whole(settings[key], path.parent)
    return _task(path.stem, _built(thing, manager, {**config, "dataset_kwargs": settings}))


def content(path: Path) -> dict[str, Any]:
    """What a YAML in the harness's form says, with what it includes; `InputError` for functions."""
    if FUNCTION in path.read_bytes():
        raise InputError(
            f"task '{path}'",
            expected="a task without functions of its own",
            found="'!function'",
            remedy="Code beside a file is not run. Write its rows into a table, or register a "
            "source of tasks: docs/tasks.md.",
        )
    found = read_yaml("task", path)
    above = found.get("include")
    return {**content(path.parent / above), **found} if isinstance(above, str) else found


def files(path: Path) -> list[Path]:
    """The files of rows that a YAML in the harness's form names."""
    settings = content(path).get("dataset_kwargs")
    told = settings.get("data_files") if isinstance(settings, Mapping) else None
    return [Path(one) for one in _flat(_whole(told, path.parent))]


def _flat(told: Any) -> Iterable[str]:
    if isinstance(told, str):
        return [told]
    inside = told.values() if isinstance(told, Mapping) else told or ()
    return [one for part in inside for one in _flat(part)]


def _whole(told: Any, folder: Path) -> Any:
    """Paths of files as they are from a folder; those of another place as they stand."""
    if isinstance(told, str):
        return told if "://" in told else str(folder / told)
    if isinstance(told, Mapping):
        return {key: _whole(one, folder) for key, one in told.items()}
    return [_whole(one, folder) for one in told] if isinstance(told, list | tuple) else told


# The harness --------------------------------------------------------------------------------------


def _package(thing: str) -> Any:
    """The harness's module of tasks, its templates in a sandbox."""
    found = needed(thing, "lm_eval.tasks", "lm-eval", "lm-eval")
    utils: Any = importlib.import_module("lm_eval.utils")
    sandbox = importlib.import_module("jinja2.sandbox")
    if not isinstance(utils.env, sandbox.SandboxedEnvironment):
        boxed = sandbox.ImmutableSandboxedEnvironment(
            undefined=utils.env.undefined, keep_trailing_newline=utils.env.keep_trailing_newline
        )
        boxed.filters.update(utils.env.filters)
        utils.env = boxed
    return found


def _built(thing: str, manager: Any, spec: str | dict[str, Any]) -> Any:
    """The harness's own object, its data read: from this machine's cache, else downloaded."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = offline_first(lambda: manager.load([spec]))["tasks"]
    except Exception as error:  # whatever a template, a data set or the network says
        raise InputError(
            thing,
            expected="a task that lm-evaluation-harness can read, with its data in this machine's "
            "cache or access to the hub",
            found=cut(reason(error), 200),
            remedy="Check the name and the files; load its data set once while online.",
        ) from None
    if len(found) != 1:
        raise InputError(thing, expected="one task", found=f"{len(found)}: {listing(found, 8)}")
    task = next(iter(found.values()))
    task.set_fewshot_seed(SEED)
    return task


def _task(name: str, task: Any) -> Task:
    thing = f"task '{name}' of lm_eval"
    if task.OUTPUT_TYPE not in KINDS:
        raise InputError(
            thing,
            expected=f"one of {', '.join(KINDS)}",
            found=f"{task.OUTPUT_TYPE}: it is scored by what a model writes",
            remedy="Test the written merge with lm_eval itself.",
        )
    docs, notes = _docs(thing, task)
    worded: dict[SplitName, Any] = {n: _worded(thing, task, some) for n, some in docs.items()}
    share = None if "test" in docs else HELD_OUT
    kind = KINDS[task.OUTPUT_TYPE]
    metric = _metric(task) if kind == "choices" else ""
    about = {"kind": kind, "name": name, "description": _about(task, metric), "test": share}
    told = Description.model_validate(about)
    form = told.form
    if metric in BY_LENGTH:
        delimiter = len(task.config.target_delimiter)
        form = replace(form, length_normalised=Length(BY_LENGTH[metric], delimiter))
    width = max(len(row) for some, _, _ in worded.values() for row in some)
    splits = dict[SplitName, Split]()
    for split, (some, labels, hidden) in worded.items():
        padded = [[*row, *[""] * (width - len(row))] for row in some]
        inputs = np.array(padded, dtype=object).reshape(len(padded), width)
        splits[split] = Split(inputs, np.array(labels, dtype=np.int64), form)
        if hidden:
            notes.append(f"{hidden} {split} rows of {thing} have no right answer and are left out")
    return rows.finished(told, _names(kind, worded.values(), width), splits, notes)


def _metric(task: Any) -> str:
    """The metric of a task with choices: see the module's text."""
    listed = [one.get("metric") for one in task.config.metric_list or ()]
    return next((name for name in BY_LENGTH if name in listed), "acc")


def _about(task: Any, metric: str) -> str:
    shots = task.config.num_fewshot or 0
    said = [task.task_name, f"{shots}-shot" if shots else "", metric]
    return f"lm-evaluation-harness: {', '.join(part for part in said if part)}"


def _docs(thing: str, task: Any) -> tuple[dict[SplitName, Any], list[str]]:
    """The rows of each split as the harness has them, and notes on what they are taken for."""
    if not (task.has_test_docs() or task.has_validation_docs()):
        raise InputError(thing, expected="rows to test on", found="none")
    asked = task.eval_docs
    if not task.has_training_docs():
        return {"train": asked}, [
            f"{thing} has no training rows: {HELD_OUT:.0%} of its rows are those that are tested"
        ]
    train, notes = task.training_docs(), []
    if len(train) > MOST:
        notes.append(f"of {len(train)} training rows of {thing} the first {MOST} are taken")
    docs: dict[SplitName, Any] = {"train": _first(train, MOST), "test": asked}
    if task.has_test_docs() and task.has_validation_docs():
        docs["validation"] = task.validation_docs()
    return docs, notes


def _first(docs: Any, count: int) -> Any:
    return docs.select(range(min(count, len(docs)))) if hasattr(docs, "select") else docs[:count]


def _worded(
    thing: str, task: Any, docs: Iterable[Mapping[str, Any]]
) -> tuple[list[list[str]], list[int], int]:
    """(prompt and answers of each row, numbers of the right ones, rows that have none)."""
    found, labels, hidden = list[list[str]](), list[int](), 0
    shots = task.config.num_fewshot or 0
    for doc in docs:
        asked = task.fewshot_context(doc, num_fewshot=shots)
        requests = task.construct_requests(doc, asked)
        requests = requests if isinstance(requests, list) else [requests]
        row, label = _row(thing, task, doc, requests)
        if label is None:
            hidden += 1
            continue
        found.append(row)
        labels.append(label)
    if not found:
        raise InputError(thing, expected="rows with a right answer", found="none")
    return found, labels, hidden


def _row(
    thing: str, task: Any, doc: Mapping[str, Any], requests: Sequence[Any]
) -> tuple[list[str], int | None]:
    """One row: what is read, what may follow, and which of it is right."""
    pairs = [request.arguments for request in requests]
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return ["", str(pairs[0][0])], 0
    if task.OUTPUT_TYPE == "loglikelihood":
        return [str(pairs[0][0]), str(pairs[0][1])], 0
    choices = [*task.doc_to_choice(doc)]
    if task.multiple_input:
        raise InputError(
            thing,
            expected="one prompt with several answers",
            found="several prompts with one answer",
            remedy="Test the written merge with lm_eval itself.",
        )
    pairs = pairs[: len(choices)]  # after them may stand the answers without the prompt
    return [str(pairs[0][0]), *(str(answer) for _, answer in pairs)], _gold(
        thing, task, doc, choices
    )


def _gold(thing: str, task: Any, doc: Mapping[str, Any], choices: Sequence[str]) -> int | None:
    """The number of the right answer; None where it is hidden."""
    said = task.doc_to_target(doc)
    if isinstance(said, list | tuple):
        if len(said) != 1:
            raise InputError(
                thing, expected="one right answer", found=f"{len(said)} in a row",
                remedy="Test the written merge with lm_eval itself.",
            )  # fmt: skip
        said = said[0]
    if isinstance(said, str):
        return choices.index(said) if said in choices else None
    return int(said) if 0 <= int(said) < len(choices) else None


def _names(
    kind: Kind, worded: Iterable[tuple[list[list[str]], Any, Any]], width: int
) -> tuple[str, ...]:
    """Names of the answers: their texts where these are the same in every row."""
    if kind != "choices":
        return ()
    said = {tuple(row[1:]) for some, _, _ in worded for row in some}
    first = tuple(one.strip() for one in next(iter(said)))
    if len(said) == 1 and len({*first}) == len(first):
        return first
    return tuple(f"choice {k + 1}" for k in range(width - 1))
