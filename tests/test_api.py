"""The front door: modules in memory merge to the bytes that the same tensors in files do."""

# Wrong kinds are handed in on purpose here.
# pyright: reportArgumentType=false

from __future__ import annotations

import copy
import inspect
import math
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import mats_core
from mats_core import api
from mats_core.api import merge_models
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.methods.table import METHODS
from mats_core.recipes.recipe import load_recipe, parse_recipe
from mats_core.statistics.collect import measure as collect
from mats_core.statistics.settings import MeasureSettings
from mats_core.statistics.store import Statistics
from tests.conftest import family_recipe
from tests.method_cases import BARE
from tests.module_cases import KINDS, Mlp, family, images, loader

OPTIONS = {
    "kfac": {"iterations": 30, "remaining": "fisher"},
    "kfac_matching": {"iterations": 30},
    "ties": {"density": 0.5},
}


def collected(model: nn.Module, seed: int) -> Statistics:
    """Statistics by the inner function, which wants keyword arguments."""
    name = next(iter(inspect.signature(model.forward).parameters))
    batches = [({name: x}, y) for x, y in loader(seed=seed)]
    return collect(model, batches, MeasureSettings(blocks=30))


def all_collected(experts: dict[str, nn.Module]) -> dict[str, Statistics]:
    return {name: collected(model, seed) for seed, (name, model) in enumerate(experts.items())}


def chosen(method: str, experts: dict) -> dict:
    """As many experts as a method takes."""
    return dict(list(experts.items())[: METHODS[method].experts or len(experts)])


def contiguous(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone().contiguous() for name, value in model.state_dict().items()}


def written(folder: Path, base: nn.Module, experts: dict[str, nn.Module]) -> None:
    for name, model in {"base": base, **experts}.items():
        save_file(contiguous(model), folder / f"{name}.safetensors")


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[n].dtype == theirs[n].dtype and torch.equal(ours[n], theirs[n]) for n in theirs
    )


# One engine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", BARE)
def test_modules_merge_to_the_bytes_of_the_same_tensors_in_files(tmp_path, kind, method):
    base, experts = family(kind)
    experts = chosen(method, experts)
    statistics, of_base = all_collected(experts), collected(base, 9)
    options = OPTIONS.get(method, {})
    written(tmp_path, base, experts)
    for name, found in {**statistics, "base": of_base}.items():
        found.save(tmp_path / f"{name}.stats.safetensors")
    recipe = parse_recipe(
        {
            "base": "base.safetensors",
            "base_statistics": "base.stats.safetensors",
            "experts": [
                {"name": n, "model": f"{n}.safetensors", "statistics": f"{n}.stats.safetensors"}
                for n in experts
            ],
            "method": method,
            "options": options,
            "device": "cpu",
            "output": "out",
        },
        tmp_path,
    )
    from_files = api.merge(recipe)
    before = contiguous(base)
    merged = merge_models(
        base, experts, method, statistics=statistics, base_statistics=of_base, device="cpu",
        **options,
    )  # fmt: skip
    assert same(merged.state_dict(), load_file(tmp_path / "out" / "model.safetensors"))
    assert same(dict(from_files.tensors), merged.state_dict())
    assert same(contiguous(base), before)  # nothing is changed in place
    ours, theirs = merged.report, from_files.report
    assert [(la.name, la.treatment, la.method, la.residuals) for la in ours.layers] == [
        (la.name, la.treatment, la.method, la.residuals) for la in theirs.layers
    ]
    assert ours.fingerprints == theirs.fingerprints
    assert ours.options == theirs.options
    base.load_state_dict(merged.state_dict())
    assert torch.isfinite(base.eval()(images()[0])).all()


def test_modules_state_dicts_and_paths_are_mixed(tmp_path):
    base, experts = family("mlp")
    written(tmp_path, base, experts)
    mixed = {
        "e0": experts["e0"],
        "e1": experts["e1"].state_dict(),
        "e2": tmp_path / "e2.safetensors",
    }
    whole = merge_models(base, experts)
    for over in (base, base.state_dict(), str(tmp_path / "base.safetensors")):
        assert same(merge_models(over, mixed).state_dict(), whole.state_dict())
    listed = merge_models(base, list(mixed.values()), weights=[1, 1, 1])
    assert same(listed.state_dict(), whole.state_dict())
    assert list(listed.report.fingerprints) == ["base", "expert 1", "expert 2", "expert 3"]


