"""`python -m mats_core`: the same recipes without a browser.

Exit code 0 for success, 2 and one clear paragraph for bad input.  Heavy imports happen inside the
commands, so that `--help` and `methods` answer at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

EXAMPLES = """\
examples:
  python -m mats_core methods
  python -m mats_core measure --family sample_models/drawn --out outputs/statistics
  python -m mats_core merge docs/recipes/kfac.yaml --set damping=0.3
  python -m mats_core evaluate outputs/first
  python -m mats_core inspect sample_models/drawn/digits
"""

ADAPTERS_BASE = "the base of a PEFT adapter: its directory, or a hub id"


def parser() -> argparse.ArgumentParser:
    """The command line's grammar; the options of the methods come from their declarations."""
    top = argparse.ArgumentParser(
        prog="python -m mats_core",
        description="Merge fine-tuned models in their task subspaces, and see why a merge works.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    merge = commands.add_parser(
        "merge",
        help="merge experts as a recipe says",
        description="Merge the experts of a recipe, write the model, and evaluate it on every "
        "expert's task where the recipe names one.",
    )
    merge.add_argument("recipe", type=Path, help="YAML file; docs/recipes.md describes it")
    merge.add_argument("--output", help="directory to write, instead of the recipe's")
    merge.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="override an option of the method (repeatable); `methods NAME` lists them",
    )
    merge.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="measure statistics again at the merge and merge once more, N - 1 times",
    )
    merge.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"))
    merge.add_argument(
        "--engine",
        choices=("local", "ray"),
        help="merge layers in this process, or on the Ray cluster at RAY_ADDRESS (a local one "
        "where none is named)",
    )
    merge.add_argument("--no-evaluate", action="store_true", help="write the model and stop")
    merge.add_argument(
        "--force", action="store_true", help="replace an existing output, or an unfinished one"
    )
    merge.add_argument(
        "--resume",
        action="store_true",
        help="go on where this merge was stopped, and leave what is done if it is stopped again",
    )
    merge.add_argument(
        "--no-estimate",
        action="store_true",
        help="do not refuse a merge that finds too little memory or disk",
    )
    merge.set_defaults(run=_merge)

    measure = commands.add_parser(
        "measure",
        help="measure the statistics of an expert, or of a whole family",
        description="One forward and backward pass over calibration examples of the expert's own "
        "task: input Grams, output-gradient Grams, diagonal Fisher. The file can be shared "
        "without the data; docs/statistics.md describes it.",
    )
    measure.add_argument("model", nargs="?", help="the expert's directory, or a hub id")
    measure.add_argument("--base", help=ADAPTERS_BASE)
    measure.add_argument("--task", help="a .yaml or .npz file, or sample:NAME")
    measure.add_argument("--family", type=Path, help="a family.yaml, instead of one model")
    measure.add_argument("--out", type=Path, required=True, help="file (one model) or directory")
    measure.add_argument("--examples", type=int, default=256, help="calibration examples [256]")
    measure.add_argument("--batch-size", type=int, default=64, help="[64]; the result is the same")
    measure.add_argument(
        "--labels", choices=("empirical", "true"), default="empirical",
        help="true labels of the data, or sampled from the model ('true' Fisher) [empirical]",
    )  # fmt: skip
    measure.add_argument("--seed", type=int, default=0)
    measure.add_argument(
        "--blocks", type=int, default=0, metavar="N",
        help="also the full Fisher block of parameters of at most N elements [0]",
    )  # fmt: skip
    measure.add_argument(
        "--rank", type=int, default=0, metavar="K",
        help="keep Grams of at least 2 K columns as at most K rows: exact for up to K tokens, "
        "a sketch with a known error beyond [0: whole Grams]",
    )  # fmt: skip
    measure.add_argument(
        "--memory",
        metavar="SIZE",
        help="what the sums may take, such as 4GB; above it, several passes [half of what is free]",
    )
    measure.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    measure.add_argument("--force", action="store_true", help="replace existing files")
    measure.set_defaults(run=_measure)

    evaluate = commands.add_parser(
        "evaluate",
        help="accuracy of a merged directory on its tasks, or of one model on one",
        description="For an output of `merge`: accuracy per task beside the expert and the "
        "pre-trained encoder, from the recipe it holds. For any other model: give --task.",
    )
    evaluate.add_argument("model", help="a directory; with --task also a hub id")
    evaluate.add_argument("--base", help=ADAPTERS_BASE)
    evaluate.add_argument("--task", help="a .yaml or .npz file, or sample:NAME")
    evaluate.add_argument("--split", choices=("train", "validation", "test"), default="test")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(run=_evaluate)

    inspect = commands.add_parser(
        "inspect",
        help="what a checkpoint, a statistics file or a recipe holds",
        description="For a recipe: the whole preflight and the role of every tensor, without "
        "merging. For a checkpoint: tensors, dtypes, classes, fingerprint.",
    )
    inspect.add_argument("path", help="a file, a directory, or a hub id")
    inspect.add_argument("--base", help=ADAPTERS_BASE)
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)

    methods = commands.add_parser("methods", help="the merging methods and their options")
    methods.add_argument("name", nargs="?", help="one method only")
    methods.add_argument("--json", action="store_true", help="print JSON")
    methods.add_argument("--markdown", action="store_true", help="print docs/methods.md")
    methods.set_defaults(run=_methods)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.run
    try:
        command(options)
    except InputError as error:
        print(textwrap.fill(f"error: {error}", 100, break_long_words=False), file=sys.stderr)
        return 2
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    return 0


