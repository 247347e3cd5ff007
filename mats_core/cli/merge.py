"""`merge`: run a recipe, with bars for its parts and a summary at the end."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..system import uncollected
from .shared import note, noted, task_table


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "merge",
        help="merge experts as a recipe says",
        description="Merge the experts of a recipe, write the model, and evaluate it on every "
        "expert's task where the recipe names one.",
    )
    command.add_argument(
        "recipe",
        type=Path,
        help="YAML file; docs/recipes.md describes it. A mergekit configuration is read, too: "
        "docs/mergekit.md",
    )
    command.add_argument("--output", help="directory to write, instead of the recipe's")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="override an option of the method (repeatable); `methods NAME` lists them",
    )
    command.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="measure statistics again at the merge and merge once more, N - 1 times",
    )
    command.add_argument(
        "--after",
        action="append",
        metavar="STEP[:OPTION=VALUE,…]",
        help="a step on the merged update of every layer (repeatable, in this order; instead of "
        "the recipe's): stretch:scale=1.3, svc, lines:first=0.5,last=1.5",
    )
    command.add_argument(
        "--keep-sums",
        action="store_true",
        help="write sums over the experts beside the merge, so that others can be added later",
    )
    command.add_argument(
        "--adds-to",
        metavar="FOLDER",
        help="add the recipe's experts to those of a merge whose sums were kept",
    )
    command.add_argument(
        "--refine",
        type=int,
        metavar="EPOCHS",
        help="train the merge further by distillation from its experts, on unlabelled examples",
    )
    command.add_argument(
        "--lora",
        metavar="OPTION=VALUE,…",
        help="write one LoRA on the base instead of a whole checkpoint: rank=16 at most, "
        "energy=0.99 of every update, or both",
    )
    command.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"))
    command.add_argument(
        "--engine",
        choices=("local", "ray"),
        help="merge layers in this process, or on the Ray cluster at RAY_ADDRESS (a local one "
        "where none is named)",
    )
    command.add_argument(
        "--strangers",
        action="store_true",
        help="merge experts too that have nothing in common with the base",
    )
    command.add_argument("--no-evaluate", action="store_true", help="write the model and stop")
    command.add_argument(
        "--force",
        action="store_true",
        help="replace what a merge wrote there before, or an unfinished one",
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on where this merge was stopped, and leave what is done if it is stopped again",
    )
    command.add_argument(
        "--no-estimate",
        action="store_true",
        help="do not refuse a merge that does not fit into memory or onto the disk",
    )
    command.set_defaults(run=_merge)


def _merge(arguments: argparse.Namespace) -> None:
    with uncollected():
        from ..api import run
    from ..merging import kept
    from ..recipes import EpochDone, Examined, RoundDone, Started, load_recipe, parse_recipe
    from ..system import bar, drain

    with noted():
        recipe = load_recipe(arguments.recipe)
    refine = recipe.refine.model_dump() if recipe.refine else {}
    refine = None if arguments.refine is None else {**refine, "epochs": arguments.refine}
    said = {
        "output": str(Path(arguments.output).resolve()) if arguments.output else None,
        "device": arguments.device,
        "engine": arguments.engine,
        "rounds": arguments.rounds,
        "keep_sums": True if arguments.keep_sums else None,
        "adds_to": str(Path(arguments.adds_to).resolve()) if arguments.adds_to else None,
        "strangers": "allow" if arguments.strangers else None,
        "refine": refine,
        "lora": _lora(arguments.lora),
        "after": None if arguments.after is None else [*map(_step, arguments.after)],
        "evaluate": False if arguments.no_evaluate else None,
        "options": {**recipe.options, **_assignments(arguments.set)} if arguments.set else None,
    }
    changes = {name: value for name, value in said.items() if value is not None}
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
    events = run(
        recipe,
        force=arguments.force,
        resume=arguments.resume,
        check_fit=not arguments.no_estimate,
    )
    with noted(), bar() as show:
        device: list[str] = []

        def see(event: Any) -> None:
            if show is not None:
                show(event)
            if isinstance(event, Started) and event.device not in device:  # once, not every round
                device.append(event.device)
                note(f"device: {event.device} ({event.reason})")
            if isinstance(event, Examined):  # before the merge, which may take long
                for text in event.notes:
                    note(f"warning: {text}")
            if isinstance(event, EpochDone):
                note(_epoch(event))
            if isinstance(event, RoundDone):
                note(f"round {event.index} of {event.total} is merged; measuring statistics there")

        try:
            finished = drain(events, see)
        except KeyboardInterrupt as stop:
            events.close()  # a merge that can be resumed notes what it has done
            raise type(stop)(kept(recipe, resume=arguments.resume)) from None
    print(_summary(finished.report))


def _assignments(pairs: Iterable[str], before: str = "--set ") -> dict[str, Any]:
    from ..errors import plain_yaml

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"{before}{pair}", expected="OPTION=VALUE", found=f"'{pair}'")
        found[name.strip()] = plain_yaml(f"{before}{name.strip()}", value)
    return found


def _step(text: str) -> dict[str, dict[str, Any]]:
    """`stretch:scale=1.3` as in a recipe."""
    name, _, options = text.partition(":")
    return {name.strip(): _assignments(filter(None, options.split(",")), f"--after {name}:")}


def _lora(text: str | None) -> dict[str, Any] | None:
    """`rank=16,energy=0.99` as in a recipe."""
    return None if text is None else _assignments(filter(None, text.split(",")), "--lora ")


def _epoch(event: Any) -> str:
    epoch = event.epoch
    scores = 100 * sum(epoch.scores.values()) / len(epoch.scores)
    done = f"refining: epoch {epoch.number} of {event.total}" if epoch.number else "before refining"
    return f"{done}: divergence {epoch.divergence:.4g}, {scores:.1f} % on validation rows"


def _summary(report: Any) -> str:
    counted = ", ".join(f"{count} {kind}" for kind, count in report.coverage.items() if count)
    rounds = f" in {report.rounds} rounds" if report.rounds > 1 else ""
    rounds += ", trained" if report.trained else ""
    rounds += f", then {report.steps}" if report.after else ""
    lines = [f"{report.method}{rounds}: {counted}; {report.seconds:.1f} s on {report.device}"]
    lines += [f"note: {warning}" for warning in report.warnings]
    for trial in report.search:
        tried = ", ".join(f"{name}={value}" for name, value in trial.options.items())
        lines.append(f"  tried {tried}: {100 * trial.normalised_accuracy:.1f} % (validation)")
    lines += task_table(report.tasks)
    if report.tasks:
        trained = " (trained)" if report.trained else ""
        lines.append(f"normalised accuracy{trained} {100 * report.normalised_accuracy:.1f} %")
        if report.gap_recovered is not None:
            lines[-1] += f", gap recovered {100 * report.gap_recovered:.1f} %"
    if report.refined is not None:
        lines.append(report.refined.sentence)
    if report.routed:
        lines.append(f"routed by {report.routed['by']}: {report.size:.2f} × the size of the base")
    if report.lora:
        lines.append(report.as_lora)
    if report.output:
        lines.append(f"written to {report.output}")
    return "\n".join(lines)