def test_weights_are_by_name_or_in_order():
    base, experts = family("mlp")
    only = merge_models(base, experts, weights={"e1": 0, "e2": 0})
    torch.testing.assert_close(dict(only.tensors), contiguous(experts["e0"]))
    assert same(only.state_dict(), merge_models(base, experts, weights=[1, 0, 0]).state_dict())
    with pytest.raises(InputError, match="weights: expected 3"):
        merge_models(base, experts, weights=[1, 2])
    with pytest.raises(InputError, match="Did you mean 'e1'"):
        merge_models(base, experts, weights={"e11": 1})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_it_was(dtype):
    base, experts = family("resnet")
    base.to(dtype)
    for expert in experts.values():
        expert.to(dtype)
    merged = merge_models(base, experts).state_dict()
    wide = merge_models(base, experts, output_dtype="float32").state_dict()
    for name, value in base.state_dict().items():
        assert merged[name].dtype == value.dtype
        if value.is_floating_point():
            exact = torch.stack([e.state_dict()[name].double() for e in experts.values()]).mean(0)
            assert torch.allclose(wide[name].double(), exact, rtol=1e-6, atol=1e-7)
            assert torch.equal(merged[name], wide[name].to(dtype))  # rounded once
        else:
            assert torch.equal(merged[name], value)  # num_batches_tracked


class Tied(nn.Module):
    """A language model's ends: the output's weight is the embedding's."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.body = nn.Embedding(9, 5), nn.Linear(5, 5)
        self.lm_head = nn.Linear(5, 9, bias=False)
        self.lm_head.weight = self.embed.weight


def test_tied_parameters_stay_one(tmp_path):
    base, experts = Tied(0), {"a": Tied(1), "b": Tied(2)}
    merged = merge_models(base, experts, "task_arithmetic", scaling=0.4)
    state = merged.state_dict()
    assert torch.equal(state["lm_head.weight"], state["embed.weight"])
    assert {la.name: la.treatment for la in merged.report.layers}["lm_head.weight"] == "tied"
    model = merged.model()
    assert isinstance(model, Tied)
    assert model.lm_head.weight is model.embed.weight
    assert model is not base
    assert torch.equal(model.embed.weight, state["embed.weight"])
    # The file of one expert holds the matrix once, as save_pretrained writes it.
    held = contiguous(experts["b"])
    del held["lm_head.weight"]
    save_file(held, tmp_path / "b.safetensors")
    mixed = merge_models(
        base, {"a": experts["a"], "b": tmp_path / "b.safetensors"}, "task_arithmetic", scaling=0.4
    )
    assert same(mixed.state_dict(), state)


class HeadFirst(Tied):
    """The head is registered first, and one module has two names."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        embed, self.proj, self.alias = self.embed, self.body, self.body
        del self.embed, self.body
        self.embed = embed

    def forward(self, x):
        return self.lm_head(torch.tanh(self.proj(self.embed(x).mean(1))))


def ids(seed: int) -> list:
    torch.manual_seed(seed)
    return [(torch.randint(0, 9, (20, 5)), torch.randint(0, 9, (20,)))]


