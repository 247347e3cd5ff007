"""What training wrappers leave in names is read through; nothing else is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from mats_core import merge_models
from mats_core.checkpoints.files import Checkpoint
from mats_core.checkpoints.wrappers import inside, unwrapped
from tests.module_cases import Mlp, family

PLAIN = ["encoder.layer.0.q.weight", "encoder.layer.1.q.weight", "head.bias"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda n: f"_orig_mod.{n}",
        lambda n: f"module.{n}",
        lambda n: f"module._orig_mod.{n}",
        lambda n: f"_orig_mod.module.{n}",
        lambda n: f"_forward_module.module.{n}",
        lambda n: f"_fsdp_wrapped_module.{n}",
        lambda n: f"_module.{n}",
        lambda n: n.replace("encoder.", "encoder._orig_mod."),
        lambda n: n.replace(".q.", "._checkpoint_wrapped_module.q."),
        lambda n: n.replace("layer.0.", "layer.0._fsdp_wrapped_module._checkpoint_wrapped_module."),
    ],
)
def test_wrappers_are_read_through(wrap, tmp_path):
    wrapped = [wrap(name) for name in PLAIN]
    assert list(unwrapped(wrapped).values()) == PLAIN
    values = {name: torch.randn(3) for name in PLAIN}
    save_file({wrap(n): v for n, v in values.items()}, tmp_path / "model.safetensors")
    opened = Checkpoint.open(tmp_path)
    assert list(opened.tensors) == PLAIN
    assert all(torch.equal(opened.read(name), value) for name, value in values.items())


@pytest.mark.parametrize(
    "names",
    [
        ["module.q.weight", "classifier.weight"],  # a module of that name, not all of the model
        ["a._orig_mod.q.weight", "a.q.weight"],  # two names would become one
        ["encoder.my_orig_mod.weight"],
        ["_orig_mod"],
    ],
)
def test_what_is_no_wrapper_stays(names):
    assert unwrapped(names) == {name: name for name in names}


def under_compile(module: nn.Module) -> nn.Module:
    compiled: Any = torch.compile(module, backend="eager")
    return compiled


def test_modules_inside_of_wrappers_merge_as_they_are():
    base, experts = family("mlp", 2)
    plain = merge_models(base, experts).state_dict()
    one, two = experts.values()
    compiled = under_compile(copy.deepcopy(base))
    wrapped = [under_compile(one), nn.DataParallel(two)]
    merged = merge_models(compiled, wrapped)
    compiled.load_state_dict(merged.state_dict())
    for name, value in plain.items():
        assert torch.equal(compiled.state_dict()[f"_orig_mod.{name}"], value)


WRAPPED = {
    "torch.compile": under_compile,
    "data-parallel": nn.DataParallel,
    "both": lambda module: nn.DataParallel(under_compile(module)),
    "checkpointing": lambda module: nn.DataParallel(checkpoint_wrapper(module)),
    "none": lambda module: module,
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_heads_of_wrapped_experts_are_written_under_their_plain_names(tmp_path, kind):
    base, experts = family("mlp", 2)
    wrapped = {name: WRAPPED[kind](copy.deepcopy(one)) for name, one in experts.items()}
    name = list(base.state_dict())[-1]
    merged = merge_models(base, wrapped, heads=[name])
    merged.save(tmp_path / "out")
    for expert, module in experts.items():
        head = load_file(tmp_path / "out" / "heads" / expert / "head.safetensors")
        assert list(head) == [name]
        assert torch.equal(head[name], module.state_dict()[name])


def test_the_module_inside():
    module = Mlp()
    assert inside(nn.DataParallel(under_compile(module))) is module
    assert inside(nn.DataParallel(checkpoint_wrapper(module))) is module
    assert inside(module) is module
