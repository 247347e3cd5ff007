"""The map: features against the head that reads them, the plane against NumPy, ranks by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mats_core.analysis.feature_map import FeatureMap, mapping, travelling, under_experts
from mats_core.errors import InputError
from mats_core.evaluation import evaluate
from mats_core.merging.pipeline import run
from mats_core.models.modules import _pooled, tensors_of
from mats_core.recipes.family_file import load_family
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.system.stream import Event, drain
from tests.conftest import family_recipe
from tests.text_cases import text_family


@pytest.fixture(scope="module")
def drawn(tiny_family: Path):
    recipe = parse_recipe(family_recipe(tiny_family, "average", evaluate=False), tiny_family)
    inputs = open_inputs(recipe)
    merged = drain(run(recipe, inputs=inputs)).tensors
    said: list[Event] = []
    found = drain(mapping(recipe, merged, inputs=inputs, most=31), said.append)
    assert found.stations == (0.0, 1.0), "the first picture waits for no other station"
    whole = drain(travelling(found, recipe, merged, inputs=inputs))
    assert whole.scaling is None
    np.testing.assert_array_equal(whole.way[[0, whole.stations.index(1)]], found.way)
    found = drain(under_experts(whole, recipe, inputs=inputs))
    return found, merged, inputs, said


def test_features_are_what_the_head_reads(drawn):
    found, merged, inputs, _ = drawn
    for index, expert in enumerate(inputs.family.experts):
        here = found.task == index
        weight = expert.checkpoint.read("classifier.weight").float()
        bias = expert.checkpoint.read("classifier.bias").float()
        for features, encoder in (
            (found.merge, merged), (found.base, tensors_of(inputs.family.base)),
        ):  # fmt: skip
            said = (torch.from_numpy(features[here]) @ weight.T + bias).softmax(-1)
            split = found.splits[index]
            right = evaluate.probabilities(encoder, inputs.family, expert, split)
            np.testing.assert_allclose(said.numpy(), right, atol=1e-5)


def test_the_plane_holds_the_leading_components_of_all_models(drawn):
    found, _, inputs, _ = drawn
    own = np.concatenate(
        [
            evaluate.features(tensors_of(e.checkpoint), inputs.family, e, split)
            for e, split in zip(inputs.family.experts, found.splits, strict=True)
        ]
    )
    everything = np.concatenate([found.base, own, found.merge]).astype(float)
    centred = everything - everything.mean(0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    assert found.explained == pytest.approx(values[:2] ** 2 / (values**2).sum(), rel=1e-4)
    places = centred @ directions[:2].T
    count = len(found.task)
    for ours, theirs in (
        (found.way[found.stations.index(0)], places[:count]),
        (found.expert, places[count : 2 * count]),
        (found.way[found.stations.index(1)], places[2 * count :]),
    ):
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-3)  # axes may be turned


def test_points_travel_on_the_line_of_the_weights(drawn):
    found, merged, inputs, _ = drawn
    base = tensors_of(inputs.family.base)
    half = {n: (base[n] + merged[n]) / 2 for n in inputs.family.shared if n in merged}
    expert, split = inputs.family.experts[0], found.splits[0]
    features = evaluate.features(half, inputs.family, expert, split)
    middle = found.way[found.stations.index(0.5)][: len(split)]
    start = found.way[found.stations.index(0)][: len(split)]
    # The plane is linear in the features: differences of places need no mean.
    axes = np.linalg.lstsq(
        found.merge - found.base, found.way[found.stations.index(1)] - found.way[0], rcond=None
    )[0]
    np.testing.assert_allclose(
        middle - start, (features - found.base[: len(split)]) @ axes, atol=2e-2
    )


@pytest.mark.parametrize("method", ["task_arithmetic", "tsv_m"])
def test_the_stations_of_a_method_with_a_scaling_are_its_merges(tiny_family: Path, method: str):
    """Also where not every tensor is scaled, as biases under TSV-M, and no line would do."""
    recipe = parse_recipe(family_recipe(tiny_family, method, evaluate=False), tiny_family)
    inputs = open_inputs(recipe)
    merged = drain(run(recipe, inputs=inputs)).tensors
    first = drain(mapping(recipe, merged, inputs=inputs, most=12))
    found = drain(travelling(first, recipe, merged, inputs=inputs, stations=(0.5, 99.0)))
    own = recipe.parsed_options().model_dump()["scaling"]
    assert found.scaling == own
    assert found.stations == (0.0, 0.5, 1.0), "no station beyond what the option takes"
    assert found.named(0.5) == f"{own / 2:g}"
    half = recipe.model_copy(update={"options": {"scaling": own / 2}})
    other = drain(run(half, inputs=inputs)).tensors
    expert, split = inputs.family.experts[0], found.splits[0]
    features = evaluate.features(other, inputs.family, expert, split)
    np.testing.assert_allclose(
        found.way[1][: len(split)], (features - found.mean) @ found.axes, atol=1e-5
    )


def test_all_examples_are_asked_under_every_expert(drawn):
    found, _, inputs, _ = drawn
    assert list(found.experts) == ["e0", "e1", "e2"]
    for name, features in found.experts.items():
        expert = next(one for one in inputs.family.experts if one.name == name)
        encoder = tensors_of(expert.checkpoint)
        for index, asked in enumerate(inputs.family.experts):
            right = evaluate.features(encoder, inputs.family, asked, found.splits[index])
            np.testing.assert_allclose(features[found.task == index], right, atol=1e-6)
        here = found.task == found.tasks.index(name)
        places = (features[here] - found.mean) @ found.axes
        np.testing.assert_allclose(places, found.expert[here], atol=1e-5)
    away = np.linalg.norm(found.experts["e1"] - found.experts["e1"][4], axis=1)
    assert found.ranks(4, "e1")[np.argsort(away)].tolist() == list(range(len(away)))


def test_what_base_and_experts_say_is_asked_once(
    tiny_family: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = parse_recipe(family_recipe(tiny_family, "average", evaluate=False), tiny_family)
    inputs = open_inputs(recipe)
    merged = drain(run(recipe, inputs=inputs)).tensors
    first = drain(mapping(recipe, merged, inputs=inputs, most=9))
    asked: list[object] = []
    real = evaluate.features
    monkeypatch.setattr(
        "mats_core.analysis.feature_map.evaluate.features",
        lambda encoder, *more: (asked.append(encoder), real(encoder, *more))[1],
    )
    again = drain(mapping(recipe, merged, inputs=inputs, most=9))
    assert [one is merged for one in asked] == [True] * 3, "the merge's features alone"
    np.testing.assert_array_equal(again.way, first.way)


def test_examples_are_spread_over_tasks_and_progress_goes_forward(drawn):
    found, _, _, said = drawn
    assert found.tasks == ("e0", "e1", "e2")
    assert [int((found.task == t).sum()) for t in range(3)] == [10, 10, 10]
    assert [e.fraction for e in said] == sorted(e.fraction for e in said)
    assert found.class_of(0) == found.classes[0][found.splits[0].labels[0]]
    split, row = found.example(12)
    assert (split.labels[row], row) == (found.label[12], 2)


def hand_made() -> FeatureMap:
    """Four examples of one task on a line, and where a merge moves them."""
    base = np.array([[0.0], [1.0], [3.0], [10.0]])
    merge = np.array([[0.0], [9.0], [3.0], [1.0]])
    nothing = np.zeros((4, 2))
    return FeatureMap(
        ("pets",), (("cat", "dog"),), np.zeros(4, int), np.array([0, 0, 1, 1]), (),
        (0.0, 1.0), np.stack([nothing, nothing]), nothing, (0.5, 0.25), base, merge,
    )  # fmt: skip


def test_neighbours_and_what_the_merge_changes_by_hand():
    found = hand_made()
    assert found.nearest(0, "merge", most=1) == (3,)
    assert found.nearest(0, "base", most=2) == (1, 2)
    assert [int(found.ranks(0, model)[3]) for model in ("base", "merge")] == [3, 1]
    assert [int(found.ranks(0, model)[0]) for model in ("base", "merge")] == [0, 0], "itself"
    assert found.purity(found.base, most=1) == pytest.approx(3 / 4)  # 3 is nearer to 1 than to 10
    assert found.purity(found.merge, most=1) == pytest.approx(1 / 4)


def test_a_family_without_tasks_has_no_map(raw_family: Path):
    experts = [{"name": f"e{m}", "model": f"e{m}.safetensors"} for m in range(2)]
    recipe = parse_recipe(
        {"base": "base.safetensors", "experts": experts, "method": "average"}, raw_family
    )
    with pytest.raises(InputError, match="tasks whose experts have a head"):
        drain(mapping(recipe, {}, inputs=open_inputs(recipe)))


def test_features_of_tokens_and_of_places_are_means():
    tokens = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [6.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert _pooled(tokens, mask).tolist() == [[2.0], [4.0]]
    assert _pooled(tokens, None).flatten().tolist() == pytest.approx([104 / 3, 4.0])
    assert _pooled(torch.ones(2, 5, 3, 3), None).shape == (2, 5)
    assert _pooled(tokens[:, 0], mask).shape == (2, 1)


def test_texts_are_mapped_by_what_their_heads_read(tmp_path: Path):
    collection = load_family(text_family(tmp_path))
    recipe = collection.recipe("average").model_copy(update={"evaluate": False})
    inputs = open_inputs(recipe)
    merged = drain(run(recipe, inputs=inputs)).tensors
    found = drain(mapping(recipe, merged, inputs=inputs, most=12))
    for index, expert in enumerate(inputs.family.experts):
        weight = expert.checkpoint.read("classifier.weight").float()
        bias = expert.checkpoint.read("classifier.bias").float()
        features = torch.from_numpy(found.merge[found.task == index])
        right = evaluate.probabilities(merged, inputs.family, expert, found.splits[index])
        said = (features @ weight.T + bias).softmax(-1).numpy()
        np.testing.assert_allclose(said, right, atol=1e-5)
    word = found.text(0).split()[0]
    assert found.search(word)[0]