@pytest.mark.parametrize("bare", [False, True])
def test_statistics_reach_a_shared_tensor_under_any_of_its_names(bare):
    base, experts = HeadFirst(0), {"a": HeadFirst(1), "b": HeadFirst(2)}
    statistics = {n: mats_core.measure(m, ids(3)) for n, m in experts.items()}
    assert "lm_head.weight.fisher" in statistics["a"]
    assert "embed.weight.fisher" not in statistics["a"]
    given = {n: m.state_dict() if bare else m for n, m in experts.items()}
    exact = merge_models(
        base, given, "fisher", statistics=statistics, floor=0.0, normalise=False
    ).state_dict()
    for name, measured in (("embed.weight", "lm_head.weight"), ("alias.weight", "proj.weight")):
        f = [statistics[n].stored(f"{measured}.fisher") for n in experts]
        w = [experts[n].state_dict()[name] for n in experts]
        torch.testing.assert_close(
            exact[name], torch.nan_to_num((f[0] * w[0] + f[1] * w[1]) / (f[0] + f[1])),
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip
    for method in ("regmean", "kfac"):
        report = merge_models(base, given, method, statistics=statistics).report
        treated = {la.name: la.treatment for la in report.layers}
        assert treated["alias.weight"] == "merged", method


# What comes back ----------------------------------------------------------------------------------


def headed() -> tuple[nn.Module, dict[str, nn.Module]]:
    """Experts with other numbers of classes under the name of a head."""
    torch.manual_seed(0)

    body = Mlp()

    def model(classes: int) -> nn.Module:
        return nn.ModuleDict({"body": copy.deepcopy(body), "classifier": nn.Linear(4, classes)})

    return model(2), {"three": model(3), "five": model(5)}


def test_heads_are_kept_apart_and_come_back_with_their_expert():
    base, experts = headed()
    merged = merge_models(base, experts)
    base.load_state_dict(merged.state_dict())
    for name, expert in experts.items():
        state = merged.state_dict(head_of=name)
        model = merged.model(name)
        assert same(dict(model.state_dict()), state)
        assert torch.equal(state["classifier.weight"], expert.state_dict()["classifier.weight"])
        assert torch.equal(state["body.fc1.weight"], merged.tensors["body.fc1.weight"])
        assert model is not expert
    with pytest.raises(InputError, match="Did you mean 'five'"):
        merged.state_dict(head_of="fiev")


def test_heads_may_be_named():
    base, experts = family("mlp")
    merged = merge_models(base, experts, heads=["out.*"])
    treatments = {la.name: la.treatment for la in merged.report.layers}
    assert treatments["out.weight"] == "head"
    own = experts["e1"].state_dict()["out.weight"]
    assert torch.equal(merged.state_dict(head_of="e1")["out.weight"], own)
    assert merge_models(base, experts, heads=[]).report.coverage["head"] == 0


def test_of_bare_tensors_no_module_is_known(tmp_path):
    base, experts = family("mlp")
    merged = merge_models(base.state_dict(), experts)
    with pytest.raises(InputError, match="Load `state_dict"):
        merged.model()
    assert isinstance(merged.model("e0"), Mlp)


def test_a_merge_in_memory_is_saved_with_its_report(tmp_path):
    base, experts = family("resnet")
    merged = merge_models(base, experts, "ties", density=0.5)
    folder = merged.save(tmp_path / "out")
    assert same(load_file(folder / "model.safetensors"), merged.state_dict())
    assert {file.name for file in folder.iterdir()} == {
        "model.safetensors", "recipe.yaml", "report.json", "README.md",
    }  # fmt: skip
    with pytest.raises(InputError, match="a path that does not exist"):
        merged.save(folder)
    merged.save(folder, force=True)
    recipe = load_recipe(folder / "recipe.yaml")
    assert recipe.method == "ties"
    with pytest.raises(InputError, match="given in memory"):
        api.merge(recipe.model_copy(update={"output": None}))


def test_saving_destroys_nothing_but_what_a_merge_wrote(tmp_path, monkeypatch):
    base, experts = family("mlp")
    work = tmp_path / "work"
    (work / "in").mkdir(parents=True)
    written(work / "in", base, experts)
    (tmp_path / "link").symlink_to(work / "in")
    statistics = tmp_path / "measured"
    statistics.mkdir()
    collected(experts["e0"], 0).save(statistics / "e0.safetensors")
    merged = merge_models(
        base,
        {"e0": work / "in" / "e0.safetensors", "e1": experts["e1"]},
        statistics={"e0": statistics / "e0.safetensors"},
    )
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for folder, found in {
        work: "expert 'e0'", work / "in": "expert 'e0'", tmp_path / "link": "expert 'e0'",
        statistics: "the statistics of expert 'e0'", work / "in" / "e0.safetensors": "expert",
        work / "in" / "e0.safetensors" / "under": "no folder",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=found):
            merged.save(folder, force=True)
    other = tmp_path / "other"
    other.mkdir()
    merged.save(other, force=True)  # it was empty
    merged.save(other, force=True)  # a merge wrote it
    with pytest.raises(InputError, match="force=True"):
        merged.save(other)
    (other / "report.json").write_text("{}")
    found = r"found a folder with README.md, model.safetensors, recipe"
    with pytest.raises(InputError, match=found):
        merged.save(other, force=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="found a file"):
        merged.save(tmp_path / "file", force=True)
    monkeypatch.chdir(other)
    for name in (".", "..", "", "/", "x" * 300, "a/" * 3000 + "b", "a\0b", 3):
        with pytest.raises(InputError):
            merged.save(name, force=True)  # type: ignore[arg-type]
    assert all(file.read_bytes() == content for file, content in before.items())


@pytest.fixture
def of_directories(tiny_family, tmp_path):
    content = family_recipe(tiny_family, "regmean", output=str(tmp_path / "cli"))
    return parse_recipe(content, tiny_family), tmp_path


def test_what_is_saved_is_the_command_lines_directory(of_directories):
    recipe, folder = of_directories
    on_disk = api.merge(recipe)
    in_memory = api.merge(recipe.model_copy(update={"output": None}))
    in_memory.save(folder / "saved")
    for merged in (on_disk, in_memory):
        merged.save(folder / "again", force=True)
        for file in sorted((folder / "cli").rglob("*")):
            if file.is_dir() or file.name in ("report.json", "README.md"):  # these tell the time
                continue
            ours, theirs = (folder / "again" / file.relative_to(folder / "cli")), file
            text = ours.read_bytes().replace(b"/again", b"/cli")
            assert text == theirs.read_bytes(), file
    assert sorted(p.name for p in (folder / "saved").rglob("*")) == sorted(
        p.name for p in (folder / "cli").rglob("*")
    )


def test_a_merge_of_directories_gives_models_of_transformers(of_directories):
    recipe, folder = of_directories
    merged = api.merge(recipe)
    assert "model.safetensors" not in repr(merged.tensors["vit.layernorm.weight"])
    assert len(merged.tensors) == len(merged.state_dict())
    with pytest.raises(KeyError):
        merged.tensors["nothing"]
    base = merged.model()
    assert type(base).__name__ == "ViTForImageClassification"
    expert = merged.model("e2")
    head = expert.get_parameter("classifier.weight")
    own = load_file(folder / "cli" / "heads" / "e2" / "head.safetensors")["classifier.weight"]
    assert torch.equal(head, own)
    norm = merged.tensors["vit.layernorm.weight"]
    assert torch.equal(expert.get_parameter("vit.layernorm.weight"), norm)


def test_modules_of_transformers_merge_with_directories(tiny_family):
    from transformers import ViTForImageClassification

    def load(path: Path) -> nn.Module:
        return ViTForImageClassification.from_pretrained(path)

    paths: dict = {f"e{m}": tiny_family / f"e{m}" for m in range(3)}
    statistics = {name: tiny_family / f"{name}.stats.safetensors" for name in paths}
    of_paths = merge_models(tiny_family / "base", paths, "regmean", statistics=statistics)
    base, mixed = load(tiny_family / "base"), {**paths, "e1": load(paths["e1"])}
    # The module's names are not those of the files, nor of the statistics.
    assert "vit.encoder.layer.0.attention.attention.key.weight" not in base.state_dict()
    merged = merge_models(base, mixed, "regmean", statistics=statistics)
    assert same(dict(merged.tensors), dict(of_paths.tensors))
    assert merged.report.coverage == of_paths.report.coverage
    base.load_state_dict(merged.state_dict())
    assert same(dict(merged.model("e1").state_dict()), merged.state_dict(head_of="e1"))
    # Their classes' names make a head for each, as in the directories.
    modules = merge_models(base, {name: load(path) for name, path in paths.items()})
    assert modules.report.coverage["head"] == of_paths.report.coverage["head"]
    base.load_state_dict(modules.state_dict())


def test_a_written_merge_reads_each_tensor_once(of_directories, monkeypatch):
    merged = api.merge(of_directories[0])
    read, real = [], Checkpoint.read
    monkeypatch.setattr(
        Checkpoint, "read", lambda self, name, **how: read.append(name) or real(self, name, **how)
    )
    assert "vit.layernorm.weight" in merged.tensors
    assert "nothing" not in merged.tensors
    assert sorted(merged.state_dict()) == sorted(read)


def test_a_merge_is_copied_and_pickled(of_directories, tmp_path):
    base, experts = HeadFirst(0), {"a": HeadFirst(1), "b": HeadFirst(2)}
    statistics = {n: mats_core.measure(m, ids(3)) for n, m in experts.items()}
    in_memory = merge_models(base, experts, "fisher", statistics=statistics)
    for merged in (in_memory, api.merge(of_directories[0])):
        torch.save(merged, tmp_path / "merge.pt")
        for again in (
            copy.deepcopy(merged), pickle.loads(pickle.dumps(merged)),
            torch.load(tmp_path / "merge.pt", weights_only=False),
        ):  # fmt: skip
            assert same(again.state_dict(), merged.state_dict())
            assert again.report == merged.report
            assert repr(again) == repr(merged)
            assert again.inputs.memo is not merged.inputs.memo
    assert torch.equal(again.model("e1").get_parameter("vit.layernorm.weight"),
                       merged.tensors["vit.layernorm.weight"])  # fmt: skip
    copied = copy.deepcopy(in_memory).model()
    assert isinstance(copied, Tied)
    assert copied.lm_head.weight is copied.embed.weight


def test_a_state_dict_has_the_order_of_its_module():
    base, experts = headed()
    merged = merge_models(base, experts)
    assert list(merged.state_dict()) == list(base.state_dict())
    assert list(merged.state_dict("five")) == list(experts["five"].state_dict())
    assert merged.state_dict()["body.fc1.weight"] is merged.tensors["body.fc1.weight"]


# What is refused ----------------------------------------------------------------------------------


def test_unknown_methods_and_options_name_the_nearest():
    base, experts = family("mlp")
    with pytest.raises(InputError, match="Did you mean 'damping'"):
        merge_models(base, experts, "kfac", dampnig=0.1)
    with pytest.raises(InputError, match="Did you mean 'regmean'"):
        merge_models(base, experts, "regmaen")
    with pytest.raises(InputError, match="expected statistics for every expert, found none"):
        merge_models(base, experts, "kfac")
    with pytest.raises(InputError, match="mapping from names"):
        merge_models(base, experts["e0"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a module, a state dict, or the path"):
        merge_models(base, [3])  # type: ignore[list-item]


def test_names_of_experts_are_text():
    base, experts = family("mlp")
    numbered = dict(enumerate(experts.values()))
    statistics = dict(enumerate(all_collected(experts).values()))
    merged = merge_models(base, numbered, "fisher", statistics=statistics, weights={0: 0.5})
    assert list(merged.report.fingerprints) == ["base", "0", "1", "2"]
    assert merged.report.coverage["merged"]
    assert same(
        merge_models(base, numbered, weights={"1": 2}).state_dict(),
        merge_models(base, numbered, weights=torch.tensor([1.0, 2.0, 1.0])).state_dict(),
    )
    with pytest.raises(InputError, match=r"experts: .*'1' twice"):
        merge_models(base, {1: experts["e0"], "1": experts["e1"]})
    with pytest.raises(InputError, match=r"weights: .*'1' twice"):
        merge_models(base, numbered, weights={1: 1, "1": 2})
    for name in ("..", ".", " ", ""):
        with pytest.raises(InputError, match="a name that a folder can have"):
            merge_models(base, {name: experts["e0"]})


def test_arguments_of_other_kinds_are_told_in_words(tmp_path):
    base, experts = family("mlp")
    statistics = all_collected(experts)
    for found in (statistics["e0"], list(statistics.values()), {"e0": None}):
        with pytest.raises(InputError, match=r"statistics.*'e0'"):
            merge_models(base, experts, "fisher", statistics=found)  # type: ignore[arg-type]
    for weights in (0.5, "19", b"19", 3):
        with pytest.raises(InputError, match=r"weights: .* Give 3, one an expert"):
            merge_models(base, experts, weights=weights)  # type: ignore[arg-type]
    one = merge_models(base, experts, heads="out.*")
    assert one.report.coverage == merge_models(base, experts, heads=["out.*"]).report.coverage
    for heads in (3, [3], {"out.*": 1}):
        with pytest.raises(InputError, match="heads: "):
            merge_models(base, experts, heads=heads)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one state dict"):
        merge_models(base, experts["e0"].state_dict())
    for model, remedy in (
        (base.state_dict(), "Load it into a module"), (one, r"merged.model\(\)"),
        (tmp_path, "Pass the module"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=remedy):
            mats_core.measure(model, loader())


def test_models_that_do_not_fit_are_named_with_both_shapes():
    base, experts = family("mlp")
    with pytest.raises(InputError) as error:
        merge_models(base, {"wide": Mlp(width=30)})
    text = str(error.value)
    assert "'fc1.weight' has shape [30, 64] in 'wide' and [24, 64] in the base 'base'" in text
    state = {n: v for n, v in experts["e0"].state_dict().items() if n != "out.weight"}
    with pytest.raises(InputError, match=r"lacks 'out.weight'"):
        merge_models(base, {"cut": state})
    with pytest.raises(InputError, match="meta device"):
        merge_models(base, {"empty": Mlp().to("meta")})
    broken = copy.deepcopy(base)
    broken.get_parameter("fc1.bias").data[3] = float("nan")
    with pytest.raises(InputError, match=r"'fc1.bias' of 'broken'.*1 of 24 that are NaN"):
        merge_models(base, {"broken": broken})


def test_statistics_of_another_model_are_refused():
    base, experts = family("mlp")
    statistics = all_collected(experts)
    other = collected(family("vit", 1)[1]["e0"], 0)
    with pytest.raises(InputError) as error:
        merge_models(base, experts, "regmean", statistics={**statistics, "e1": other})
    assert "fc1.bias, fc1.weight" in str(error.value)  # what the model has
    assert next(iter(other.layers)) in str(error.value)  # what was measured
    wide = collected(Mlp(width=30), 0)
    with pytest.raises(InputError, match=r"statistics of 'e1': .*'out.weight' \[4, 24\].*\[30"):
        merge_models(base, experts, "regmean", statistics={**statistics, "e1": wide})
    with pytest.raises(InputError, match="Did you mean 'e1'"):
        merge_models(base, experts, "regmean", statistics={"e11": wide})


def test_no_option_is_hidden_behind_an_argument():
    # DARE's own seed is that of the merge where it is not set apart.
    ours = set(inspect.signature(merge_models).parameters) - {"seed"}
    for name, method in METHODS.items():
        assert not ours & set(method.options.model_fields), name


def test_the_root_hands_out_the_front_door():
    assert mats_core.merge_models is merge_models


# Five lines ---------------------------------------------------------------------------------------


def test_the_five_lines():
    base, experts = family("mlp")
    loaders = {name: loader(seed=seed) for seed, name in enumerate(experts)}
    average = contiguous(base)
    scope = {"base": base, "experts": experts, "loaders": loaders}
    lines = """\
import mats_core as mats
statistics = {name: mats.measure(model, loaders[name]) for name, model in experts.items()}
merged = mats.merge_models(base, experts, "kfac", statistics=statistics, damping=0.1)
base.load_state_dict(merged.state_dict())
residuals = merged.report.layers[3].residuals
"""
    exec(lines, scope)
    assert scope["merged"].report.layers[3].name == "fc2.weight"
    assert 0 < scope["residuals"][-1] < 1e-2 < scope["residuals"][0]
    assert not same(contiguous(base), average)


def test_statistics_of_another_expert_are_refused_and_a_cast_is_told():
    base, experts = family("mlp")
    statistics = {name: mats_core.measure(model, loader()) for name, model in experts.items()}
    swapped = {**statistics, "e0": statistics["e1"], "e1": statistics["e0"]}
    with pytest.raises(InputError, match=r"statistics of 'e0': .*found those of 'e1'"):
        merge_models(base, experts, "regmean", statistics=swapped)
    experts["e2"].double()
    merged = merge_models(base.double(), experts, "regmean", statistics=statistics)
    assert any("'e2' were measured on other numbers" in note for note in merged.report.warnings)


def test_push_to_hub_makes_a_repository_of_what_save_writes(monkeypatch):
    import huggingface_hub

    calls: list = []

    class Api:
        def create_repo(self, name, *, private, exist_ok):
            calls.append((name, private, exist_ok))
            return type("Url", (str,), {"repo_id": f"me/{name}"})("https://hub/me/merged")

        def upload_folder(self, *, folder_path, repo_id, commit_message):
            calls.append((repo_id, {file.name for file in Path(folder_path).iterdir()}))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    base, experts = family("mlp")
    merged = merge_models(base, experts)
    assert merged.push_to_hub("merged") == "https://hub/me/merged"
    written_files = {"model.safetensors", "recipe.yaml", "report.json", "README.md"}
    assert calls == [("merged", True, True), ("me/merged", written_files)]


def test_only_a_merge_pushes():
    root = Path(mats_core.__file__).parent
    users = [f.name for f in root.rglob("*.py") if "hub.push(" in f.read_text("utf-8")]
    assert users == ["merged.py"]
    assert not [f for f in root.rglob("*.py") if ".push_to_hub(" in f.read_text("utf-8")]


# Evaluating and inspecting ------------------------------------------------------------------------


def test_evaluate_counts_right_answers_and_leaves_the_model_as_it_was():
    base, experts = family("resnet")
    x, y = images(50)
    model = experts["e0"].train()
    found = mats_core.evaluate(model, loader(50))
    assert model.training
    right = model.eval()(x).argmax(1) == y
    assert (found.correct, found.examples) == (int(right.sum()), 50)
    assert found.answers == "".join("01"[int(r)] for r in right)
    assert mats_core.evaluate(model, loader(50), examples=9).answers == found.answers[:9]
    merged = merge_models(base, experts)
    assert mats_core.evaluate(merged, loader()) == mats_core.evaluate(merged.model(), loader())
    with pytest.raises(InputError, match="at least one"):
        mats_core.evaluate(model, [])
    with pytest.raises(InputError, match="expected a loader or a task"):
        mats_core.evaluate(merged)


def test_an_example_without_a_label_is_not_asked():
    model = Mlp()
    x, y = images()
    whole = mats_core.evaluate(model, [(x, y)])
    some = torch.where(torch.arange(len(y)) % 3 > 0, y, -100)
    with pytest.warns(UserWarning, match="8 of 48 examples have the label -100"):
        found = mats_core.evaluate(model, [(x, some), (x, y)])
    asked = [answer for row, answer in enumerate(whole.answers) if row % 3]
    assert found.answers.replace("-", "") == "".join(asked) + whole.answers
    assert (found.examples, found.correct) == (40, asked.count("1") + whole.correct)
    assert found.said.count(None) == 8
    assert mats_core.evaluate(model, [(x, y[:, None])]) == whole


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.full((24,), -100), "found 24, all with the label -100"),
        (torch.full((24,), -1), "from 0 to 3.*numbers from -1 to -1. Only -100 leaves"),
        (torch.full((24,), 4), "numbers from 4 to 4"),
        (torch.zeros(24), r"class numbers \[24\]"),
        (torch.zeros(24, 2, dtype=torch.long), r"found torch.int64 \[24, 2\]"),
    ],
)
def test_labels_that_are_no_classes_are_told(labels, words):
    with pytest.raises(InputError, match=words):
        mats_core.evaluate(Mlp(), [(images()[0], labels)])


def test_answers_that_are_no_numbers_are_wrong():
    x, y = images()
    model = Mlp()
    with pytest.warns(UserWarning, match="answers of the model are NaN, which count as wrong"):
        found = mats_core.evaluate(model, [(x * math.nan, y), (x, y)])
    assert found.answers == "0" * len(y) + mats_core.evaluate(model, [(x, y)]).answers


def test_evaluate_a_merge_of_directories_is_what_its_report_says(of_directories):
    recipe, folder = of_directories
    merged = api.merge(recipe)
    expected = list(merged.report.tasks)
    assert mats_core.evaluate(merged) == expected
    assert mats_core.evaluate(folder / "cli") == expected
    task = str(recipe.path("t1.npz"))
    one = mats_core.evaluate(merged, task, expert="e1")
    assert one.accuracy == expected[1].merged.accuracy
    tuned = mats_core.evaluate(recipe.path("e1"), task)
    assert tuned.accuracy == expected[1].finetuned.accuracy


def test_inspect_is_the_same_in_memory_and_in_a_file(tmp_path):
    base, _ = family("mlp")
    written(tmp_path, base, {})
    ours, theirs = mats_core.inspect(base), mats_core.inspect(tmp_path / "base.safetensors")
    different = {key for key in ours if ours[key] != theirs[key]}
    assert different <= {"path", "metadata"}
    assert ours["parameters"] == sum(p.numel() for p in base.parameters())