def _merge(arguments: argparse.Namespace) -> None:
    from ..api import run
    from ..merging import Finished, load_recipe, parse_recipe

    recipe = load_recipe(arguments.recipe)
    changes: dict[str, Any] = {}
    if arguments.output:
        changes["output"] = str(Path(arguments.output).resolve())
    if arguments.device:
        changes["device"] = arguments.device
    if arguments.engine:
        changes["engine"] = arguments.engine
    if arguments.rounds is not None:
        changes["rounds"] = arguments.rounds
    if arguments.no_evaluate:
        changes["evaluate"] = False
    if arguments.set:
        changes["options"] = {**recipe.options, **_assignments(arguments.set)}
    if changes:
        content = {**recipe.model_dump(exclude_defaults=True), **changes}
        recipe = parse_recipe(content, recipe.folder)
    if recipe.output is None:
        raise InputError(
            f"recipe '{arguments.recipe}'",
            expected="'output', the directory to write",
            found="none",
            remedy="Add it to the recipe or pass --output.",
        )
    _refuse_unfinished(recipe.path(recipe.output), arguments)
    bars = _Bars()
    events = run(
        recipe,
        force=arguments.force,
        resume=arguments.resume,
        check_fit=not arguments.no_estimate,
    )
    for event in events:
        bars.see(event)
        if isinstance(event, Finished):
            bars.close()
            print(_summary(event.report))


def _refuse_unfinished(target: Path, arguments: argparse.Namespace) -> None:
    """Nobody's hours of work are thrown away without being asked for."""
    from ..checkpoints import partial_of
    from ..merging import layers_done

    done = layers_done(partial_of(target))
    if done and not (arguments.resume or arguments.force):
        raise InputError(
            f"output '{target}'",
            expected="no unfinished merge beside it",
            found=f"one that has done {done} layers",
            remedy="Pass --resume to go on with it, or --force to start again.",
        )


PERCENT = 100


