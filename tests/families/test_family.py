"""The preflight: what fits, what is refused and how, and the role of every tensor."""

from __future__ import annotations

import json

import pytest
import torch

from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.merging.pipeline import merge, run
from mats_core.names import group_of, is_matrix, module_of
from mats_core.recipes.events import Finished
from tests.layer_cases import raw_recipe, write_raw


def encoder(seed: int, **extra: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "enc.0.fc.weight": torch.randn(4, 3, generator=generator),
        "enc.0.fc.bias": torch.randn(4, generator=generator),
        "enc.0.norm.weight": torch.ones(4),
        "embeddings.word.weight": torch.randn(7, 3, generator=generator),
        "position_ids": torch.arange(5),
        **extra,
    }


def checkpoint(folder, name, tensors, labels=None) -> Checkpoint:
    """A directory with or without class names."""
    place = folder / name
    write_raw(place, "model.safetensors", tensors)
    if labels is not None:
        config = {"id2label": dict(enumerate(labels))}
        (place / "config.json").write_text(json.dumps(config))
    return Checkpoint.open(place)


def family(folder, experts, base=None, labels=None, tasks=None, heads=None):
    opened = [
        Expert(
            f"e{m}",
            checkpoint(folder, f"e{m}", tensors, labels[m] if labels else None),
            tasks[m] if tasks else "",
        )
        for m, tensors in enumerate(experts)
    ]
    return examine(checkpoint(folder, "base", base or encoder(0)), opened, heads=heads)


# Refusing -----------------------------------------------------------------------------------------


def test_a_mismatched_shape_names_tensor_files_and_both_shapes(tmp_path):
    wrong = encoder(1)
    wrong["enc.0.fc.weight"] = torch.zeros(5, 3)
    with pytest.raises(InputError) as caught:
        family(tmp_path, [encoder(2), wrong])
    text = str(caught.value)
    for part in ("'enc.0.fc.weight'", "[5, 3]", "[4, 3]", str(tmp_path / "e1"),
                 str(tmp_path / "base"), "heads"):  # fmt: skip
        assert part in text
    assert str(tmp_path / "e0") not in text


def test_missing_and_extra_tensors_are_named(tmp_path):
    missing = {n: v for n, v in encoder(1).items() if n != "enc.0.fc.bias"}
    extra = encoder(1, **{"enc.9.fc.weight": torch.ones(2, 2)})
    with pytest.raises(
        InputError, match=r"lacks 'enc\.0\.fc\.bias' \[4\].*has 'enc\.9\.fc\.weight'"
    ):
        family(tmp_path, [missing, extra])


def test_many_problems_are_counted(tmp_path):
    wrong = {n: v for n, v in encoder(1).items() if n == "position_ids"}
    with pytest.raises(InputError, match="and 4 more"):
        family(tmp_path, [wrong, wrong])


def test_a_kind_of_dtype_that_differs_is_refused_and_a_width_is_not(tmp_path):
    integer = encoder(1)
    integer["enc.0.fc.bias"] = integer["enc.0.fc.bias"].long()
    with pytest.raises(InputError, match=r"int64.*float32"):
        family(tmp_path / "a", [integer])
    half = encoder(1)
    half["enc.0.fc.bias"] = half["enc.0.fc.bias"].bfloat16()
    assert family(tmp_path / "b", [half]).roles["enc.0.fc.bias"] == "vector"


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("who", ["base", "expert"])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path, poison, who):
    bad = encoder(1)
    bad["enc.0.fc.weight"][1, 2] = poison
    bad["enc.0.fc.weight"][0, 0] = poison
    base, experts = (bad, [encoder(2)]) if who == "base" else (None, [encoder(2), bad])
    with pytest.raises(InputError, match=r"enc\.0\.fc\.weight.*2 of 12") as caught:
        family(tmp_path, experts, base=base)
    assert str(tmp_path / ("base" if who == "base" else "e1")) in str(caught.value)


def test_experts_need_names_of_their_own(tmp_path):
    base = checkpoint(tmp_path, "base", encoder(0))
    with pytest.raises(InputError, match="at least one expert"):
        examine(base, [])
    for one, other, way in (
        ("a", "a", "Rename one"),
        ("mnli", "MNLI", "Windows and macOS"),
        ("\u00e9", "e\u0301", "Windows and macOS"),
        ("Straße", "STRASSE", "Windows and macOS"),
    ):
        with pytest.raises(InputError, match=f"a different name for each.*{way}"):
            examine(base, [Expert(one, base), Expert(other, base)])
    examine(base, [Expert("a", base), Expert("ä", base)])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ""),
        ({"position_ids": torch.arange(5) + 1}, "position_ids of 'e1'"),
        ({"lut": torch.tensor([3, 1])}, "lut of 'e1'"),
        ({"mask": torch.tensor([True, True])}, "mask of 'e1'"),
        ({"bn.num_batches_tracked": torch.tensor(99)}, ""),
    ],
)
def test_integers_that_differ_are_told(tmp_path, changed, told):
    more = {
        "lut": torch.tensor([1, 2]),
        "mask": torch.tensor([True, False]),
        "bn.num_batches_tracked": torch.tensor(1),
    }
    experts = [encoder(1, **more), encoder(2, **{**more, **changed})]
    found = family(tmp_path, experts, base=encoder(0, **more))
    notes = [note for note in found.notes if note.startswith("integers are not merged")]
    assert [told in note for note in notes] == [True] * bool(told)


