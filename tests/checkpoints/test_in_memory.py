"""Modules and state dicts as weights: the same contents as the same tensors in a file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mats_core.checkpoints.files import Checkpoint
from mats_core.checkpoints.in_memory import InMemory
from mats_core.checkpoints.renamed import Renamed, original
from mats_core.checkpoints.source import Weights
from mats_core.errors import InputError
from mats_core.families.examine import examine
from mats_core.families.expert import Expert

KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4, bias=False)
    return nn.Sequential(*layers).to(dtype)


@pytest.mark.parametrize("dtype", KINDS)
def test_a_module_is_the_checkpoint_that_holds_its_tensors(tmp_path, dtype):
    model = network(1, dtype)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    file, held = Checkpoint.open(tmp_path / "m.safetensors"), InMemory.of(model, "m")
    assert isinstance(file, Weights)
    assert isinstance(held, Weights)
    assert list(held.tensors) == list(file.tensors)
    assert (held.fingerprint, held.nbytes) == (file.fingerprint, file.nbytes)
    for name, entry in file.tensors.items():
        assert (held.tensors[name].dtype, held.tensors[name].shape) == (entry.dtype, entry.shape)
        assert held.digest(name) == file.digest(name)
        assert held.finite(name)
        for wanted in (None, torch.float64, torch.float32):
            assert torch.equal(held.read(name, dtype=wanted), file.read(name, dtype=wanted))
    parts = [w.part("3.weight", 5, 17, dtype=torch.float64) for w in (held, file)]
    assert torch.equal(*parts)
    assert len(list(held.parts("3.weight", 10))) == 5
    assert InMemory.of(model.state_dict(), "m").fingerprint == file.fingerprint


def test_nothing_is_copied_until_it_is_read_and_what_is_read_is_the_readers():
    model = network()
    held = InMemory.of(model, "m")
    weight = model.get_parameter("3.weight")
    assert held.held["3.weight"].data_ptr() == weight.data_ptr()
    before = weight.detach().clone()
    held.read("3.weight").zero_()
    assert torch.equal(weight, before)
    view = Renamed.of(held, {"fc.weight": "3.weight"})
    assert torch.equal(view.read("fc.weight"), before)
    assert view.own("fc.weight") == "3.weight"
    assert view.finite("fc.weight")


def test_a_tensor_in_another_layout_is_read_whole_and_has_the_same_contents():
    weight = torch.arange(12.0).reshape(3, 4)
    plain, turned = (InMemory.of({"w": w}, "m") for w in (weight, weight.T.contiguous().T))
    assert plain.reads_parts("w")
    assert not turned.reads_parts("w")
    assert turned.digest("w") == plain.digest("w")
    assert torch.equal(turned.part("w", 3, 7), plain.part("w", 3, 7))
    assert turned.read("w").is_contiguous()


def test_numbers_that_are_not_finite_are_seen():
    held = InMemory.of({"a": torch.tensor([1.0, float("nan")]), "n": torch.tensor([1])}, "m")
    assert [held.finite(name) for name in held.tensors] == [False, True]
    empty = InMemory.of({"e": torch.empty(0, 3)}, "m")
    assert empty.finite("e")
    assert empty.read("e").shape == (0, 3)


class Tied(nn.Module):
    """An embedding that is also the output's weight, and two norms that share their bias."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight
        self.first, self.second = nn.LayerNorm(4), nn.LayerNorm(4)
        self.second.bias = self.first.bias


def test_shared_memory_is_a_tie_whatever_it_holds(tmp_path):
    base, one = (InMemory.of(Tied(seed), "m") for seed in (0, 1))
    assert base.aliases == {"out.weight": "embed.weight", "second.bias": "first.bias"}
    family = examine(base, [Expert("one", one)])
    # The biases are zero: in files they would agree by accident.
    assert family.tied_to == {"out.weight": "embed.weight", "second.bias": "first.bias"}
    assert family.roles["second.bias"] == "tied"
    # An expert that trained them apart is not forced together again.
    state = {name: value.clone() for name, value in Tied(2).state_dict().items()}
    state["second.bias"] += 1
    apart = examine(base, [Expert("apart", InMemory.of(state, "apart"))])
    assert apart.tied_to == {"out.weight": "embed.weight"}
    save_file(state, tmp_path / "m.safetensors")
    assert Checkpoint.open(tmp_path / "m.safetensors").aliases == {}


def test_aliases_are_seen_through_a_renamed_view():
    held = InMemory.of(Tied(0), "m")
    view = Renamed.of(held, {f"model.{name}": name for name in held.tensors})
    assert view.aliases["model.out.weight"] == "model.embed.weight"


def test_a_view_of_a_view_knows_the_names_and_the_weights_below_both():
    held = InMemory.of(Tied(0), "m")
    inner = Renamed.of(held, {f"model.{name}": name for name in held.tensors})
    outer = Renamed.of(inner, {f"base.{name}": name for name in inner.tensors})
    assert {outer.own(name) for name in outer.tensors} == set(held.tensors)
    assert original(outer) is held
    assert original(held) is held


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (torch.empty(2, 2, device="meta"), ("'w' of 'm'", "meta device", "Load the weights")),
        ([1.0, 2.0], ("'w' of 'm'", "a tensor", "list")),
        (torch.zeros(2, dtype=torch.complex64), ("'w' of 'm'", "complex64")),
        (torch.eye(2).to_sparse(), ("'w' of 'm'", "dense", "sparse")),
        (nn.LazyLinear(3).weight, ("'w' of 'm'", "lazy module", "Call the module once")),
    ],
)
def test_what_is_no_weight_is_refused_by_name(entry, words):
    with pytest.raises(InputError) as error:
        InMemory.of({"a": torch.zeros(1), "w": entry}, "m")
    assert all(word in str(error.value) for word in words)


def test_a_module_without_tensors_is_refused():
    with pytest.raises(InputError, match="named tensors"):
        InMemory.of(nn.ReLU(), "activation")


def test_modules_of_transformers_bring_their_configuration(tiny_family):
    from transformers import ViTForImageClassification

    model = ViTForImageClassification.from_pretrained(tiny_family / "e0")
    held = InMemory.of(model, "e0")
    file = Checkpoint.open(tiny_family / "e0")
    assert held.class_names == file.class_names
    assert held.config["model_type"] == "vit"
    assert InMemory.of(network(), "plain").config == {}
