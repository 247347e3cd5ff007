"""What parts of a model gave, for the next model that is asked the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mats_core.models import Again
from mats_core.statistics import room


class Counted(nn.Linear):
    runs = 0

    def forward(self, x):
        self.runs += 1
        return super().forward(x)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("budget", [0.0, 1e6])
def test_what_has_its_final_weights_runs_once_for_the_same_inputs(inference, budget):
    torch.manual_seed(0)
    model = nn.Sequential(*(Counted(4, 4) for _ in range(4)))
    names = {name: f"file.{name}" for name, _ in model.named_parameters()}
    one, other = torch.randn(2, 4), torch.randn(2, 4)
    with room(budget) as kept:
        again = Again(kept)
        for step in range(5):
            again.changing = frozenset({f"file.{step}.weight", f"file.{step}.bias"})
            for x in (one, other):
                with torch.inference_mode(inference), torch.no_grad():
                    with again.used(model, names, {"x": x}):
                        found = model(x)
                    assert torch.equal(found, model(x))
                    found.zero_()  # what it gave is nobody else's
            if step < 4:
                with torch.no_grad():
                    model.get_parameter(f"{step}.weight").add_(1.0)
    runs = [module.runs - 10 for module in model.children()]  # those of the comparison
    # Of five steps and two inputs: up to its change, once more after it, and no more.
    assert runs == ([4, 6, 8, 10] if budget else [10, 10, 10, 10])


def test_inputs_that_are_equal_in_bytes_alone_are_others():
    model, seen = nn.Sequential(Counted(4, 4), Counted(4, 4)), []
    with room(1e6) as kept, torch.no_grad():
        again = Again(kept)
        again.changing = frozenset({"later"})
        for shape in ((2, 4), (1, 2, 4)):
            x = torch.ones(shape)
            with again.used(model, {"0.weight": "now", "1.weight": "later"}, {"x": x}):
                seen.append(model(x).shape)
    assert seen == [(2, 4), (1, 2, 4)]
