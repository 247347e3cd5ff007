"""How strongly an update answers to an input, against the formula written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mats_core.statistics import answers, told_apart


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x, attention_mask=None):
        return self.two(torch.tanh(self.one(x)))


def case(seed=0):
    torch.manual_seed(seed)
    net = Net().double()
    updates = {"one": torch.randn(7, 5).double(), "two": torch.randn(3, 7).double()}
    return net, updates, torch.randn(4, 6, 5).double()


def expected(net, updates, x, mask):
    """mean over layers of log(‖Δ h‖² / ‖h‖²) of each example, token by token."""
    inputs = {"one": x, "two": torch.tanh(net.one(x))}
    found = []
    for example in range(len(x)):
        logs = []
        for name, update in updates.items():
            delta = update.numpy() / np.linalg.norm(update.numpy())
            made = before = 0.0
            for token in range(x.shape[1]):
                h = inputs[name][example, token].detach().numpy() * mask[example, token]
                made += float(((delta @ h) ** 2).sum())
                before += float((h**2).sum())
            logs.append(np.log(made / before))
        found.append(np.mean(logs))
    return np.array(found)


@pytest.mark.parametrize("masked", [False, True])
def test_answers_are_the_formula_without_padding(masked):
    net, updates, x = case()
    mask = torch.ones(4, 6, dtype=torch.long)
    if masked:
        mask[1, 3:] = 0
        mask[3, 1:] = 0
    batch = {"x": x, **({"attention_mask": mask} if masked else {})}
    found = answers(net, updates, batch, 4).numpy()
    np.testing.assert_allclose(found, expected(net, updates, x, mask.numpy()), rtol=1e-10)
    assert not net.one._forward_pre_hooks  # left as it was


def test_the_size_of_an_update_and_one_that_is_zero_say_nothing():
    net, updates, x = case(1)
    larger = {name: 7 * value for name, value in updates.items()}
    still = {**updates, "two": torch.zeros(3, 7).double()}
    one, other = (answers(net, each, {"x": x}, 4) for each in (updates, larger))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(
        answers(net, still, {"x": x}, 4), answers(net, {"one": updates["one"]}, {"x": x}, 4)
    )
    assert answers(net, {}, {"x": x}, 4).tolist() == [0.0] * 4


def test_sequences_of_an_example_are_one_answer():
    """Two sequences side by side, as a prompt with two answers has."""
    net, updates, x = case(2)
    joined = answers(net, updates, {"x": x.reshape(2, 12, 5)}, 2)
    torch.testing.assert_close(answers(net, updates, {"x": x}, 2), joined)


def test_inputs_of_synthetic_tasks_are_told_apart():
    """Each task has its directions, which its expert's update turns to others."""
    random = torch.Generator().manual_seed(0)

    def directions(size):
        return torch.linalg.qr(torch.randn(size, 4, generator=random))[0]

    bases = [directions(16) for _ in range(3)]
    pile = torch.cat([torch.randn(50, 4, generator=random) @ base.T for base in bases])
    pile = pile + 0.05 * torch.randn(pile.shape, generator=random)
    model = nn.Sequential(nn.Linear(16, 8))
    each = [{"0": directions(8) @ base.T} for base in bases]
    apart = told_apart(torch.stack([answers(model, one, {"input": pile}, 150) for one in each]))
    assert apart.argmax(0).tolist() == [0] * 50 + [1] * 50 + [2] * 50
    torch.testing.assert_close(apart.mean(0), torch.zeros(150).double())
    torch.testing.assert_close(apart.mean(1), torch.zeros(3).double())
