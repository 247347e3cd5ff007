"""Nothing is merged by another method than the one that was asked for without a word."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mats_core import InputError, Report
from mats_core.cli import main
from mats_core.merging import merge
from mats_core.methods import METHODS
from mats_core.recipes import parse_recipe
from tests.method_cases import BARE

MEASURED = [name for name in BARE if METHODS[name].group == "statistics"]
FORM = {"format": "mats-statistics-1", "examples": "40", "tokens": "40", "labels": "empirical"}
LAYERS = ("a", "b", "c")


@pytest.fixture
def family(tmp_path):
    """Three layers, two experts, statistics without a fingerprint."""
    random = torch.Generator().manual_seed(0)
    weights = {f"{layer}.weight": torch.randn(4, 4, generator=random) for layer in LAYERS}
    weights |= {f"{layer}.bias": torch.randn(4, generator=random) for layer in LAYERS}
    save_file(weights, tmp_path / "base.safetensors")
    for name in ("e0", "e1"):
        moved = {n: v + 0.1 * torch.randn(v.shape, generator=random) for n, v in weights.items()}
        save_file(moved, tmp_path / f"{name}.safetensors")
        save_file(statistics(random), tmp_path / f"{name}.stats.safetensors", FORM)
    save_file(statistics(random), tmp_path / "base.stats.safetensors", FORM)
    return tmp_path


def statistics(random):
    found = {}
    for layer in LAYERS:
        x, g = torch.randn(40, 4, generator=random), torch.randn(40, 4, generator=random)
        found |= {
            f"{layer}.input_gram": x.T @ x / 40, f"{layer}.input_mean": x.mean(0),
            f"{layer}.output_gradient_gram": g.T @ g / 40,
            f"{layer}.weight.fisher": torch.rand(4, 4, generator=random),
            f"{layer}.bias.fisher": torch.rand(4, generator=random),
        }  # fmt: skip
    return found


def renamed(family, change, expert="e1"):
    """The statistics of an expert, under other names or with other shapes."""
    file = family / f"{expert}.stats.safetensors"
    save_file(dict(change(*one) for one in load_file(file).items()), file, FORM)


def recipe(family, method, **more):
    experts = [
        {"name": e, "model": f"{e}.safetensors", "statistics": f"{e}.stats.safetensors"}
        for e in ("e0", "e1")
    ]
    content = {"base": "base.safetensors", "experts": experts, "method": method, "device": "cpu"}
    return parse_recipe({**content, "base_statistics": "base.stats.safetensors", **more}, family)


@pytest.mark.parametrize("method", MEASURED)
def test_statistics_that_name_no_layer_are_refused_with_both_lists(family, method):
    merge(recipe(family, method))
    renamed(family, lambda name, value: (f"model.{name}", value.clone()))
    with pytest.raises(InputError, match=r"of its layers: a.*found those of model\.a"):
        merge(recipe(family, method))


@pytest.mark.parametrize("lead", ["module.", "_orig_mod.", "module._orig_mod."])
def test_statistics_of_a_wrapped_model_are_read_through(family, lead):
    wanted = merge(recipe(family, "kfac", output="plain"))
    for expert in ("e0", "e1"):
        renamed(family, lambda name, value: (f"{lead}{name}", value.clone()), expert)
    found = merge(recipe(family, "kfac", output="wrapped"))
    assert [layer.method for layer in found.layers] == [layer.method for layer in wanted.layers]
    plain, other = (load_file(family / n / "model.safetensors") for n in ("plain", "wrapped"))
    assert all(other[name].equal(value) for name, value in plain.items())


@pytest.mark.parametrize("kinds", [("true", "true"), ("empirical", "true")])
def test_labels_of_two_kinds_are_told(family, kinds):
    for expert, labels in zip(("e0", "e1"), kinds, strict=True):
        file = family / f"{expert}.stats.safetensors"
        held = {name: value.clone() for name, value in load_file(file).items()}
        save_file(held, file, FORM | {"labels": labels})
    entries = recipe(family, "fisher").model_copy(update={"base_statistics": None})
    told = [w for w in merge(entries).warnings if "labels of two kinds (empirical, true)" in w]
    assert len(told) == len(set(kinds)) - 1


@pytest.mark.parametrize("method", MEASURED)
def test_statistics_of_another_shape_are_refused_before_any_work(family, method):
    def wider(name, value):
        if value.ndim == 2 and name.startswith("b."):
            value = torch.eye(5, *value.shape[2:])
        return name, value.clone()

    renamed(family, wider)
    with pytest.raises(InputError, match=r"shape \[4, 4\].*found shape \[5, 5\]"):
        merge(recipe(family, method))


@pytest.mark.parametrize(
    ("method", "instead"),
    [("kfac", "mean"), ("regmean", "mean"), ("essential", "tsv_m"), ("kfac_matching", "mean")],
)
def test_what_is_left_to_another_method_is_told(family, method, instead, tmp_path, capsys):
    """Where one of three equal layers was not measured: in report, card and terminal."""
    renamed(family, lambda name, value: (name.replace("b.", "other."), value.clone()))
    merged = recipe(family, method, output="out")
    (family / "recipe.yaml").write_text(
        json.dumps({**merged.model_dump(mode="json", exclude={"folder"}, exclude_none=True)})
    )
    assert main(["merge", str(family / "recipe.yaml")]) == 0
    printed = capsys.readouterr()
    said = "merged 67 % of the matrix entries"
    assert said in " ".join((printed.out + printed.err).split())
    report = Report.from_dict(json.loads((family / "out" / "report.json").read_text()))
    told = next(warning for warning in report.warnings if said in warning)
    assert "b.weight" in told
    assert f"'{instead}' was applied" in told
    assert "of 'e1'" in told
    assert said in " ".join((family / "out" / "README.md").read_text().split())


@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "iso_cts"])
def test_a_method_that_merges_nothing_is_an_error(tmp_path, method):
    random = torch.Generator().manual_seed(0)
    for name in ("base", "e0", "e1"):
        weights = {"conv.weight": torch.randn(4, 3, 3, 3, generator=random)}
        save_file({**weights, "n.weight": torch.ones(4)}, tmp_path / f"{name}.safetensors")
    experts = [{"name": e, "model": f"{e}.safetensors"} for e in ("e0", "e1")]
    content = {"base": "base.safetensors", "experts": experts, "device": "cpu", "output": "out"}
    with pytest.raises(InputError, match=r"a tensor that it merges.*'mean' was applied to conv"):
        merge(parse_recipe({**content, "method": method}, tmp_path))
    assert not (tmp_path / "out").exists()
    merge(parse_recipe({**content, "method": "average"}, tmp_path))


@pytest.mark.parametrize(
    ("shape", "told"),
    [((8, 4, 3, 3), True), ((6, 8, 8), True), ((1, 4, 2), False), ((400,), False)],
    ids=["a convolution", "a stack of experts", "class tokens", "a vector"],
)
@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "average", "task_arithmetic"])
def test_convolutions_and_stacks_count(tmp_path, method, shape, told):
    random = torch.Generator().manual_seed(0)
    weights = {
        "fc.weight": torch.randn(4, 4, generator=random),
        "more": torch.randn(shape, generator=random),
    }
    save_file(weights, tmp_path / "base.safetensors")
    for name in ("e0", "e1"):
        moved = {n: v + 0.1 * torch.randn(v.shape, generator=random) for n, v in weights.items()}
        save_file(moved, tmp_path / f"{name}.safetensors")
    experts = [{"name": e, "model": f"{e}.safetensors"} for e in ("e0", "e1")]
    content = {"base": "base.safetensors", "experts": experts, "method": method, "device": "cpu"}
    said = [w for w in merge(parse_recipe(content, tmp_path)).warnings if "matrix entries" in w]
    if not told or method in ("average", "task_arithmetic"):
        assert not said
        return
    (sentence,) = said
    share = round(100 * 16 / (16 + weights["more"].numel()))
    assert f"merged {share} % of the matrix entries" in sentence
    assert "'mean' was applied to more" in sentence


@pytest.mark.parametrize("method", BARE)
def test_all_of_it_is_told_by_nothing(family, method):
    """Every method merges every matrix where every layer was measured: no sentence."""
    report = merge(recipe(family, method))
    assert not [warning for warning in report.warnings if "matrix entries" in warning]
    assert {r.method for r in report.layers if r.name.endswith("weight")} == {method}
