"""The survey of a family against the same numbers computed one by one."""

from __future__ import annotations

import pytest
import torch

from mats_core.analysis.spectra import KINDS, layer_spectra, overlap
from mats_core.analysis.survey import OF_A_KIND, Survey, Surveyed, survey, surveying
from mats_core.checkpoints.files import Checkpoint
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.families.family import Family
from mats_core.statistics.store import Statistics
from mats_core.system.stream import drain

QUANTITIES = (
    "relative norm", "norm", "stable rank", "effective rank", "energy", "sign conflict",
    "sign conflict by mass", "cosine", "overlap", "cost of averaging",
)  # fmt: skip


@pytest.fixture(scope="module")
def family(tiny_family) -> Family:
    experts = [Expert(f"e{m}", Checkpoint.open(tiny_family / f"e{m}")) for m in range(3)]
    return examine(Checkpoint.open(tiny_family / "base"), experts)


@pytest.fixture(scope="module")
def names(family) -> list[str]:
    wanted = ("0.attention.attention.query.weight", "1.intermediate.dense.weight")
    return [n for n in family.shared if n.endswith(wanted)]


@pytest.fixture(scope="module")
def statistics(tiny_family) -> dict[str, Statistics]:
    return {f"e{m}": Statistics.open(tiny_family / f"e{m}.stats.safetensors") for m in range(3)}


@pytest.fixture(scope="module")
def whole(family, statistics, names) -> Survey:
    return survey(family, statistics, names)


def updates(family: Family, name: str) -> list[torch.Tensor]:
    base = family.base.read(name).double()
    return [e.checkpoint.read(name).double() - base for e in family.experts]


def test_norms_and_cosines_of_every_layer(whole, family, names):
    for row, name in enumerate(names):
        deltas = updates(family, name)
        norms = [float(d.norm()) for d in deltas]
        assert whole.values("norm")[row].tolist() == pytest.approx(norms, rel=1e-5)
        base = float(family.base.read(name).double().norm())
        relative = [n / base for n in norms]
        assert whole.values("relative norm")[row].tolist() == pytest.approx(relative, rel=1e-5)
        first, second, third = (d.reshape(-1) / d.norm() for d in deltas)
        mean = (float(first @ second) + float(first @ third)) / 2
        assert float(whole.values("cosine")[row, 0]) == pytest.approx(mean, abs=1e-6)


def test_ranks_and_energy_are_those_of_the_layers_spectra(whole, family, statistics, names):
    for kind in KINDS:
        for row, name in enumerate(names):
            found = layer_spectra(family, statistics, name, kind)
            own = [found[f"e{m}"] for m in range(3)]
            for quantity, expected in (
                ("stable rank", [s.stable_rank for s in own]),
                ("effective rank", [s.effective_rank for s in own]),
                ("energy", [s.energy(5) for s in own]),
            ):
                values = whole.values(quantity, kind, 5)[row]
                assert values.tolist() == pytest.approx(expected, rel=1e-5), (kind, quantity)


def test_overlap_is_that_of_the_directions_that_each_task_has_room_for(
    whole, family, statistics, names
):
    for row, name in enumerate(names):
        bases = []
        d_out, d_in = family.base.tensors[name].shape
        room = d_out // 3
        assert whole.layers[row].room == room
        for m, delta in enumerate(updates(family, name)):
            a = statistics[f"e{m}"].read(f"{name.removesuffix('.weight')}.input_gram", (d_in,) * 2)
            assert a is not None
            shift = delta @ a.double() @ delta.T
            bases.append(torch.linalg.eigh(shift).eigenvectors.flip(1)[:, :room])
        expected = (overlap(bases[1], bases[0]) + overlap(bases[1], bases[2])) / 2
        assert float(whole.values("overlap")[row, 1]) == pytest.approx(expected, abs=1e-4)


def test_cost_of_averaging_is_each_layers_share_of_its_tasks_quadratic_loss(
    whole, family, statistics, names
):
    losses = torch.zeros(len(names), 3, dtype=torch.float64)
    for row, name in enumerate(names):
        deltas = updates(family, name)
        d_out, d_in = deltas[0].shape
        module = name.removesuffix(".weight")
        for m, delta in enumerate(deltas):
            a = statistics[f"e{m}"].read(f"{module}.input_gram", (d_in, d_in))
            b = statistics[f"e{m}"].read(f"{module}.output_gradient_gram", (d_out, d_out))
            assert a is not None
            assert b is not None
            move = sum(deltas) / 3 - delta
            losses[row, m] = 0.5 * torch.trace(move.T @ b.double() @ move @ a.double())
    found = whole.values("cost of averaging")
    assert found.sum(0).tolist() == pytest.approx([1, 1, 1])
    expected = (losses / losses.sum(0)).flatten().tolist()
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-4)


def test_every_quantity_is_layers_by_tasks(whole, names):
    for quantity in QUANTITIES:
        values = whole.values(quantity, rank=2)
        assert values.shape == (len(names), 3), quantity
        assert bool(values.isfinite().all()), quantity


def test_tasks_without_statistics_are_not_numbers(family, statistics, names):
    part = survey(family, {"e0": statistics["e0"]}, names[:1])
    missing = [False, True, True]
    for quantity in OF_A_KIND:
        assert part.values(quantity, "essential")[0].isnan().tolist() == missing
        assert not bool(part.values(quantity, "task matrix").isnan().any())
    assert part.values("cost of averaging")[0].isnan().tolist() == missing
    assert bool(part.values("overlap").isnan().all()), "one basis overlaps with nobody"
    assert not bool(part.values("sign conflict").isnan().any())


def test_steps_are_told_before_each_task_and_can_end_the_survey(family, statistics, names):
    told: list[Surveyed] = []
    whole = drain(surveying(family, statistics, names), told.append)
    assert whole.tasks == ("e0", "e1", "e2")
    assert [event.name for event in told] == [n for n in names for _ in range(3)]
    assert [event.fraction for event in told] == pytest.approx([k / 6 for k in range(6)])
    assert told[3].layers == whole.layers[:1]
    assert names[0] in told[0].text

    class Enough(Exception):
        pass

    def stop(event: Surveyed) -> None:
        told.append(event)
        if event.name == names[1]:
            raise Enough

    with pytest.raises(Enough):
        drain(surveying(family, statistics, names), stop)
    assert [layer.name for layer in told[-1].layers] == [names[0]]
