"""Statistics of many architectures against autograd, example by example."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mats_core.statistics.collect import measure
from mats_core.statistics.store import Statistics
from tests.statistics.alone_cases import CASES, EXAMPLES


def by_hand(model: nn.Module, inputs: dict[str, Tensor], truth: Tensor) -> dict[str, Tensor]:
    """Each parameter's mean squared gradient, one example after the other."""
    total: dict[str, Tensor] = {}
    for row in range(len(truth)):
        model.zero_grad()
        logits = model(**{name: value[row : row + 1] for name, value in inputs.items()}).logits
        own = truth[row : row + 1]
        if own.ndim == 2:
            logits, own = logits[own != -100], own[own != -100]
        logits.log_softmax(-1).gather(1, own[:, None]).sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                total[name] = total.get(name, 0) + parameter.grad.double() ** 2 / len(truth)
    model.zero_grad()
    return total


def same(found: Tensor, wanted: Tensor, least: float, tolerance: float) -> bool:
    return float((found.double() - wanted).norm()) <= tolerance * float(wanted.norm()) + least


@pytest.mark.parametrize("name", CASES)
def test_every_architecture_is_exact(name):
    case = CASES[name]
    model, (inputs, truth) = case.build(), case.batch()
    trained = [value.requires_grad for value in model.parameters()]
    wanted = by_hand(model, inputs, truth)
    found = measure(model, [(inputs, truth)])
    most = max(float(value.norm()) for value in wanted.values())
    tolerance = 1e-6 if case.dtype == torch.float64 else 1e-4
    for own, value in wanted.items():
        if float(value.norm()) > 1e-12 * most:
            assert same(found.stored(f"{own}.fisher"), value, 1e-12 * most, tolerance), own
    singly = [
        ({key: value[row : row + 1] for key, value in inputs.items()}, truth[row : row + 1])
        for row in range(EXAMPLES)
    ]
    apart = measure(model, singly)
    assert found.shapes == apart.shapes
    for own in found.shapes:
        assert same(found.stored(own), apart.stored(own).double(), 1e-12 * most, tolerance), own
    if case.slow is not None:
        assert bool(found.notes) == case.slow, found.notes
    assert [value.requires_grad for value in model.parameters()] == trained
    assert all(value.grad is None for value in model.parameters())


def test_what_is_measured_by_examples_is_told_and_kept_in_the_file(tmp_path):
    model, batch = CASES["DeBERTa v3"].build(), CASES["DeBERTa v3"].batch()
    found = measure(model, [batch])
    found.save(tmp_path / "s.safetensors")
    again = Statistics.open(tmp_path / "s.safetensors")
    assert again.notes == found.notes
    assert "deberta.encoder.LayerNorm.bias" in found.notes[0]
    assert "left_out" not in found.metadata
