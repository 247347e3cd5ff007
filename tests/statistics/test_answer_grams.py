"""How answers turn with the outputs of layers, against the Jacobian by hand, in float64."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mats_core.statistics.answer_grams import answer_grams


class Net(nn.Module):
    """Tokens through two layers, the mean of them through a head."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3)
        self.head = nn.Linear(3, 6)
        self.double()

    def forward(self, x):
        self.hidden = torch.tanh(self.one(x))
        return SimpleNamespace(logits=self.head(self.two(self.hidden).mean(1)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def contrasts(count, classes=6, seed=3, at_once=8):
    """The draws of `answer_grams`, part by part."""
    random = torch.Generator().manual_seed(seed)
    sizes = [min(at_once, count - at) for at in range(0, count, at_once)]
    signs = [torch.randint(0, 2, (n, classes), generator=random) * 2.0 - 1 for n in sizes]
    found = torch.cat(signs).double()
    return found - found.mean(-1, keepdim=True)


def unit_gram(rows):
    """Σ g gᵀ of rows (inputs, tokens, d), each input's at length one, of trace one."""
    rows = rows / rows.flatten(1).norm(dim=1)[:, None, None]
    gram = torch.einsum("ntd,nte->de", rows, rows)
    return gram / gram.trace()


def test_they_are_the_jacobian_by_hand(net):
    x = torch.randn(11, 7, 4, dtype=torch.float64)
    found = answer_grams(net, ["one", "two"], [{"x": x}], 3)
    behind = contrasts(11) @ net.head.weight / 7  # ∂(cᵀ z) / ∂y of the second layer, every token
    second = behind[:, None].expand(11, 7, 3)
    with torch.no_grad():
        net(x)
    first = (second @ net.two.weight) * (1 - net.hidden**2)
    torch.testing.assert_close(found["two"], unit_gram(second))
    torch.testing.assert_close(found["one"], unit_gram(first))


def test_no_input_counts_more_than_another(net):
    """An expert's scale, and how sure it is of an input, make no difference."""
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    before = answer_grams(net, ["two"], [{"x": x}], 0)["two"]
    with torch.no_grad():
        net.head.weight.mul_(100)
        net.head.bias.add_(torch.tensor([50.0, 0, 0, 0, 0, 0]))
    torch.testing.assert_close(answer_grams(net, ["two"], [{"x": x}], 0)["two"], before)


def test_batches_are_added_up_and_the_model_is_left_as_it_was(net):
    x = torch.randn(16, 2, 4, dtype=torch.float64)
    net.one.weight.requires_grad_(False)
    whole = answer_grams(net, ["one"], [{"x": x}], 0)["one"]
    halves = answer_grams(net, ["one"], [{"x": x[:8]}, {"x": x[8:]}], 0)["one"]
    torch.testing.assert_close(whole, halves)
    asked = {name: own.requires_grad for name, own in net.named_parameters()}
    assert asked == {name: name != "one.weight" for name in asked}
    assert not net.one._forward_hooks
    assert all(own.grad is None for own in net.parameters())


class Reads(nn.Module):
    """A language model of one layer: an answer at every token."""

    def __init__(self):
        super().__init__()
        self.one, self.head = nn.Linear(4, 5), nn.Linear(5, 9)
        self.double()

    def forward(self, x, attention_mask=None):
        return SimpleNamespace(logits=self.head(self.one(x)))


def test_padding_answers_nothing():
    torch.manual_seed(1)
    net, x = Reads(), torch.randn(3, 6, 4, dtype=torch.float64)
    mask = torch.ones(3, 6, dtype=torch.long)
    mask[1, 4:] = 0
    moved = x.clone()
    moved[1, 4:] += 1.0
    net.head.weight.requires_grad_(True)
    one, other = (
        answer_grams(net, ["one"], [{"x": values, "attention_mask": mask}], 0)["one"]
        for values in (x, moved)
    )
    torch.testing.assert_close(one, other)
    without = answer_grams(net, ["one"], [{"x": x}], 0)["one"]
    assert not torch.allclose(one, without)