class _Bars:
    """One progress bar after the other, for the parts of a merge."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.part = ""
        self.device = ""

    def see(self, event: Any) -> None:
        from ..evaluation import Asked
        from ..merging import LayerDone, Measuring, RoundDone, Started, TrialDone

        if isinstance(event, Started):
            if event.device != self.device:  # once, not in every round
                print(f"device: {event.device} ({event.reason})", file=sys.stderr)
            self.device = event.device
            self._begin("layers", event.total)
        elif isinstance(event, TrialDone):
            self._begin("search", event.total, again=event.index == 0)
        elif isinstance(event, RoundDone):
            self.close()
            line = f"round {event.index} of {event.total} is merged; measuring statistics there"
            print(line, file=sys.stderr)
        elif isinstance(event, Measuring):
            self._begin(f"measure {event.name}", event.wanted, again=not event.examples)
            self.bar.update(event.examples - self.bar.n)
        elif isinstance(event, Asked):
            self._begin("test", PERCENT, again=self.part != "test")
            self.bar.update(round(PERCENT * event.fraction) - self.bar.n)
        if self.bar is not None and isinstance(event, LayerDone | TrialDone):
            self.bar.update()

    def _begin(self, part: str, total: int, *, again: bool = True) -> None:
        from tqdm import tqdm

        if again or self.bar is None:
            self.close()
            self.bar = tqdm(total=total, desc=part, unit="", disable=None, leave=False)
            self.part = part

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None


def _assignments(pairs: Sequence[str]) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair}", expected="OPTION=VALUE", found=f"'{pair}'")
        found[name.strip()] = yaml.safe_load(value)
    return found


def _summary(report: Any) -> str:
    counted = ", ".join(f"{count} {kind}" for kind, count in report.coverage.items() if count)
    rounds = f" in {report.rounds} rounds" if report.rounds > 1 else ""
    lines = [f"{report.method}{rounds}: {counted}; {report.seconds:.1f} s on {report.device}"]
    lines += [f"note: {warning}" for warning in report.warnings]
    for trial in report.search:
        tried = ", ".join(f"{name}={value}" for name, value in trial.options.items())
        lines.append(f"  tried {tried}: {100 * trial.normalised_accuracy:.1f} % (validation)")
    lines += _task_table(report.tasks)
    if report.tasks:
        lines.append(f"normalised accuracy {100 * report.normalised_accuracy:.1f} %")
        if report.gap_recovered is not None:
            lines[-1] += f", gap recovered {100 * report.gap_recovered:.1f} %"
    if report.output:
        lines.append(f"written to {report.output}")
    return "\n".join(lines)


def _task_table(results: Sequence[Any]) -> list[str]:
    if not results:
        return []
    rows = [f"{'task':<16} {'merged':>8} {'95 % interval':>15} {'expert':>8} {'pre-trained':>12}"]
    for result in results:
        low, high = result.merged.interval
        rows.append(
            f"{result.name:<16} {100 * result.merged.value:>7.1f}% "
            f"{100 * low:>6.1f} – {100 * high:<6.1f} {100 * result.finetuned.value:>7.1f}% "
            f"{100 * result.pretrained.value:>11.1f}%"
            + (f"  {result.merged.metric}" if result.merged.metric != "accuracy" else "")
        )
    return rows


def _measure(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from .. import tasks
    from ..adapters import open_expert
    from ..checkpoints import hub, refuse_existing
    from ..merging import load_collection
    from ..statistics import measure_to_file
    from ..system import choose_device, parse_bytes

    if (arguments.model is None) == (arguments.family is None):
        raise InputError(
            "measure", expected="either a model with --task, or --family", found="both or neither"
        )
    if arguments.examples < 1 or arguments.batch_size < 1:
        raise InputError("--examples and --batch-size", expected="at least 1", found="less")
    if arguments.rank < 0:
        raise InputError("--rank", expected="0 or more rows", found=str(arguments.rank))
    budget = parse_bytes(arguments.memory) if arguments.memory else None
    device, _ = choose_device(arguments.device)
    if arguments.family:
        collection = load_collection(arguments.family)
        base = collection.model_path(collection.base)
        members = [
            (
                path,
                tasks.load(reference, root=collection.folder),
                arguments.out / f"{name}.stats.safetensors",
            )
            for name, path, reference in collection.members(with_base=True)
        ]
    else:
        if not arguments.task:
            raise InputError("measure", expected="--task", found="none")
        model, base = hub.locate(arguments.model), _base_of(arguments)
        members = [(model, tasks.load(arguments.task), arguments.out)]
    for _, _, out in members:
        refuse_existing(out, arguments.force)
    for path, task, out in members:
        total = min(arguments.examples, len(task.train))
        with tqdm(total=total, desc=task.name, unit="", disable=None, leave=False) as bar:

            def advance(done: int, bar: Any = bar) -> None:
                bar.update(done - bar.n)

            statistics = measure_to_file(
                open_expert(path, base),
                task,
                out,
                memory=budget,
                examples=arguments.examples,
                batch_size=arguments.batch_size,
                labels=arguments.labels,
                seed=arguments.seed,
                blocks=arguments.blocks,
                rank=arguments.rank,
                device=device,
                on_batch=advance,
            )
        print(f"{out}: {len(statistics.layers)} layers, {statistics.metadata['examples']} examples")


def _base_of(arguments: argparse.Namespace) -> Path | None:
    """The base of an adapter, where one was named."""
    from ..checkpoints import hub

    return hub.locate(arguments.base) if arguments.base else None


def _evaluate(arguments: argparse.Namespace) -> None:
    from ..evaluation import evaluate
    from ..merging import evaluate_output

    if arguments.task:
        _evaluate_one(arguments)
        return
    results = evaluate_output(Path(arguments.model), arguments.split)
    if arguments.json:
        from ..merging import task_dict

        summary = {
            "tasks": [task_dict(result) for result in results],
            "normalised_accuracy": evaluate.normalised_accuracy(results),
            "gap_recovered": evaluate.gap_recovered(results),
        }
        print(json.dumps(summary, indent=2))
    else:
        print("\n".join(_task_table(results)))
        print(f"normalised accuracy {100 * evaluate.normalised_accuracy(results):.1f} %")


def _evaluate_one(arguments: argparse.Namespace) -> None:
    """Any model on one task."""
    import numpy as np

    from .. import models, tasks
    from ..adapters import open_expert
    from ..checkpoints import hub
    from ..evaluation import evaluate, metrics

    checkpoint = open_expert(hub.locate(arguments.model), _base_of(arguments))
    task = tasks.load(arguments.task)
    models.check(checkpoint, task)
    split = task.split(arguments.split)
    found = evaluate.score(checkpoint.directory, models.tensors_of(checkpoint), split)
    right = np.array([answer == "1" for answer in found.answers])
    each = metrics.per_class(split.labels, right, len(task.classes)) if task.classes else ()
    classes = dict(zip(task.classes, map(float, each), strict=True))
    if arguments.json:
        content = {"task": task.name, found.metric: found.value, "examples": found.examples}
        content["interval"] = list(found.interval)
        content["classes"] = {name: None if k != k else k for name, k in classes.items()}
        print(json.dumps(content, ensure_ascii=False))
        return
    low, high = (100 * bound for bound in found.interval)
    named = "" if found.metric == "accuracy" else f"{found.metric} "
    print(f"{task.name}: {named}{100 * found.value:.1f} % ({low:.1f} – {high:.1f})")
    width = max(map(len, classes), default=0)
    for name, accuracy in classes.items():
        there = "none there" if accuracy != accuracy else f"{100 * accuracy:.1f} %"
        print(f"  {name:<{width}}  {there}")


def _inspect(arguments: argparse.Namespace) -> None:
    from ..adapters import open_expert
    from ..checkpoints import hub

    path = Path(arguments.path)
    if path.suffix in (".yaml", ".yml"):
        content = _inspect_recipe(path)
    else:
        checkpoint = open_expert(hub.locate(arguments.path), _base_of(arguments))
        dtypes: dict[str, int] = {}
        for entry in checkpoint.tensors.values():
            kind = str(entry.dtype).removeprefix("torch.")
            dtypes[kind] = dtypes.get(kind, 0) + 1
        content = {
            "path": str(path),
            **({"adapter": checkpoint.form} if checkpoint.form else {}),
            **({"notes": list(checkpoint.notes)} if checkpoint.notes else {}),
            "fingerprint": checkpoint.fingerprint,
            "tensors": len(checkpoint.tensors),
            "parameters": sum(entry.elements for entry in checkpoint.tensors.values()),
            "bytes": checkpoint.nbytes,
            "dtypes": dtypes,
            "classes": list(checkpoint.class_names),
            "metadata": dict(checkpoint.metadata),
            "shapes": {name: list(entry.shape) for name, entry in checkpoint.tensors.items()},
        }
    if arguments.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    for key, value in content.items():
        if isinstance(value, dict) and value:
            print(f"{key}:")
            width = max(len(str(name)) for name in value)
            for name, item in value.items():
                print(f"  {name!s:<{width}}  {item}")
        elif value not in ([], {}):
            print(f"{key}: {value}")


def _inspect_recipe(path: Path) -> dict[str, Any]:
    from collections import Counter

    from ..merging import load_recipe, prepare, rounds

    job = prepare(load_recipe(path))
    rounds.require(job.recipe, job.inputs)
    family = job.inputs.family
    return {
        "recipe": str(path),
        "method": job.method.name,
        "options": job.options.model_dump(),
        **({"rounds": job.recipe.rounds} if job.recipe.rounds > 1 else {}),
        "device": f"{job.device} ({job.reason})",
        "experts": {e.name: e.checkpoint.fingerprint[:12] for e in family.experts},
        "notes": list(job.inputs.notes),
        "roles": dict(Counter(family.roles.values())),
        "tensors": dict(family.roles),
    }


def _methods(arguments: argparse.Namespace) -> None:
    from ..errors import member
    from ..methods import METHODS, describe, reference

    if arguments.markdown:
        print(reference.markdown(), end="")
        return
    names = [member("method", arguments.name, METHODS)] if arguments.name else list(METHODS)
    if arguments.json:
        content = [reference.as_dict(name) for name in names]
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    for name in names:
        method = METHODS[name]
        print(f"{name} — {method.title} (needs {method.group})")
        print(textwrap.indent(textwrap.fill(method.summary, 94), "  "))
        print(f"  source: {method.source}")
        for field in describe(name):
            print(f"    {field.name} = {field.default}   [{reference.bounds(field)}]")
            print(textwrap.indent(textwrap.fill(field.help, 88), "        "))
        print()