# Roles --------------------------------------------------------------------------------------------


def test_roles_of_an_encoder(tmp_path):
    found = family(tmp_path, [encoder(1), encoder(2)])
    assert found.roles == {
        "enc.0.fc.weight": "matrix",
        "enc.0.fc.bias": "vector",
        "enc.0.norm.weight": "vector",
        "embeddings.word.weight": "vector",
        "position_ids": "copied",
    }
    assert set(found.shared) == set(encoder(0)) - {"position_ids"}
    assert found.head_of(found.experts[0]) == ()


def head(classes: int, seed: int = 0, name: str = "classifier") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.weight": torch.randn(classes, 4, generator=generator),
        f"{name}.bias": torch.randn(classes, generator=generator),
    }


@pytest.mark.parametrize("name", ["classifier", "model.score", "lm.classification_head.0"])
def test_heads_of_different_shapes(tmp_path, name):
    found = family(
        tmp_path,
        [encoder(1, **head(3, 1, name)), encoder(2, **head(5, 2, name))],
        base=encoder(0, **head(2, 0, name)),
    )
    heads = {n for n, role in found.roles.items() if role == "head"}
    assert heads == {f"{name}.weight", f"{name}.bias"}
    assert set(found.head_of(found.experts[1])) == heads


def test_heads_that_the_base_lacks(tmp_path):
    found = family(tmp_path, [encoder(1, **head(3)), encoder(2, **head(4))])
    assert found.roles["classifier.weight"] == "head"
    # An expert without a head of its own, too.
    found = family(tmp_path / "b", [encoder(1), encoder(2, **head(4))])
    assert found.head_of(found.experts[0]) == ()
    assert set(found.head_of(found.experts[1])) == {"classifier.weight", "classifier.bias"}


EQUAL = [encoder(1, **head(2, 1)), encoder(2, **head(2, 2))]


@pytest.mark.parametrize(
    ("labels", "tasks", "expected"),
    [
        ([["cat", "dog"], ["yes", "no"]], None, "head"),
        ([["cat", "dog"], ["cat", "dog"]], None, "matrix"),
        ([["cat", "dog"], ["cat", "dog"]], ["a.npz", "b.npz"], "matrix"),  # names decide
        ([["LABEL_0", "LABEL_1"]] * 2, None, "matrix"),
        ([["LABEL_0", "LABEL_1"]] * 2, ["a.npz", "b.npz"], "head"),
        ([["LABEL_0", "LABEL_1"], ["cat", "dog"]], None, "head"),
        (None, ["a.npz", "b.npz"], "head"),
        (None, ["a.npz", "a.npz"], "matrix"),
        (None, None, "matrix"),
    ],
)
def test_heads_of_equal_shapes(tmp_path, labels, tasks, expected):
    found = family(tmp_path, EQUAL, base=encoder(0, **head(2, 0)), labels=labels, tasks=tasks)
    assert found.roles["classifier.weight"] == expected


