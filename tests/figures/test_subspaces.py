"""Figures of the Subspaces page: what is drawn and said are the numbers of this result."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mats_core import figures
from mats_core.analysis.overlap import chance_conflict
from mats_core.analysis.protection import SUBSPACES, operator, protection
from mats_core.analysis.spectra import KINDS, Spectrum
from mats_core.analysis.survey import LayerSurvey, Survey
from mats_core.figures.protection import pooled
from tests.layer_cases import random_case

TASKS = ("cats", "<b>dogs</b>")
NAMES = ["net.0.fc.weight", "net.1.fc.weight", "net.2.fc.weight"]
LOOKS = figures.looks(TASKS)


def traces(drawn: figures.Figure) -> Any:
    return drawn.figure.data


def layout(drawn: figures.Figure) -> Any:
    return drawn.figure.layout


def layer(name: str, *norms: float, conflict: float = 0.25, measured: bool = True) -> LayerSurvey:
    nan = float("nan")
    spectrum = Spectrum(torch.tensor([3.0, 1.0, 0.0]))
    return LayerSurvey(
        name=name,
        shape=(8, 4),
        room=4,
        base_norm=10.0,
        norms=torch.tensor(norms, dtype=torch.float64),
        spectra=dict.fromkeys(KINDS, (spectrum if measured else None, spectrum)),
        conflict=torch.tensor([[conflict, 0.1], [0.05, 0.02]]),
        cosines=torch.tensor([[1.0, 0.3], [0.3, 1.0]]),
        overlaps=torch.full((2, 2), 0.5 if measured else nan),
        losses=torch.tensor([1.0, 3.0]) if measured else torch.tensor([nan, nan]),
    )


WHOLE = Survey(TASKS, (layer(NAMES[0], 1, 2), layer(NAMES[1], 3, 0.5), layer(NAMES[2], 1, 1)))


def test_heatmap_draws_every_cell_and_says_where_most_and_least_is():
    drawn = figures.family_heatmap(WHOLE, NAMES, "relative norm", chosen=(NAMES[1], TASKS[0]))
    assert drawn is not None
    cells, points = traces(drawn)
    assert [list(row) for row in cells.z] == [
        pytest.approx(row) for row in ([0.1, 0.2], [0.3, 0.05], [0.1, 0.1])
    ]
    assert list(cells.text[1]) == ["30", "5.0"]
    assert list(cells.x) == ["cats", "&lt;b&gt;dogs&lt;/b&gt;"]
    assert list(cells.y) == ["0 · fc", "1 · fc", "2 · fc"]
    assert "Most: cats in 1 · fc (30.0 %)" in drawn.caption
    assert "Least: <b>dogs</b> in 1 · fc (5.0 %)" in drawn.caption
    assert "Mean: 14.2 %" in drawn.caption
    # Each cell can be clicked at and says whose it is.
    assert [tuple(c) for c in points.customdata] == [(n, t) for n in NAMES for t in TASKS]
    assert points.text[2] == "30.0 %"
    frame = layout(drawn).shapes[-1]
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (-0.5, 0.5, 0.5, 1.5)


def test_what_is_only_there_to_be_clicked_at_is_not_in_the_csv():
    drawn = figures.family_heatmap(WHOLE, NAMES, "norm")
    assert drawn is not None
    rows = figures.to_csv(drawn).splitlines()[1:]
    assert len(rows) == 6
    assert rows[0] == "trace 1,cats,0 · fc,1.0"


def test_heatmap_of_the_first_layers_leaves_the_others_empty():
    drawn = figures.family_heatmap(Survey(TASKS, WHOLE.layers[:1]), NAMES, "norm")
    assert drawn is not None
    assert [list(row) for row in traces(drawn)[0].z] == [[1, 2], [None, None], [None, None]]
    assert "Most: <b>dogs</b> in 0 · fc (2.00)" in drawn.caption


def test_heatmap_without_statistics():
    bare = Survey(TASKS, tuple(layer(n, 1, 1, measured=False) for n in NAMES))
    assert figures.family_heatmap(bare, NAMES, "overlap") is None
    assert figures.layer_profile(bare, "overlap", LOOKS, NAMES[0]) is None
    drawn = figures.family_heatmap(bare, NAMES, "effective rank")
    assert drawn is not None
    assert traces(drawn)[0].z[0][0] is None
    assert traces(drawn)[1].text[0] == "not measured"


@pytest.mark.parametrize("quantity", figures.QUANTITIES)
def test_every_quantity_has_a_heatmap_with_its_own_words(quantity):
    drawn = figures.family_heatmap(WHOLE, NAMES, quantity, kind="input", rank=1)
    assert drawn is not None
    expected = WHOLE.values(quantity, "input", 1)
    assert [list(row) for row in traces(drawn)[0].z] == [
        pytest.approx(row) for row in expected.tolist()
    ]
    assert figures.QUANTITIES[quantity].title in drawn.alt


def test_heatmap_captions_hold_the_numbers_against_something():
    def words(quantity, **more):
        drawn = figures.family_heatmap(WHOLE, NAMES, quantity, **more)
        assert drawn is not None
        return drawn.caption

    chance = chance_conflict(2)[0]
    assert chance == pytest.approx(0.25)
    assert "Unrelated tasks would have 25.0 %." in words("sign conflict")
    assert "room for d_out / T = 4 directions" in words("energy", rank=1)
    assert "The percentage that the 1 strongest of" in words("energy", rank=1)
    assert "(75.0 %)" in words("energy", rank=1)
    assert "directions would have 50.0 %" in words("overlap")
    assert "right angle" in words("cosine")
    energy = figures.family_heatmap(WHOLE, NAMES, "energy")
    assert energy is not None
    assert (traces(energy)[0].zmin, traces(energy)[0].zmax) == (0, 1)
    # The colour of chance is the middle of the scale.
    drawn = figures.family_heatmap(WHOLE, NAMES, "sign conflict")
    assert drawn is not None
    assert traces(drawn)[0].zmid == pytest.approx(chance)


def test_profile_is_a_line_a_task_with_the_chosen_layer_marked():
    drawn = figures.layer_profile(WHOLE, "sign conflict", LOOKS, NAMES[2])
    assert drawn is not None
    first, second = traces(drawn)
    assert list(first.x) == [0.25, 0.25, 0.25]
    assert list(second.x) == pytest.approx([0.1, 0.1, 0.1])
    assert first.marker.color == LOOKS["cats"].colour
    band, chance = layout(drawn).shapes
    assert (band.y0, band.y1) == (1.5, 2.5)
    assert chance.x0 == pytest.approx(0.25)


def test_pair_matrix_leaves_oneself_out_and_names_the_extremes():
    pairs = torch.tensor([[1.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.0]])
    drawn = figures.pair_matrix(pairs, ("a", "b", "<c>"), "overlap", chance=0.2)
    assert drawn is not None
    cells, points = traces(drawn)
    assert [list(row) for row in cells.z] == [
        [None, pytest.approx(0.5), pytest.approx(0.1)],
        [pytest.approx(0.5), None, pytest.approx(0.3)],
        [pytest.approx(0.1), pytest.approx(0.3), None],
    ]
    assert cells.text[0][1] == "50 %"
    assert "a and b (50 %) share most" in drawn.caption
    assert "a and <c> (10 %) least" in drawn.caption
    assert "on average 30.0 %, where unrelated tasks would share 20.0 %" in drawn.caption
    assert ["b", "<c>"] in [list(c) for c in points.customdata]
    assert len(points.customdata) == 6
    assert figures.pair_matrix(torch.ones(1, 1), ("a",), "overlap") is None
    cosine = figures.pair_matrix(pairs - 0.4, ("a", "b", "c"), "cosine")
    assert cosine is not None
    assert "a and c (-0.30) least" in cosine.caption
    assert "pull the weight apart" in cosine.caption


def test_angles_are_in_degrees_beside_those_of_chance():
    angles = torch.tensor([0.0, math.pi / 9, math.pi / 2])
    chance = torch.tensor([math.pi / 4, math.pi / 3, math.pi / 2])
    drawn = figures.angle_curves(angles, chance, ("a", "b"), 10)
    assert drawn is not None
    random, own = traces(drawn)
    assert list(own.y) == pytest.approx([0, 20, 90])
    assert list(random.y) == pytest.approx([45, 60, 90])
    assert "Of their 3 directions in 10 dimensions, a and b share 2 almost fully" in drawn.caption
    assert "two random subspaces share 0" in drawn.caption
    assert "smallest angle is 0°, by chance 45°" in drawn.caption
    assert figures.angle_curves(torch.zeros(0), torch.zeros(0), ("a", "b"), 3) is None


@pytest.fixture(scope="module")
def found():
    case = random_case(7)
    a, b, fisher = case.grams[0], case.output_grams[0], case.fishers[0]
    made = {}
    for subspace in SUBSPACES:
        c = operator(subspace, (6, 5), a=a, b=b, fisher=fisher)
        assert c is not None
        made[subspace] = protection(subspace, c, case.layer.updates[0])
    return made


def test_maps_stand_side_by_side_on_one_scale(found):
    pair = [found["identity"], found["K-FAC"]]
    drawn = figures.protection_maps(pair, "cats")
    left, right = traces(drawn)
    assert all(value == 0 for row in left.z for value in row), "the identity is x1 everywhere"
    expected = found["K-FAC"].costs.log10()
    assert [list(row) for row in right.z] == [pytest.approx(r) for r in expected.tolist()]
    assert left.coloraxis == right.coloraxis == "coloraxis"
    titles = [note.text for note in layout(drawn).annotations]
    assert titles == ["identity", "K-FAC"]
    assert "Identity (averaging) ×1" in drawn.caption
    assert f"K-FAC (MaTS) ×{found['K-FAC'].change:.2g}" in drawn.caption


def test_maps_are_pooled_by_means():
    values = torch.arange(25.0).reshape(5, 5)
    means, step = pooled(values, 3)
    assert step == 2
    assert means.tolist() == [[3, 5, 6.5], [13, 15, 16.5], [20.5, 22.5, 24]]
    assert pooled(values, 5)[0].tolist() == values.tolist()
    assert max(pooled(torch.ones(1000, 1000))[0].shape) <= 48


def test_price_along_the_change(found):
    drawn = figures.protection_along(list(found.values()), "cats", 2)
    by_name = {t.name: t for t in traces(drawn)}
    assert list(by_name["K-FAC (MaTS)"].y) == pytest.approx(found["K-FAC"].along.tolist())
    assert list(by_name["Identity (averaging)"].y) == [1] * 5
    held = 100 * float(found["identity"].strengths[:2].sum())
    assert f"The first 2 directions hold {held:.1f} % of what cats changed" in drawn.caption
    assert f"K-FAC ×{float(found['K-FAC'].along[:2].mean()):.2g}" in drawn.caption


def test_concentration_counts_directions(found):
    drawn = figures.concentration(found)
    by_name = {t.name: t for t in traces(drawn)}
    flat = by_name["Identity (averaging)"]
    assert list(flat.x)[-1] == 30
    assert list(flat.y) == pytest.approx([x / 30 for x in flat.x])
    assert list(by_name["K-FAC (MaTS)"].y)[-1] == pytest.approx(1)
    assert f"K-FAC {found['K-FAC'].needed()}" in drawn.caption
    assert "Of 30 directions" in drawn.caption
    alone = figures.concentration({"identity": found["identity"]})
    assert "treats all 30 directions alike" in alone.caption
