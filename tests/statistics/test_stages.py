"""Blocks, stages and residual streams, found by a look at one batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mats_core.models import Ahead
from mats_core.statistics import Seen, Stream, blocks_of, moments, room
from tests.architectures import ARCHITECTURES, config, inputs

CLASSES = {"image": "ViTForImageClassification", "text": "BertForSequenceClassification"}


class Pre(nn.Module):
    """x + two(relu(one(norm x))), with two projections of one input beside each other."""

    def __init__(self, size=6, bias=True):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(size), nn.Linear(2 * size, size, bias=bias)
        self.left, self.right = (nn.Linear(size, size, bias=bias) for _ in range(2))

    def forward(self, x, scale=1.0):
        z = self.norm(x)
        return x + self.out(torch.cat([torch.relu(self.left(z)), scale * self.right(z)], -1))


class Net(nn.Module):
    def __init__(self, blocks, differently=False):
        super().__init__()
        self.first, self.blocks = nn.Linear(4, 6), nn.ModuleList(blocks)
        self.differently = differently

    def forward(self, x, attention_mask=None):
        x = self.first(x)
        for number, block in enumerate(self.blocks):
            x = block(x, scale=1.0 + number) if self.differently else block(x)
        return x


def net(**settings):
    torch.manual_seed(0)
    return Net([Pre(), Pre(), Pre()], **settings).eval()


def linear(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def test_stages_are_layers_of_one_input_and_streams_are_found_by_value():
    model = net()
    blocks = blocks_of(model, {"x": torch.randn(2, 5, 4)}, linear(model))
    assert [block.module for block in blocks] == ["blocks.0", "blocks.1", "blocks.2"]
    beside, out = blocks[1].stages
    assert (beside.layers, beside.streams) == (("blocks.1.left", "blocks.1.right"), {})
    assert out.layers == ("blocks.1.out",)
    assert out.streams == {"blocks.1.out": Seen("blocks.1", "input")}


def test_blocks_that_are_called_in_different_ways_are_one_with_the_whole_model():
    model = net(differently=True)
    (whole,) = blocks_of(model, {"x": torch.randn(2, 5, 4)}, linear(model))
    assert whole.module == ""
    assert [layer for stage in whole.stages for layer in stage.layers] == linear_in_order(model)
    assert whole.stages[2].streams == {"blocks.0.out": Seen("first", "output")}


def linear_in_order(model):
    rest = [f"blocks.{i}.{name}" for i in range(3) for name in ("left", "right", "out")]
    return ["first", *rest]


def test_a_layer_that_is_used_twice_has_no_stage():
    one = Pre()
    model = Net([one, one]).eval()
    found = blocks_of(model, {"x": torch.randn(2, 5, 4)}, linear(model))
    assert [s.layers for block in found for s in block.stages] == [("first",)]


@pytest.mark.parametrize("name", ["vit", "bert", "llama, classification", "gpt2, classification"])
def test_real_blocks_have_four_stages_with_both_streams(name):
    import transformers

    architecture = ARCHITECTURES[name]
    own = config(architecture, architecture.expert, 3)
    torch.manual_seed(0)
    model = getattr(transformers, architecture.expert)(own).eval()
    names = [
        n for n, m in model.named_modules()
        if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"
    ]  # fmt: skip
    blocks = blocks_of(model, inputs(architecture.inputs), names)
    assert len(blocks) == 2
    for block in blocks:
        assert len(block.stages) == 4
        for number in (1, 3):
            (layer,) = block.stages[number].layers
            assert layer in block.stages[number].streams
        assert not block.stages[0].streams
        assert not block.stages[2].streams


# Moments ------------------------------------------------------------------------------------------


def whole(model, batch, module, side):
    """What a module takes or gives in one plain pass."""
    seen = []
    own = model.get_submodule(module)
    if side == "input":
        hook = own.register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    else:
        hook = own.register_forward_hook(lambda m, a, o: seen.append(o))
    with torch.no_grad():
        model(**batch)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("differently", [False, True])
@pytest.mark.parametrize("budget", [1e9, 0.0])
def test_moments_are_those_of_plain_passes(differently, budget):
    merge, expert = net(differently=differently), net(differently=differently)
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    mask = torch.ones(3, 5, dtype=torch.long)
    mask[1, 3:] = 0
    batches = [{"x": torch.randn(3, 5, 4), "attention_mask": mask}, {"x": torch.randn(2, 5, 4)}]
    blocks = blocks_of(merge, batches[0], linear(merge))
    kept = [m.bool() if (m := b.get("attention_mask")) is not None else ... for b in batches]
    with room(budget) as place:
        streams = [Stream(model, blocks[0].module, batches, place) for model in (merge, expert)]
        for block in blocks:
            for stage in block.stages:
                found = moments(streams[0], streams[1], block, stage)
                x_s, x_e = (
                    torch.cat([
                        torch.nn.functional.pad(
                            whole(model, b, stage.layers[0], "input")[k].reshape(-1, width(stage)),
                            (0, 1), value=1.0,
                        )
                        for b, k in zip(batches, kept, strict=True)
                    ])
                    for model in (merge, expert)
                )  # fmt: skip
                assert found.tokens == len(x_s) == 13 + 10
                torch.testing.assert_close(found.gram, x_s.T @ x_s / len(x_s))
                torch.testing.assert_close(found.cross, x_e.T @ x_s / len(x_s))
                for layer, seen in stage.streams.items():
                    r_s, r_e = (
                        torch.cat([
                            whole(model, b, seen.module, seen.side)[k].reshape(-1, 6)
                            for b, k in zip(batches, kept, strict=True)
                        ])
                        for model in (merge, expert)
                    )  # fmt: skip
                    expected = (r_e - r_s).T @ x_s / len(x_s)
                    torch.testing.assert_close(found.lost[layer], expected, rtol=1e-4, atol=1e-6)
            for stream in streams:
                stream.go_on(block.module)


def walked(budget, changed=lambda model: None):
    """The moments of a walk in whose course the layers of the merge get other weights, and how
    often each linear layer of the merge and of the expert ran."""
    merge, expert = net(), net()
    for model in (merge, expert):
        changed(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    batches = [{"x": torch.randn(3, 5, 4)}, {"x": torch.randn(2, 5, 4)}]
    blocks, runs, found = blocks_of(merge, batches[0], linear(merge)), {}, []
    with room(budget) as place:
        left = place.left
        streams = [Stream(model, blocks[0].module, batches, place) for model in (merge, expert)]
        held = left - place.left
        for number, model in enumerate((merge, expert)):
            for name in [layer for b in blocks for s in b.stages for layer in s.layers]:
                counted(model.get_submodule(name), (number, name), runs)
        for block in blocks:
            for stage in block.stages:
                found.append(moments(streams[0], streams[1], block, stage, at_once=stage.streams))
                with torch.no_grad():
                    for layer in stage.layers:
                        merge.get_parameter(f"{layer}.weight").mul_(0.9)
            for stream in streams:
                stream.go_on(block.module)
        assert left - place.left == held  # nothing is kept of a block that is behind
    return found, runs, [args[0] for args, _ in (*streams[0].calls, *streams[1].calls)]


def counted(module, key, runs):
    plain = module.forward

    def forward(x):
        runs[key] = runs.get(key, 0) + 1
        return plain(x)

    module.forward = forward


def hooked(model):
    """What a layer gives is changed by a hook."""
    for block in model.blocks:
        block.left.register_forward_hook(lambda m, a, o: o.mul_(1.5))


@pytest.mark.parametrize("changed", [lambda model: None, hooked])
def test_a_walk_that_keeps_what_parts_gave_is_the_same_and_runs_each_layer_once(changed):
    (plain, again, ends), (kept, once, others) = (walked(size, changed) for size in (0.0, 1e9))
    for one, other in zip(plain, kept, strict=True):
        assert one.error == other.error
        assert one.cross is None if other.cross is None else torch.equal(one.cross, other.cross)
        assert torch.equal(one.gram, other.gram)
        assert one.wanted.keys() == other.wanted.keys()
        assert all(torch.equal(value, other.wanted[n]) for n, value in one.wanted.items())
    assert all(torch.equal(*pair) for pair in zip(ends, others, strict=True))
    every = {key: n for key, n in once.items() if changed is not hooked or "left" not in key[1]}
    assert max(every.values()) == 2 < max(again.values())  # of two batches


def test_an_output_that_is_written_into_later_is_not_given_again():
    class Changing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.one(x)
            z = self.two(y.clone())
            return y.add_(z)

    model, batch = nn.Sequential(Changing(), Changing()), {"input": torch.randn(2, 4)}
    expected = model[0](batch["input"]).detach()
    with room(1e9) as place:
        stream = Stream(model, "0", [batch], place)
        seen = [Seen("0.two", "output")]
        for _ in range(2):
            stream.caught("0", 0, seen, Ahead(["0.two"]), whole=True)
        stream.go_on("0")
    torch.testing.assert_close(stream.calls[0][0][0], expected)


def width(stage):
    return {"first": 4}.get(stage.layers[0], 12 if stage.layers[0].endswith("out") else 6)