def roberta(classes: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return encoder(
        seed,
        **{"classifier.dense.weight": torch.randn(4, 4, generator=generator),
           "classifier.dense.bias": torch.randn(4, generator=generator)},
        **head(classes, seed, "classifier.out_proj"),
    )  # fmt: skip


def test_a_head_of_two_layers_is_one_head(tmp_path):
    """RoBERTa's `classifier.dense` has the same shape everywhere, but belongs to a task."""
    everything = {n for n in roberta(2, 0) if n.startswith("classifier")}
    for place, labels in (("named", [["a", "b"], ["c", "d", "e"]]), ("unnamed", None)):
        found = family(
            tmp_path / place, [roberta(2, 1), roberta(3, 2)], base=roberta(2, 0), labels=labels
        )
        assert {n for n, role in found.roles.items() if role == "head"} == everything, place


def test_a_projection_inside_a_block_is_no_head(tmp_path):
    block = {"enc.0.head.weight": torch.ones(2, 2) + torch.eye(2)}
    found = family(
        tmp_path, [encoder(1, **block), encoder(2, **block)], base=encoder(0, **block),
        tasks=["a", "b"],
    )  # fmt: skip
    assert found.roles["enc.0.head.weight"] == "matrix"


def test_patterns_replace_the_recognition(tmp_path):
    experts = [encoder(1, **head(2, 1)), encoder(2, **head(2, 2))]
    base = encoder(0, **head(2, 0))
    labels = [["a", "b"], ["c", "d"]]
    found = family(tmp_path / "a", experts, base, labels, heads=["enc.0.norm.*"])
    assert found.roles["enc.0.norm.weight"] == "head"
    assert found.roles["classifier.weight"] == "matrix"
    none = family(tmp_path / "b", experts, base, labels, heads=[])
    assert "head" not in none.roles.values()
    with pytest.raises(InputError, match=r"'clasifier\.\*'.*no such tensor"):
        family(tmp_path / "c", experts, base, labels, heads=["clasifier.*"])


def test_a_shape_mismatch_is_mended_by_naming_a_head(tmp_path):
    odd = [encoder(m, **{"task_layer.weight": torch.randn(m, 4)}) for m in (2, 3)]
    base = encoder(0, **{"task_layer.weight": torch.randn(2, 4)})
    with pytest.raises(InputError, match="heads"):
        family(tmp_path / "a", odd, base)
    found = family(tmp_path / "b", odd, base, heads=["task_layer.*"])
    assert found.roles["task_layer.weight"] == "head"


# Tied and copied ----------------------------------------------------------------------------------


def tied(seed: int) -> dict[str, torch.Tensor]:
    tensors = encoder(seed)
    tensors["lm.decoder.weight"] = tensors["embeddings.word.weight"].clone()
    return tensors


def test_tensors_of_the_same_bytes_everywhere_are_tied(tmp_path):
    found = family(tmp_path / "a", [tied(1), tied(2)], tied(0))
    assert found.roles["lm.decoder.weight"] == "tied"
    assert found.tied_to == {"lm.decoder.weight": "embeddings.word.weight"}
    assert "lm.decoder.weight" not in found.shared
    # Untied in one expert: each is merged by itself.
    untied = tied(2)
    untied["lm.decoder.weight"] = untied["lm.decoder.weight"] + 1
    found = family(tmp_path / "b", [tied(1), untied], tied(0))
    assert found.tied_to == {}


def test_constant_tensors_are_not_ties(tmp_path):
    fresh = {"a.weight": torch.zeros(3, 3), "b.weight": torch.zeros(3, 3)}
    found = family(tmp_path, [encoder(1, **fresh), encoder(2, **fresh)], encoder(0, **fresh))
    assert found.tied_to == {}


def test_every_tensor_is_counted_and_follows_its_role(tmp_path):
    # Heads are head, integers are the base's, ties follow, the rest is averaged.
    experts = [{**tied(m), **head(m + 2, m)} for m in (1, 2)]
    base = {**tied(0), **head(2)}
    experts[1]["position_ids"] = torch.arange(5) + 1
    recipe = raw_recipe(tmp_path, base, experts, "average")
    *_, last = run(recipe)
    assert isinstance(last, Finished)
    coverage = last.report.coverage
    assert coverage == {"merged": 0, "averaged": 4, "head": 2, "copied": 1, "tied": 1}
    assert sum(coverage.values()) == len(base) == len({r.name for r in last.report.layers})
    assert torch.equal(last.tensors["position_ids"], torch.arange(5))
    assert torch.equal(last.tensors["classifier.weight"], base["classifier.weight"])
    assert torch.equal(last.tensors["lm.decoder.weight"], last.tensors["embeddings.word.weight"])
    assert set(last.tensors) == set(base)


@pytest.mark.parametrize("method", ["task_arithmetic", "tsv_m", "iso_c", "ties"])
def test_the_counts_add_up_for_other_methods(tmp_path, method):
    recipe = raw_recipe(tmp_path, tied(0), [tied(1), tied(2)], method)
    coverage = merge(recipe).coverage
    assert sum(coverage.values()) == len(tied(0))
    assert coverage["tied"] == coverage["copied"] == 1


# Names --------------------------------------------------------------------------------------------


def test_groups_of_like_layers(tmp_path):
    names = [f"block.{x}.weight" for x in ("0.fc1", "1.fc1", "0.fc2", "x1.fc1")]
    layers = {name: torch.randn(2, 2) for name in names}
    found = family(tmp_path, [layers], layers)
    assert found.groups == {
        "block.*.fc1.weight": ("block.0.fc1.weight", "block.1.fc1.weight"),
        "block.*.fc2.weight": ("block.0.fc2.weight",),
        "block.x1.fc1.weight": ("block.x1.fc1.weight",),
    }
    assert group_of("a.12.b.3") == "a.*.b.*"


def test_module_and_matrix_names():
    assert module_of("a.b.weight") == "a.b"
    assert module_of("weight") == ""
    assert is_matrix("a.weight", (2, 3))
    assert not is_matrix("a.weight", (2,))
    assert not is_matrix("a.bias", (2, 3))
    assert not is_matrix("tok_embeddings.weight", (2, 3))
