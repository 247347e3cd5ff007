"""`measure`: statistics of one expert, or of a whole family."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .shared import ADAPTERS_BASE, base_of, line, noted


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "measure",
        help="measure the statistics of an expert, or of a whole family",
        description="One forward and backward pass over calibration examples of the expert's own "
        "task: input Grams, output-gradient Grams, diagonal Fisher. The file can be shared "
        "without the data; docs/statistics.md describes it.",
    )
    command.add_argument("model", nargs="?", help="the expert's directory, or a hub id")
    command.add_argument("--base", help=ADAPTERS_BASE)
    command.add_argument("--task", help="a .yaml or .npz file, or sample:NAME")
    command.add_argument(
        "--optimizer",
        type=Path,
        metavar="FILE",
        help="instead of a task: the diagonal Fisher from the state of the AdamW that trained the "
        "model (optimizer.pt of the Trainer, a saved state_dict(), or safetensors); needs no data",
    )
    command.add_argument("--family", type=Path, help="a family.yaml, instead of one model")
    command.add_argument("--out", type=Path, required=True, help="file (one model) or directory")
    command.add_argument("--examples", type=int, default=256, help="calibration examples [256]")
    command.add_argument("--batch-size", type=int, default=64, help="[64]; the result is the same")
    command.add_argument(
        "--labels", choices=("empirical", "true"), default="empirical",
        help="true labels of the data, or sampled from the model ('true' Fisher) [empirical]",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--blocks", type=int, default=0, metavar="N",
        help="also the full Fisher block of parameters of at most N elements [0]",
    )  # fmt: skip
    command.add_argument(
        "--rank", type=int, default=0, metavar="K",
        help="keep Grams of at least 2 K columns as at most K rows: exact for up to K tokens, "
        "a sketch with a known error beyond [0: whole Grams]",
    )  # fmt: skip
    command.add_argument(
        "--memory",
        metavar="SIZE",
        help="what the sums may take, such as 4GB; above it, several passes [half of what is free]",
    )
    command.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    command.add_argument(
        "--engine", choices=("local", "ray"), default="local",
        help="measure one expert after the other in this process, or side by side on the Ray "
        "cluster at RAY_ADDRESS (a local one where none is named) [local]",
    )  # fmt: skip
    command.add_argument("--force", action="store_true", help="replace existing statistics files")
    command.set_defaults(run=_measure)


def _measure(arguments: argparse.Namespace) -> None:
    from .. import tasks
    from ..adapters import open_expert
    from ..checkpoints import hub
    from ..recipes import load_family
    from ..statistics import MeasureSettings, Member, measuring_to_file, require_output
    from ..system import bar, choose_device, drain, parse_bytes, part

    if (arguments.model is None) == (arguments.family is None):
        raise InputError(
            "measure", expected="either a model with --task, or --family", found="both or neither"
        )
    if arguments.examples < 1 or arguments.batch_size < 1:
        raise InputError("--examples and --batch-size", expected="at least 1", found="less")
    if arguments.rank < 0:
        raise InputError("--rank", expected="0 or more rows", found=str(arguments.rank))
    if arguments.optimizer is not None:
        _from_optimizer(arguments)
        return
    budget = parse_bytes(arguments.memory) if arguments.memory else None
    device, _ = choose_device(arguments.device)
    if arguments.family:
        collection = load_family(arguments.family)
        base = collection.model_path(collection.base)
        members = []
        for name, path, reference in collection.members(with_base=True):
            task = tasks.load(reference, root=collection.folder)
            file = arguments.out / f"{name}.stats.safetensors"
            members.append(Member(name, path, base, task, file))
        if not members:
            raise InputError(
                f"family '{arguments.family}'",
                expected="experts with a task that they are measured on",
                found="none",
                remedy="Name the 'task' of each in its family.yaml.",
            )
    else:
        if not arguments.task:
            raise InputError("measure", expected="--task", found="none")
        model, base = hub.locate(arguments.model), base_of(arguments)
        members = [Member(model.name, model, base, tasks.load(arguments.task), arguments.out)]
    for one in members:
        require_output(one.file, [("the model", one.model)], force=arguments.force)
    named = ("examples", "batch_size", "labels", "seed", "blocks", "rank")
    given = {name: getattr(arguments, name) for name in named}
    settings = MeasureSettings(**given, device=device)
    if arguments.engine == "ray":
        _on_ray(members, settings, budget)
        return
    for one in members:
        steps = measuring_to_file(
            open_expert(one.model, base), one.task, one.file, settings, memory=budget
        )
        with noted(), bar() as show:
            statistics = drain(part(steps, said=f"{one.task.name}: {{}}"), show)
        print(_told(one, statistics))


def _on_ray(members: Sequence[Any], settings: Any, budget: float | None) -> None:
    from ..statistics import ClusterReady, MemberDone, Statistics, measuring_on_ray
    from ..system import bar, drain

    begun, start, work = time.perf_counter(), 0.0, 0.0
    with noted(), bar() as show:

        def see(event: Any) -> None:
            nonlocal start, work
            if show is not None:
                show(event)
            if isinstance(event, ClusterReady):
                start = event.seconds
            if isinstance(event, MemberDone):
                work += event.seconds
                line(_told(event.member, Statistics.open(event.member.file)))

        drain(measuring_on_ray(members, settings, memory=budget), see)
    took = time.perf_counter() - begun
    print(f"{took:.1f} s, {start:.1f} s of them until the cluster was there; "
          f"{work:.1f} s of work in its workers")  # fmt: skip


def _told(one: Any, statistics: Any) -> str:
    lines = [f"{one.file}: {len(statistics.layers)} layers, "
             f"{statistics.metadata['examples']} examples"]  # fmt: skip
    return "\n".join([*lines, *(f"note: {note}" for note in statistics.notes)])


def _from_optimizer(arguments: argparse.Namespace) -> None:
    from ..adapters import open_expert
    from ..checkpoints import hub
    from ..statistics import optimizer_statistics, require_output

    if arguments.task or arguments.family:
        raise InputError(
            "measure --optimizer",
            expected="a model, and neither --task nor --family",
            found="--task" if arguments.task else "--family",
            remedy="A family names the file of each expert: `optimizer: FILE` in its family.yaml.",
        )
    if arguments.engine != "local":
        raise InputError(
            "measure --optimizer",
            expected="--engine local: a file is read, nothing is measured",
            found=f"--engine {arguments.engine}",
        )
    model = hub.locate(arguments.model)
    reads = [("the model", model), ("the optimiser's state", arguments.optimizer)]
    require_output(arguments.out, reads, force=arguments.force)
    statistics = optimizer_statistics(open_expert(model, base_of(arguments)), arguments.optimizer)
    statistics.save(arguments.out)
    print(f"{arguments.out}: {len(statistics.shapes)} parameters")
    for note in statistics.notes:
        print(f"note: {note}")
