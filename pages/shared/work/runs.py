"""The finished merges: kept on disk, so that a reload or another day finds them.

All reading and writing of runs goes through here.  The list is the machine's; which run is shown,
and beside which, is the session's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mats_core.checkpoints import write_atomically
from mats_core.errors import InputError, parsing, plain_yaml, read_json, typed
from mats_core.evaluation import NOT_ASKED, TaskResult
from mats_core.methods import METHODS, describe
from mats_core.recipes import (
    FINAL,
    Recipe,
    Report,
    Rule,
    dump_recipe,
    parse_recipe,
    task_dict,
    task_of_dict,
)
from mats_core.system import recall, state_of

from .. import policy
from .further import Further

FORMAT = 1
PIN = "pinned"  # the file that names the pinned run of a family
MOST = 60  # of a family; beyond, the oldest go
MOST_DRAFTS = 32  # the same of those that no press on Merge has asked for
READ = 3  # times its bytes on the disk that a run takes in memory
ROUNDS = "rounds of statistics"
# Options that runs may be older than, as they were.
YOUNGER: dict[tuple[str, str], Any] = {
    ("essential", "orthogonal"): True, ("regmean", "normalise"): False,
    ("regmean", "iterations"): None, ("regmean", "gram_share"): 1.0,
    **{(m, "gram"): "measured" for m in ("regmean", "kfac", "kfac_matching", "essential")},
    **{(m, "gram_power"): 1.0 for m in ("kfac", "kfac_matching")},
    **{(m, "svc"): None for m in ("kfac", "kfac_matching")},
    **{(m, "error"): None for m in ("kfac", "kfac_matching", "sequential")},
}  # fmt: skip
log = logging.getLogger(__name__)
_WRITING = threading.Lock()


@dataclass(frozen=True)
class Final:
    """The final figure of a run: what it reaches on test examples, which are asked once.

    tasks   results on all test examples
    asked   when, as ISO 8601
    """

    tasks: tuple[TaskResult, ...]
    asked: str


@dataclass(frozen=True)
class Run:
    """One finished merge.

    id        of the recipe: the same settings on the same files have the same, wherever they run
    number    counts the runs of a family on this machine
    draft     made by Live on the way to other settings; a press on Merge keeps it
    title     a name that a person gave it; note: what they wrote about it
    final     its final figure, where test examples were asked
    shipped   where it came with the family: whether it is checked on this machine, in a sentence
    """

    id: str
    number: int
    family: str
    family_size: int
    recipe: Recipe
    report: Report
    created: str = ""
    draft: bool = False
    title: str = ""
    note: str = ""
    final: Final | None = None
    shipped: str = ""

    @property
    def name(self) -> str:
        """The title, or `ESM · layer power 0`: method, and what differs from the defaults."""
        if self.title:
            return self.title
        method = METHODS[self.recipe.method]
        defaults = {o.name: o.default for o in describe(method.name, self.recipe.count)}
        changed = [
            f"{name.replace('_', ' ')} {value}"
            for name, value in self.report.options.items()
            if value not in (defaults.get(name), method.exploring.get(name, defaults.get(name)))
        ]
        if self.recipe.rounds > 1:
            changed.insert(0, f"{self.recipe.rounds} rounds")
        if len(self.recipe.experts) < self.family_size:
            changed.append(f"{len(self.recipe.experts)} experts")
        changed = [*(step.step.name for step in self.recipe.steps()), *changed]
        if self.recipe.by:
            changed.append("by layer")
        if len({expert.weight for expert in self.recipe.experts}) > 1:
            changed.append("own weights")
        more = [f"{len(changed) - 2} more"] if len(changed) > 2 else []
        told = [*marks(self.report), *changed[:2], *more]
        return " · ".join([method.short or method.title, *told])

    @property
    def label(self) -> str:
        # A title that a person gave says nothing of them.
        marked = marks(self.report) if self.title else []
        draft = ["draft"] if self.draft else []
        return " · ".join([str(self.number), self.name, *marked, *draft])

    @property
    def final_report(self) -> Report | None:
        """The report with the final figure in the place of what was asked before."""
        if self.final is None:
            return None
        return replace(self.report, tasks=self.final.tasks, split=FINAL.split)


def marks(report: Report) -> list[str]:
    """What stands beside every number of a merge that is no static one: its size, and that it was
    trained."""
    routed = [f"routed, {report.size:.2f} × size"] if report.routed else []
    return [*routed, *(["trained"] if report.trained else [])]


def identity(recipe: Recipe, fingerprints: Mapping[str, str]) -> str:
    """Ten hexadecimal digits of everything that decides what a merge gives.

    Where the files lie and how many examples it was tested on make no difference.
    """
    # An option at the value that it had before there was one leaves a run its name.
    options = recipe.parsed_options().model_dump()
    for (method, name), value in YOUNGER.items():
        if recipe.method == method and options[name] == value:
            del options[name]
    content = {
        "method": recipe.method,
        "options": options,
        "experts": [
            (e.name, e.weight, e.examples, fingerprints.get(e.name)) for e in recipe.experts
        ],
        "base": fingerprints.get("base"),
        "rest": [recipe.seed, recipe.dtype, recipe.output_dtype, recipe.weighting, recipe.heads],
    }
    if recipe.rounds > 1:  # those of one round keep the name that they had before there were more
        content["rounds"] = recipe.rounds
    if recipe.after:
        content["after"] = [step.content for step in recipe.steps()]
    if recipe.by:
        content["by"] = [rule.model_dump(exclude_defaults=True) for rule in recipe.by]
    further = Further.of(recipe)
    for name, model in (("refine", further.refine), ("routed", further.routed)):
        if model is not None:
            content[name] = model.model_dump()
    if further.keep_sums:  # beside the model that is written
        content["keep_sums"] = True
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def folder(family: str) -> Path:
    """Where the runs of a family lie; its name is readable, with digits for other characters."""
    plain = re.sub(r"[^\w-]+", "-", family).strip("-").lower()
    return (
        policy.kept_folder() / "runs" / f"{plain}-{hashlib.sha256(family.encode()).hexdigest()[:6]}"
    )


def everything(family: str) -> list[Run]:
    """All kept runs of a family, oldest first.  A file that cannot be read is passed over."""
    files = folder(family).glob("*.json")
    found = [run for file in files if (run := _read(file, family)) is not None]
    return sorted(found, key=lambda run: run.number)


def _read(file: Path, family: str) -> Run | None:
    """The run in a file; None, and a line in the log, where it is damaged or another file's."""
    try:
        key = ("run", state_of(file), family)
        return recall(key, lambda: _parsed(file, family), lambda _: READ * file.stat().st_size)
    except (InputError, OSError) as error:
        log.warning("passing over the run in %s: %s", file, error)
        return None


