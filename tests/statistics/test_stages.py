"""Blocks, stages and residual streams, found by a look at one batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

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


def width(stage):
    return {"first": 4}.get(stage.layers[0], 12 if stage.layers[0].endswith("out") else 6)
