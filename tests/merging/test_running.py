"""Running means and variances: averaged as statistics, whatever the method and the way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mats_core import measure, merge_models
from mats_core.estimating import estimate_plan
from mats_core.merging import planned
from mats_core.methods import Layer, merge_running
from mats_core.names import running_statistics
from mats_core.recipes import inputs_of, open_source, parse_recipe
from mats_core.system import UNMEASURED
from tests.method_cases import BARE
from tests.module_cases import ResNet, loader

VARIANCES = (0.1, 0.3)


class Wide(ResNet):
    """With a matrix beside the head, for methods that merge nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.layer1(self.bn1(self.conv1(x)).relu()).mean((2, 3))
        return self.fc(self.project(inner))


def family() -> tuple[nn.Module, dict[str, nn.Module]]:
    torch.manual_seed(0)
    base, experts = Wide(), {}
    for number, variance in enumerate(VARIANCES):
        expert = Wide()
        expert.load_state_dict(base.state_dict())
        for module in expert.modules():
            for parameter in module.parameters(recurse=False):
                parameter.data += 0.01 * torch.randn_like(parameter)
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_var").fill_(variance)
                module.get_buffer("running_mean").fill_(float(number))
        experts[f"e{number}"] = expert.eval()
    return base.eval(), experts


@pytest.mark.parametrize("method", BARE)
def test_every_method_averages_them(method):
    base, experts = family()
    statistics = {name: measure(model, loader(8)) for name, model in experts.items()}
    more: dict[str, Any] = {"scaling": 3.0} if method in ("task_arithmetic", "dare") else {}
    found = merge_models(
        base, experts, method, statistics=statistics, heads=["fc.*"],
        base_statistics=measure(base, loader(8)), **more,
    )  # fmt: skip
    for name, value in found.tensors.items():
        if name.endswith("running_var"):
            torch.testing.assert_close(value, torch.full_like(value, 0.2))
        if name.endswith("running_mean"):
            torch.testing.assert_close(value, torch.full_like(value, 0.5))
    told = [note for note in found.report.warnings if "running means and variances" in note]
    assert told == [
        "6 running means and variances are averaged over the experts by their weights, "
        "whatever the method"
    ]
    plan = planned(found.recipe.model_copy(update={"options": more}), found.inputs)
    coverage = {k: n for k, n in found.report.coverage.items() if n}
    assert {k: n for k, n in estimate_plan(plan, speeds=UNMEASURED).coverage.items() if n} == (
        coverage
    )


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((1, 1), 0.2), ((1, 3), 0.25), ((2, 0), 0.1), ((-1, 2), 0.3), ((-1, -1), 1.0), ((0, 0), 1.0)],
)
def test_by_the_weights_that_are_above_zero(weights, expected):
    layer = Layer(
        "bn.running_var", torch.ones(3), tuple(torch.full((3,), v) for v in VARIANCES),
        tuple(map(float, weights)), ("a", "b"), False,
    )  # fmt: skip
    torch.testing.assert_close(merge_running(layer).value, torch.full((3,), expected))


def test_only_a_mean_beside_a_variance_is_one():
    names = {"a.running_mean", "a.running_var", "b.running_var", "running_mean", "c.weight"}
    assert running_statistics(names) == {"a.running_mean", "a.running_var"}


def test_the_survey_of_a_whole_model_leaves_them_out():
    base, experts = family()
    first = merge_models(base, experts, "ties", scope="global").tensors
    for model in experts.values():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_var").fill_(1e6)
    second = merge_models(base, experts, "ties", scope="global").tensors
    assert all(torch.equal(first[n], second[n]) for n in first if "running_var" not in n)


def test_files_give_the_same(tmp_path):
    from safetensors.torch import save_file

    base, experts = family()
    for name, model in {"base": base, **experts}.items():
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    content = {
        "base": "base.safetensors", "method": "task_arithmetic", "device": "cpu",
        "experts": [{"name": n, "model": f"{n}.safetensors"} for n in experts],
        "options": {"scaling": 2.0},
    }  # fmt: skip
    from mats_core import merge

    found = merge(parse_recipe(content, tmp_path))
    opened = open_source(tmp_path / "base.safetensors", "base")
    inputs = inputs_of(opened, {n: open_source(m, n) for n, m in experts.items()}, {})
    assert inputs.family.running == found.inputs.family.running
    memory = merge_models(base, experts, "task_arithmetic", scaling=2.0)
    assert all(torch.equal(memory.tensors[n], v) for n, v in found.tensors.items())