def _parsed(file: Path, family: str) -> Run:
    content = read_json(file)
    with parsing(f"the run in '{file}'", "a run as it was written here"):
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        # By these two a run is changed and removed: a file may speak of itself alone.
        if (content["id"], content["family"]) != (file.stem, family):
            raise ValueError("the name of another run")
        report = Report.from_dict(content["report"])
        recipe = plain_yaml(f"recipe in '{file}'", content["recipe"])
        return typed(
            Run,
            {
                **{k: content[k] for k in ("id", "number", "family", "family_size", "created")},
                "recipe": parse_recipe(recipe, content["folder"]),
                "report": report,
                "draft": bool(content.get("draft")),
                "title": str(content.get("title", "")),
                "note": str(content.get("note", "")),
                "final": _final(content, report),
                "shipped": str(content.get("shipped", "")),
            },
        )


def _final(content: Mapping[str, Any], report: Report) -> Final | None:
    """The final figure of a file; runs that are older than it were tested on test examples."""
    if (told := content.get("final")) is not None:
        return Final(tuple(map(task_of_dict, told["tasks"])), str(told["asked"]))
    if report.split == FINAL.split and report.tasks and not report.left:
        return Final(report.tasks, str(content["created"]))
    return None


def add(
    family: str,
    family_size: int,
    recipe: Recipe,
    report: Report,
    *,
    draft: bool = False,
    shipped: str = "",
) -> Run:
    """Keep a run.  One with the same settings takes the place of the earlier one, whose title and
    note stay, and whose answers do where more examples were asked; the final figure stays while the
    answers do not contradict it.  What was kept never becomes a draft.  The pinned run stays,
    however many there are, and drafts push out drafts alone.
    """
    own = identity(recipe, report.fingerprints)
    with _WRITING:
        kept = everything(family)
        same = next((run for run in kept if run.id == own), None)
        if same is not None and _is_finer(same.report, report):
            report = replace(report, tasks=same.report.tasks)
            recipe = recipe.model_copy(update={"evaluate": same.recipe.evaluate})
        number = same.number if same else 1 + max((run.number for run in kept), default=0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        run = Run(own, number, family, family_size, recipe, report, now, shipped=shipped)
        if same is not None:
            final = same.final if _agree(same.report, report) else None
            run = replace(run, title=same.title, note=same.note, final=final, shipped=same.shipped)
        run = replace(run, draft=draft and (same is None or same.draft))
        _write(run)
        limits, stay = policy.current(), (own, pinned(family))
        most = min(MOST_DRAFTS, limits.drafts) if run.draft else min(MOST, limits.runs)
        for old in [r for r in kept if r.draft == run.draft and r.id not in stay][: 1 - int(most)]:
            remove(old)
    return run


def _write(run: Run) -> None:
    recipe, content = run.recipe, {"format": FORMAT}
    plain = ("id", "number", "family", "family_size", "created", "draft", "title", "note")
    content |= {name: getattr(run, name) for name in plain}
    content |= {"recipe": dump_recipe(recipe), "folder": str(recipe.folder.resolve())}
    content |= {"report": run.report.to_dict()}
    if run.final is not None:
        tasks = [task_dict(result) for result in run.final.tasks]
        content["final"] = {"tasks": tasks, "asked": run.final.asked}
    if run.shipped:
        content["shipped"] = run.shipped
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    write_atomically(folder(run.family) / f"{run.id}.json", text.encode())


def change(run: Run, **changes: Any) -> Run:
    """The run with another title, note or `draft`, which are kept."""
    with _WRITING:
        there = next((one for one in everything(run.family) if one.id == run.id), run)
        changed = replace(there, **changes)
        _write(changed)
    return changed


def _is_finer(report: Report, other: Report) -> bool:
    """Whether a report has the answers of another one, and more."""
    pairs = _answers(report, other)
    more = sum(task.merged.examples for task in report.tasks)
    more -= sum(task.merged.examples for task in other.tasks)
    return pairs is not None and more > 0 and all(b in (a, NOT_ASKED) for a, b in pairs)


def _agree(report: Report, other: Report) -> bool:
    """Whether two reports of the same settings do not contradict each other.

    Where they were asked the same example and answer otherwise, the data changed meanwhile.
    """
    if report.split != other.split:
        return True
    pairs = _answers(report, other)
    return pairs is not None and all(a == b or NOT_ASKED in (a, b) for a, b in pairs)


def _answers(report: Report, other: Report) -> list[tuple[str, str]] | None:
    """What both answered, example by example; None where they were asked other tasks or splits."""
    names = [result.name for result in other.tasks]
    if report.split != other.split or [result.name for result in report.tasks] != names:
        return None
    both = [(a.merged.answers, b.merged.answers)
            for a, b in zip(report.tasks, other.tasks, strict=True)]  # fmt: skip
    if any(len(ours) != len(theirs) for ours, theirs in both):
        return None
    return [pair for ours, theirs in both for pair in zip(ours, theirs, strict=True)]


def pinned(family: str) -> str | None:
    """The id of the run that all others are measured against, where one is."""
    try:
        return (folder(family) / PIN).read_text("utf-8").strip() or None
    except OSError:
        return None


def pin(family: str, id: str | None) -> None:
    """Measure all others against this run, or (None) against none."""
    write_atomically(folder(family) / PIN, (id or "").encode())


def remove(run: Run) -> None:
    file = folder(run.family) / f"{run.id}.json"
    with contextlib.suppress(FileNotFoundError):
        file.unlink()


def defaults(run: Run) -> dict[str, str]:
    """What the options of a run's method are when nobody touches them, by title."""
    recipe = run.recipe
    found = {_title(f.name): _text(f.default) for f in describe(recipe.method, recipe.count)}
    found |= {ROUNDS: "1"} if _in_rounds(run) else {}
    return found | dict.fromkeys(Further.of(run.recipe).words, "no")


def _in_rounds(run: Run) -> bool:
    """Whether the method can be run in several rounds of statistics."""
    return METHODS[run.recipe.method].group == "statistics"


def _title(option: str) -> str:
    return option.replace("_", " ")


def _text(value: object) -> str:
    return "by default" if value is None else str(value)


def settings(run: Run) -> dict[str, str]:
    """Everything that was chosen for a run, by title, as text."""
    experts = ", ".join(entry.name for entry in run.recipe.experts)
    fixed = {
        "method": METHODS[run.recipe.method].title,
        "experts": experts,
        "seed": str(run.recipe.seed),
        "arithmetic": run.recipe.dtype,
    }
    if _in_rounds(run):
        fixed[ROUNDS] = str(run.recipe.rounds)
    if run.recipe.after:
        fixed["after the merge"] = run.report.steps
    if run.recipe.by:
        fixed["by layer"] = "; ".join(sentence(rule) for rule in run.recipe.by)
    fixed |= Further.of(run.recipe).words
    weights = {entry.weight for entry in run.recipe.experts}
    if len(weights) > 1:
        fixed["weights"] = ", ".join(f"{e.name} {e.weight:g}" for e in run.recipe.experts)
    return fixed | {_title(name): _text(value) for name, value in run.report.options.items()}


def sentence(rule: Rule) -> str:
    """A rule by layer in a few words: `*.attention.* at depth 0 to 0.5: update × 0.5`."""
    about = [rule.match] if rule.match is not None else []
    if rule.depth is not None:
        low, high = rule.depth
        about.append(f"depth {low:.3g}" + (f" to {high:.3g}" if high > low else ""))
    if isinstance(rule.weight, dict):
        said = [f"{name} × {weight:g}" for name, weight in rule.weight.items()]
    else:
        said = [] if rule.weight is None else [f"update × {rule.weight:g}"]
    said += [f"{_title(name)} {_text(value)}" for name, value in rule.options.items()]
    return f"{' at '.join(about)}: {', '.join(said)}"
