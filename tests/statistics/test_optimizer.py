"""The diagonal Fisher of an optimiser's state, against an AdamW in plain numpy."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mats_core as mats
from mats_core.checkpoints import Checkpoint
from mats_core.cli.main import main
from mats_core.errors import InputError
from mats_core.recipes import open_inputs, parse_recipe
from mats_core.statistics import optimizer_statistics
from tests.conftest import family_recipe, loaded

STEPS, RATE, BETAS, EPS, DECAY, BATCH = 7, 1e-2, (0.9, 0.95), 1e-8, 0.1, 5


class Linear(nn.Module):
    """W x + b, whose gradients of a squared loss are written by hand below."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2, dtype=torch.float64)
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for value in self.fc.parameters():
                value.copy_(torch.from_numpy(rng.standard_normal(tuple(value.shape))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


def batches(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(100 + seed)
    return [
        (rng.standard_normal((BATCH, 3)), rng.standard_normal((BATCH, 2))) for _ in range(STEPS)
    ]


def trained(seed: int, *, named: bool = False) -> tuple[Linear, torch.optim.AdamW]:
    model = Linear(seed)
    given: Any = model.named_parameters() if named else model.parameters()
    optimiser = torch.optim.AdamW(given, RATE, BETAS, EPS, DECAY)
    for x, y in batches(seed):
        optimiser.zero_grad()
        (model(torch.from_numpy(x)) - torch.from_numpy(y)).square().sum(1).mean().backward()
        optimiser.step()
    return model, optimiser


def by_hand(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights, and v / (1 − β₂^t), of the same training: AdamW as its paper writes it."""
    start = Linear(seed)
    theta = {n: v.detach().numpy().copy() for n, v in start.named_parameters()}
    m = {n: np.zeros_like(v) for n, v in theta.items()}
    v = {n: np.zeros_like(v) for n, v in theta.items()}
    for t, (x, y) in enumerate(batches(seed), 1):
        error = 2 * (x @ theta["fc.weight"].T + theta["fc.bias"] - y) / BATCH
        for name, g in {"fc.weight": error.T @ x, "fc.bias": error.sum(0)}.items():
            m[name] = BETAS[0] * m[name] + (1 - BETAS[0]) * g
            v[name] = BETAS[1] * v[name] + (1 - BETAS[1]) * g**2
            step = m[name] / (1 - BETAS[0] ** t) / (np.sqrt(v[name] / (1 - BETAS[1] ** t)) + EPS)
            theta[name] = (1 - RATE * DECAY) * theta[name] - RATE * step
    return theta, {name: one / (1 - BETAS[1] ** STEPS) for name, one in v.items()}


@pytest.mark.parametrize("named", [False, True])
def test_it_is_the_bias_corrected_second_moment(named: bool, tmp_path: Path) -> None:
    model, optimiser = trained(0, named=named)
    torch.save(optimiser.state_dict(), tmp_path / "optimizer.pt")
    found = mats.optimizer_statistics(model, tmp_path / "optimizer.pt")
    _, wanted = by_hand(0)
    assert found.kinds == {"fisher"}
    for name, value in wanted.items():
        ours = found.read(f"{name}.fisher", value.shape, dtype=torch.float64)
        assert ours is not None
        np.testing.assert_allclose(ours.numpy(), value, rtol=1e-6)
    assert found.metadata["origin"] == "optimiser state"
    assert "after 7 updates" in found.notes[0]


def test_a_merge_with_it_is_fisher_merging_by_hand(tmp_path: Path) -> None:
    experts, statistics = {}, {}
    for seed in (1, 2):
        model, optimiser = trained(seed)
        torch.save({"optimizer": optimiser.state_dict()}, tmp_path / f"{seed}.ckpt")
        experts[str(seed)] = model
        statistics[str(seed)] = mats.optimizer_statistics(model, tmp_path / f"{seed}.ckpt")
    merged = mats.merge_models(
        Linear(0), experts, "fisher", statistics=statistics, heads=[], strangers=True,
        normalise=False, floor=0.0, dtype="float64",
    )  # fmt: skip
    (w1, f1), (w2, f2) = by_hand(1), by_hand(2)
    for name, value in merged.state_dict().items():
        wanted = (f1[name] * w1[name] + f2[name] * w2[name]) / (f1[name] + f2[name])
        np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-6)
    assert any("optimiser's state" in note for note in merged.inputs.notes)


# Order --------------------------------------------------------------------------------------------


def moments(model: nn.Module, groups: list[list[str]], **more: Any) -> dict[str, Any]:
    """A state dict whose moments tell whose they are: the number of the parameter plus one."""
    parameters = dict(model.named_parameters())
    known = list(parameters)
    names = [name for group in groups for name in group]
    state = {
        i: {
            "step": torch.tensor(3.0),
            "exp_avg": torch.zeros_like(parameters[name]),
            "exp_avg_sq": torch.full_like(parameters[name], known.index(name) + 1.0),
        }
        for i, name in enumerate(names)
    }
    count, listed = 0, []
    for group in groups:
        own = list(range(count, count + len(group)))
        listed.append({"lr": 1e-3, "betas": (0.9, 0.999), "params": own, **more})
        count += len(group)
    return {"state": state, "param_groups": listed}


def sorted_by_decay(model: nn.Module) -> list[list[str]]:
    """As the Trainer of transformers sorts them, by its own code."""
    from transformers import Trainer

    asked: Any = Trainer.get_decay_parameter_names
    decay = set(asked(None, model))
    names = [name for name, _ in model.named_parameters()]
    return [[n for n in names if n in decay], [n for n in names if n not in decay]]


def by_dimension(model: nn.Module) -> list[list[str]]:
    large = {name for name, value in model.named_parameters() if value.ndim > 1}
    names = [name for name, _ in model.named_parameters()]
    return [[n for n in names if n in large], [n for n in names if n not in large]]


def in_one(model: nn.Module) -> list[list[str]]:
    return [[name for name, _ in model.named_parameters()]]


def head_first(model: nn.Module) -> list[list[str]]:
    names = [name for name, _ in model.named_parameters()]
    return [[n for n in names if "classifier" in n], [n for n in names if "classifier" not in n]]


@pytest.mark.parametrize("sort", [sorted_by_decay, by_dimension, in_one, head_first])
def test_entries_of_a_checkpoint_find_their_tensors(
    sort: Any, tiny_family: Path, tmp_path: Path
) -> None:
    checkpoint = Checkpoint.open(tiny_family / "e0")
    model = loaded(checkpoint)
    torch.save(moments(model, sort(model)), tmp_path / "optimizer.pt")
    found = optimizer_statistics(checkpoint, tmp_path / "optimizer.pt")
    assert len(found.shapes) == len(checkpoint.tensors)
    own = {name: index for index, (name, _) in enumerate(model.named_parameters(), 1)}
    told = {}
    for name in checkpoint.tensors:
        value = found.stored(f"{name}.fisher")
        assert tuple(value.shape) == checkpoint.tensors[name].shape
        told[name] = round(float(value.flatten()[0]) * (1 - 0.999**3))
    # Each tensor holds what its own parameter was given: compared by what the tensors hold.
    values = {index: value for index, (_, value) in enumerate(model.named_parameters(), 1)}
    assert sorted(told.values()) == sorted(own.values())
    for name, index in told.items():
        assert torch.equal(checkpoint.read(name), values[index].detach())


def test_entries_that_fit_in_two_ways_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    # One layer was frozen: which, neither shapes nor order tell.
    torch.save(moments(model, [["0.weight", "0.bias"]]), tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match="in more than one way"):
        optimizer_statistics(model, tmp_path / "optimizer.pt")
    model[1].requires_grad_(False)  # the module says it
    found = optimizer_statistics(model, tmp_path / "optimizer.pt")
    assert set(found.shapes) == {"0.weight.fisher", "0.bias.fisher"}


def test_safetensors_and_states_by_name_say_whose_they_are(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    one = torch.rand(4, 4)
    save_file({"state.1.weight.exp_avg_sq": one}, tmp_path / "moments.safetensors", {"step": "2"})
    by_name = {
        "state": {"1.weight": {"step": 2, "exp_avg_sq": one}},
        "param_groups": [{"betas": [0.9, 0.999], "params": ["1.weight"]}],
    }
    torch.save(by_name, tmp_path / "moments.pt")
    for name in ("moments.safetensors", "moments.pt"):
        found = optimizer_statistics(model, tmp_path / name)
        assert list(found.shapes) == ["1.weight.fisher"]
        assert torch.allclose(found.stored("1.weight.fisher"), one / (1 - 0.999**2))


# What is refused ----------------------------------------------------------------------------------


class Code:
    """What a pickle needs code for."""


def broken(**changes: Any) -> dict[str, Any]:
    state = moments(nn.Linear(2, 2), [["weight", "bias"]])
    state["state"][0] |= changes
    return state


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (OrderedDict(state={0: Code()}, param_groups=[]), "needs code"),
        ({"model": torch.zeros(2)}, "'state' and 'param_groups'"),
        (broken(exp_avg_sq=None, momentum_buffer=torch.zeros(2, 2)), "SGD"),
        (broken(exp_avg_sq=-torch.ones(2, 2)), "none below zero"),
        (broken(exp_avg_sq=torch.full((2, 2), torch.nan)), "NaN"),
        (broken(exp_avg_sq=torch.full((2, 2), 1e38)), "that float32 holds"),
        (broken(exp_avg_sq=torch.ones(3, 3)), r"shape \[3, 3\]"),
        (broken(step=torch.tensor(0.0)), "at least one update"),
        (broken(step="many"), "number of updates"),
        (broken(step=10**400), "number of updates"),
        (broken(step=[1] * 1000), "number of updates"),
        (broken(exp_avg_sq=torch.ones(1).expand(10**6, 10**6)), "all stored"),
        (broken(exp_avg_sq=torch.zeros(2, 2).to(torch.float8_e4m3fn)), "float8"),
        (broken(exp_avg_sq=torch.zeros(2, 2).to_sparse()), "dense"),
        (broken() | {"state": {0: torch.ones(3)}}, "'exp_avg_sq'"),
        (broken() | {"state": {"x" * 10**6: {"step": 1}}}, "none"),
        (moments(nn.Linear(2, 2), [["weight", "bias"]], betas=("a", "b" * 10**6)), "β₂"),
        (moments(nn.Linear(2, 2), [["weight", "bias"]], betas=[[1] * 10**6] * 2), "β₂"),
        (moments(nn.Linear(2, 2), [["weight", "bias"]], betas="a" * 10**6), "'betas'"),
        (moments(nn.Linear(2, 2), [["weight", "bias"]], params=[[1], [2]]), "numbers or names"),
        (moments(nn.Linear(2, 2), [["weight", "bias"]], params={"a": 1}), "a list 'params'"),
        (moments(nn.Linear(2, 2), [["weight", "bias"]], betas=(0.9, 1.0)), "β₂"),
        (moments(nn.Linear(2, 2), [["weight", "bias"]], betas=None), "'betas'"),
        (moments(nn.Linear(2, 2), [["weight", "bias", "bias"]]), "3 entries"),
    ],
)
def test_what_no_adam_left_behind_is_refused(held: Any, words: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match=words) as refused:
        optimizer_statistics(nn.Linear(2, 2), tmp_path / "optimizer.pt")
    assert len(str(refused.value)) <= 1000


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "optimizer.pt"
    torch.save(broken(), file)
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(InputError, match="cannot be read"):
        optimizer_statistics(nn.Linear(2, 2), file)


def test_the_command_that_converts_leaves_what_is_read(tmp_path: Path) -> None:
    import shlex
    import subprocess
    import sys

    held = broken()
    held["param_groups"][0]["scheduler"] = np.float64(1.0)  # a scalar that torch does not know
    torch.save(held | {"extra": np.random.default_rng(0)}, tmp_path / "optimizer.pt")
    with pytest.raises(InputError) as refused:
        optimizer_statistics(nn.Linear(2, 2), tmp_path / "optimizer.pt")
    told = re.search(r"python (-c .*)$", str(refused.value))
    assert told
    subprocess.run([sys.executable, *shlex.split(told[1])], check=True)
    found = optimizer_statistics(nn.Linear(2, 2), tmp_path / "moments.pt")
    assert len(found.shapes) == 2


# Recipes and the command line ---------------------------------------------------------------------


def test_a_recipe_names_it_beside_measured_statistics(tiny_family: Path, tmp_path: Path) -> None:
    content = family_recipe(tiny_family, "fisher")
    model = loaded(Checkpoint.open(tiny_family / "e0"))
    torch.save(moments(model, in_one(model)), tmp_path / "optimizer.pt")
    experts: Any = content["experts"]
    experts[0] = experts[0] | {"optimizer": str(tmp_path / "optimizer.pt")}
    recipe = parse_recipe(content, tiny_family)
    inputs = open_inputs(recipe)
    own, other = inputs.statistics[:2]
    assert own is not None
    assert other is not None
    assert own.kinds == other.kinds  # Grams stay as they were measured
    name = inputs.family.shared[0]
    said = optimizer_statistics(Checkpoint.open(tiny_family / "e0"), tmp_path / "optimizer.pt")
    file_name = inputs.family.experts[0].own(name)
    assert torch.equal(own.stored(f"{name}.fisher"), said.stored(f"{file_name}.fisher"))
    assert any(note.startswith("expert 'e0': the diagonal Fisher") for note in inputs.notes)


def test_the_command_line_writes_a_statistics_file(
    tiny_family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = loaded(Checkpoint.open(tiny_family / "e0"))
    torch.save(moments(model, in_one(model)), tmp_path / "optimizer.pt")
    out = tmp_path / "e0.stats.safetensors"
    main(["measure", str(tiny_family / "e0"), "--optimizer", str(tmp_path / "optimizer.pt"),
          "--out", str(out)])  # fmt: skip
    assert "not measured on data" in capsys.readouterr().out
    found = mats.Statistics.open(out)
    found.check(Checkpoint.open(tiny_family / "e0").fingerprint)
    assert found.metadata["origin"] == "optimiser state"
