"""Every long job alike: a bar where a person looks, silence elsewhere, and the library as it was
after a job is stopped."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import mats_core as mats
from mats_core import analysis
from mats_core.recipes import load_family, measure_all, parse_recipe
from mats_core.statistics import measure_task
from mats_core.system import Event, bars, watched
from mats_core.tasks import load
from tests.conftest import family_recipe
from tests.module_cases import family, loader


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """SIGINT raises, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@dataclass
class Things:
    """What the jobs work on: three modules, and a family of directories."""

    folder: Path

    def __post_init__(self) -> None:
        self.base, self.experts = family("mlp")
        self.model = self.experts["e0"].train()
        recipe = family_recipe(self.folder, "kfac", options={"iterations": 5}, evaluate=False)
        self.recipe = parse_recipe(recipe, self.folder)
        self.statistics = {
            name: mats.measure(model, loader(), progress=False)
            for name, model in self.experts.items()
        }

    @property
    def dearest(self) -> analysis.Axis:
        return analysis.Axis("damping", (0.1, 1.0))


def plain(value: Any) -> Any:
    """A result without the seconds that it took."""
    if isinstance(value, mats.Merge):
        return {name: tensor.tolist() for name, tensor in value.state_dict().items()}
    if isinstance(value, mats.Statistics):
        return {n: torch.as_tensor(value.read(n, s)).tolist() for n, s in value.shapes.items()}
    return value


JOBS: dict[str, Callable[[Things, bool | None], Any]] = {
    "measure a module": lambda t, p: mats.measure(t.model, loader(), progress=p),
    "measure a checkpoint": lambda t, p: mats.measure(
        t.folder / "e0", str(t.folder / "t0.npz"), examples=16, progress=p
    ),
    "measure_task": lambda t, p: measure_task(
        load_family(t.folder).open(t.folder / "e0"),
        load(t.folder / "t0.npz"),
        examples=16,
        batch_size=4,
        progress=p,
    ),
    "measure_all": lambda t, p: measure_all(load_family(t.folder), examples=9, progress=p),
    "merge_models": lambda t, p: mats.merge_models(
        t.base, t.experts, "kfac", statistics=t.statistics, iterations=5, progress=p
    ),
    "merge": lambda t, p: mats.merge(t.recipe, progress=p),
    "evaluate a module": lambda t, p: mats.evaluate(t.model, loader(), progress=p),
    "evaluate a checkpoint": lambda t, p: mats.evaluate(
        t.folder / "e0", str(t.folder / "t0.npz"), progress=p
    ),
    "evaluate a merge": lambda t, p: mats.evaluate(
        mats.merge(t.recipe, progress=False), examples=8, progress=p
    ),
    "sweep": lambda t, p: watched(
        analysis.sweep(t.recipe, t.dearest, analysis.Axis("iterations", (1, 2)), examples=8), p
    ),
}
EVERY_JOB = pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
pytestmark = pytest.mark.filterwarnings("ignore:the expert")  # untrained ones, on purpose


@pytest.fixture
def things(tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Things:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    return Things(tiny_family)


@EVERY_JOB
def test_a_bar_on_request_in_a_terminal_and_never_else(job, things, monkeypatch, capsys):
    job(things, None)
    assert capsys.readouterr() == ("", "")  # a script
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    job(things, False)
    assert capsys.readouterr() == ("", "")
    job(things, None)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "%|" in shown.err
    assert shown.err.endswith("\r")  # and it is taken away


def interrupted_at(number: int) -> Callable[..., Any]:
    """A bar during whose `number`-th event the key for stopping is pressed."""

    class Bar:
        def __init__(self, wanted: bool | None = None) -> None:
            self.left = number if wanted else -1

        def __enter__(self) -> Callable[[Event], None]:
            return self.tell

        def __exit__(self, *error: object) -> None:
            return None

        def tell(self, event: Event) -> None:
            self.left -= 1
            if not self.left:
                signal.raise_signal(signal.SIGINT)

    return Bar


@EVERY_JOB
def test_stopping_leaves_the_library_usable(job, things, monkeypatch):
    before = {name: value.clone() for name, value in things.model.state_dict().items()}
    threads = set(threading.enumerate())
    number = 1 if job in (JOBS["measure a checkpoint"], JOBS["evaluate a checkpoint"]) else 2
    with monkeypatch.context() as patched:
        patched.setattr(bars, "bar", interrupted_at(number))
        with pytest.raises(KeyboardInterrupt):
            job(things, True)
    assert {thread for thread in threading.enumerate() if thread.name == "mats-solve"} <= threads
    assert things.model.training
    assert not [hook for one in things.model.modules() for hook in one._forward_hooks]
    assert all(torch.equal(before[n], v) for n, v in things.model.state_dict().items())
    assert not torch.is_inference_mode_enabled()
    again = plain(job(things, False))
    assert again == plain(job(Things(things.folder), False))


def stopping_loader() -> Iterator[Any]:
    yield loader()[0]
    signal.raise_signal(signal.SIGINT)
    yield loader()[1]


@pytest.mark.parametrize("job", [mats.measure, mats.evaluate], ids=["measure", "evaluate"])
def test_stopping_inside_a_loader_leaves_the_module_as_it_was(job):
    model = family("mlp", 1)[1]["e0"].train()
    wanted = plain(job(model, loader()))
    with pytest.raises(KeyboardInterrupt):
        job(model, stopping_loader())
    assert model.training
    assert plain(job(model, loader())) == wanted
