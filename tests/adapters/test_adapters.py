"""PEFT adapters as experts; the oracle is peft itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mats_core.adapters.fitting import open_expert
from mats_core.adapters.view import Adapted
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.merging.pipeline import merge, run
from mats_core.recipes.events import Finished
from mats_core.recipes.recipe import parse_recipe
from tests.adapter_cases import MODELS, Written, write_adapter, write_base

peft = pytest.importorskip("peft")


def lora(**settings: Any) -> Any:
    return peft.LoraConfig(**{"r": 3, "lora_alpha": 5, **settings})


def ia3(targets: list[str], feedforward: list[str], **settings: Any) -> Any:
    return peft.IA3Config(target_modules=targets, feedforward_modules=feedforward, **settings)


BERT_TARGETS = ["query", "value", "output.dense"]
CASES: dict[str, tuple[str, Callable[[], Any]]] = {
    "lora": ("bert", lambda: lora(target_modules=BERT_TARGETS)),
    "rslora": ("bert", lambda: lora(target_modules=BERT_TARGETS, use_rslora=True)),
    "patterns": (
        "bert",
        lambda: lora(
            target_modules=BERT_TARGETS,
            rank_pattern={"layer.0.attention.self.query": 2, "value": 4},
            alpha_pattern={r"layer\.\d+\.output\.dense": 7},
        ),
    ),
    "patterns, rslora": (
        "bert",
        lambda: lora(target_modules=BERT_TARGETS, rank_pattern={"value": 4}, use_rslora=True),
    ),
    "embedding": ("bert", lambda: lora(target_modules=["word_embeddings", "key"])),
    "lora_only biases": ("bert", lambda: lora(target_modules=["query"], bias="lora_only")),
    "all biases": ("bert", lambda: lora(target_modules=["query"], bias="all")),
    "lora_bias": ("bert", lambda: lora(target_modules=["query"], lora_bias=True)),
    "head": ("bert", lambda: lora(target_modules=["query"], task_type="SEQ_CLS")),
    "head and pooler": (
        "bert",
        lambda: lora(target_modules=["query"], modules_to_save=["classifier", "pooler"]),
    ),
    "ia3": ("bert", lambda: ia3(["key", "value", "output.dense"], ["output.dense"])),
    "Conv1D": (
        "gpt2",
        lambda: lora(target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True),
    ),
    "Conv1D, biases": (
        "gpt2",
        lambda: lora(target_modules=["attn.c_proj"], fan_in_fan_out=True, bias="lora_only"),
    ),
    "Conv1D, ia3": (
        "gpt2",
        lambda: ia3(["c_attn", "mlp.c_proj"], ["mlp.c_proj"], fan_in_fan_out=True),
    ),
    "tied embedding": ("gpt2", lambda: lora(target_modules=["wte"], fan_in_fan_out=True)),
    "T5": ("t5", lambda: lora(target_modules=["q", "v", "wi", "wo"])),
    "T5, ia3": ("t5", lambda: ia3(["q", "k", "v", "wo"], ["wo"])),
    "Llama": ("llama", lambda: lora(target_modules="all-linear")),
    "Llama, ia3": ("llama", lambda: ia3(["k_proj", "v_proj", "down_proj"], ["down_proj"])),
    "renamed by transformers": ("vit", lambda: lora(target_modules=["q_proj", "fc1"])),
    "convolution": ("vit", lambda: lora(target_modules=["projection"])),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: write_base(folder / name, name) for name in MODELS}


@pytest.fixture(scope="module")
def written(
    bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Written]:
    done: dict[str, Written] = {}

    def make(name: str) -> Written:
        if name not in done:
            model, config = CASES[name]
            folder = tmp_path_factory.mktemp("adapter")
            done[name] = write_adapter(folder, bases[model], config())
        return done[name]

    return make


def recipe(written: Written, method: str, **settings: Any) -> Any:
    experts = [{"name": "one", "model": str(written.adapter)}]
    content = {"base": str(written.base), "experts": experts, "method": method, "device": "cpu"}
    return parse_recipe({**content, "evaluate": False, **settings})


def merged_tensors(recipe: Any) -> Mapping[str, torch.Tensor]:
    return next(event.tensors for event in run(recipe) if isinstance(event, Finished))


# One adapter gives itself back --------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_is_what_peft_makes_of_it(name, written):
    files = written(name)
    base, expert = Checkpoint.open(files.base), open_expert(files.adapter, files.base)
    oracle = Checkpoint.open(files.merged)
    assert isinstance(expert, Adapted)
    assert set(expert.tensors) == set(oracle.tensors) == set(base.tensors)
    moved = 0
    for tensor in oracle.tensors:
        value = expert.read(tensor)
        torch.testing.assert_close(value, oracle.read(tensor), rtol=0, atol=1e-6)
        assert expert.tensors[tensor].shape == tuple(value.shape)
        changed = not torch.equal(value, base.read(tensor))
        assert (expert.digest(tensor) != base.digest(tensor)) == changed
        moved += changed
    assert moved == len(expert.changes) > 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("method", "options"), [("average", {}), ("task_arithmetic", {"scaling": 1.0})]
)
def test_one_adapter_at_weight_one_gives_itself_back(name, method, options, written):
    files = written(name)
    found = merged_tensors(recipe(files, method, options=options))
    oracle = Checkpoint.open(files.merged)
    for tensor, value in found.items():
        torch.testing.assert_close(value, oracle.read(tensor), rtol=0, atol=1e-6)
    assert found.keys() == oracle.tensors.keys()


@pytest.fixture(scope="module")
def two_ranks(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Written]:
    """Two LoRA experts of different ranks, scalings and modules, on GPT-2's transposed layers."""
    folder = tmp_path_factory.mktemp("ranks")
    first = lora(target_modules=["c_attn", "attn.c_proj"], fan_in_fan_out=True, r=2)
    second = lora(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, r=5, use_rslora=True)
    return [
        write_adapter(folder / "first", bases["gpt2"], first, seed=1),
        write_adapter(folder / "second", bases["gpt2"], second, seed=2),
    ]


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "tsv_m", "iso_c"])
def test_adapters_of_different_ranks_merge_like_the_full_checkpoints(method, two_ranks):
    def merged(kind: str) -> Mapping[str, torch.Tensor]:
        experts = [
            {"name": f"expert {index}", "model": str(getattr(one, kind))}
            for index, one in enumerate(two_ranks)
        ]
        return merged_tensors(recipe(two_ranks[0], method, experts=experts, dtype="float64"))

    adapters, full = merged("adapter"), merged("merged")
    assert adapters.keys() == full.keys()
    for name, value in adapters.items():
        torch.testing.assert_close(value, full[name], rtol=0, atol=1e-6)


def test_a_half_precision_base_is_added_to_in_float32(bases, written, tmp_path):
    """peft adds in the base's dtype and rounds; what methods read here is not rounded."""
    files = written("lora")
    base = Checkpoint.open(files.base)
    whole = {name: base.read(name, dtype=torch.bfloat16) for name in base.tensors}
    save_file(whole, tmp_path / "model.safetensors", {"format": "pt"})
    shutil.copyfile(files.base / "config.json", tmp_path / "config.json")
    expert = open_expert(files.adapter, tmp_path)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    adapter = load_file(files.adapter / "adapter_model.safetensors")
    stem = f"base_model.model.{name.removesuffix('.weight')}"
    product = adapter[f"{stem}.lora_B.weight"] @ adapter[f"{stem}.lora_A.weight"]
    exact = whole[name].float() + 5 / 3 * product
    torch.testing.assert_close(expert.read(name, dtype=torch.float32), exact, rtol=0, atol=1e-6)
    assert expert.read(name).dtype == expert.tensors[name].dtype == torch.bfloat16
    assert torch.equal(expert.read(name), exact.bfloat16())


# Names --------------------------------------------------------------------------------------------


def without_prefix(base: Path, folder: Path) -> Path:
    """The same weights as `BertModel` saves them: no `bert.`, no head."""
    own = Checkpoint.open(base)
    tensors = {
        name.removeprefix("bert."): own.read(name)
        for name in own.tensors
        if name.startswith("bert.")
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {**own.config, "architectures": ["BertModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_base_without_the_prefix_and_an_adapter_with_it(written, tmp_path):
    files = written("head")
    bare = without_prefix(files.base, tmp_path / "bare")
    expert = open_expert(files.adapter, bare)
    oracle = Checkpoint.open(files.merged)
    assert {f"bert.{n}" if "classifier" not in n else n for n in expert.tensors} == set(
        oracle.tensors
    )
    for name in expert.tensors:
        own = name if name in oracle.tensors else f"bert.{name}"
        torch.testing.assert_close(expert.read(name), oracle.read(own), rtol=0, atol=1e-6)


def test_an_adapter_without_the_prefix_and_a_base_with_it(written, tmp_path):
    files = written("lora")
    shutil.copytree(files.adapter, tmp_path / "adapter")
    adapter = load_file(files.adapter / "adapter_model.safetensors")
    renamed = {key.replace("base_model.model.bert.", "base_model.model."): adapter[key]
               for key in adapter}  # fmt: skip
    assert renamed.keys() != adapter.keys()
    save_file(renamed, tmp_path / "adapter" / "adapter_model.safetensors")
    expert, same = open_expert(tmp_path / "adapter", files.base), open_expert(*files_of(files))
    assert all(torch.equal(expert.read(name), same.read(name)) for name in same.tensors)


def files_of(files: Written) -> tuple[Path, Path]:
    return files.adapter, files.base


def test_names_with_the_adapters_own_name_mean_the_same(written, tmp_path):
    files = written("head and pooler")
    shutil.copytree(files.adapter, tmp_path / "adapter")
    adapter = load_file(files.adapter / "adapter_model.safetensors")
    renamed = {
        key.replace("lora_A.", "lora_A.default.")
        .replace("lora_B.", "lora_B.default.")
        .replace("classifier.", "classifier.modules_to_save.default."): value
        for key, value in adapter.items()
    }
    save_file(renamed, tmp_path / "adapter" / "adapter_model.safetensors")
    expert, same = open_expert(tmp_path / "adapter", files.base), open_expert(*files_of(files))
    assert expert.tensors.keys() == same.tensors.keys()
    assert all(torch.equal(expert.read(name), same.read(name)) for name in same.tensors)


# A view, and its identity -------------------------------------------------------------------------


def test_opening_and_reading_one_tensor_reads_no_other(written, monkeypatch):
    files = written("lora")
    asked: list[str] = []
    read = Checkpoint.read

    def noted(self: Checkpoint, name: str, **settings: Any) -> torch.Tensor:
        asked.append(name)
        return read(self, name, **settings)

    monkeypatch.setattr(Checkpoint, "read", noted)
    expert = open_expert(*files_of(files))
    assert not asked
    name = "bert.encoder.layer.1.output.dense.weight"
    expert.read(name)
    stem = "base_model.model.bert.encoder.layer.1.output.dense"
    assert asked == [name, f"{stem}.lora_B.weight", f"{stem}.lora_A.weight"] or asked == [
        name, f"{stem}.lora_A.weight", f"{stem}.lora_B.weight",
    ]  # fmt: skip
    assert expert.nbytes == Checkpoint.open(files.merged).nbytes


def test_the_fingerprint_is_one_of_base_adapter_and_scaling(bases, written, tmp_path):
    files = written("lora")
    own = open_expert(*files_of(files)).fingerprint
    copied = shutil.copytree(files.adapter, tmp_path / "elsewhere")
    assert open_expert(copied, files.base).fingerprint == own

    settings = json.loads((copied / "adapter_config.json").read_text())
    (copied / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": 6}))
    assert open_expert(copied, files.base).fingerprint != own

    other = shutil.copytree(files.adapter, tmp_path / "other")
    adapter = load_file(other / "adapter_model.safetensors")
    last = sorted(adapter)[-1]
    save_file({**adapter, last: adapter[last] + 1}, other / "adapter_model.safetensors")
    assert open_expert(other, files.base).fingerprint != own

    base = write_base(tmp_path / "base", "bert", seed=7)
    assert open_expert(files.adapter, base).fingerprint != own


def test_the_base_that_an_adapter_names_is_shown_and_never_opened(written, tmp_path):
    files = written("lora")
    assert open_expert(*files_of(files)).notes == ()
    copied = shutil.copytree(files.adapter, tmp_path / "adapter")
    settings = json.loads((copied / "adapter_config.json").read_text())
    named = {**settings, "base_model_name_or_path": "org/some-other-model"}
    (copied / "adapter_config.json").write_text(json.dumps(named))
    report = merge(recipe(Written(files.base, copied, files.merged), "average"))
    assert any("org/some-other-model" in warning for warning in report.warnings)


def test_an_embedding_that_the_output_is_tied_to_is_told(written):
    notes = open_expert(*files_of(written("tied embedding"))).notes
    assert len(notes) == 1
    assert "transformer.wte.weight" in notes[0]
    assert not open_expert(*files_of(written("embedding"))).notes  # BERT's classifier has no output


# What is refused ----------------------------------------------------------------------------------


REFUSED = {
    "DoRA": {"use_dora": True},
    "AdaLoRA": {"peft_type": "ADALORA"},
    "LoHa": {"peft_type": "LOHA"},
    "LoKr": {"peft_type": "LOKR"},
    "VeRA": {"peft_type": "VERA"},
    "OFT": {"peft_type": "OFT"},
    "BOFT": {"peft_type": "BOFT"},
    "LayerNorm tuning": {"peft_type": "LN_TUNING"},
    "prompt tuning": {"peft_type": "PROMPT_TUNING"},
    "prefix tuning": {"peft_type": "PREFIX_TUNING"},
    "NEW_METHOD": {"peft_type": "NEW_METHOD"},
    "target_parameters": {"target_parameters": ["experts.gate_up_proj"]},
    "trainable tokens": {"trainable_token_indices": [1, 2]},
    "QALoRA": {"use_qalora": True},
    "PiSSA": {"init_lora_weights": "pissa_niter_4"},
    "OLoRA": {"init_lora_weights": "olora"},
    "LoftQ": {"init_lora_weights": "loftq"},
    "setting 'use_tomorrow'": {"use_tomorrow": True},
}


@pytest.mark.parametrize("title", REFUSED)
def test_other_methods_are_refused_by_name_with_the_way_out(title, written, tmp_path):
    files = written("lora")
    copied = shutil.copytree(files.adapter, tmp_path / "adapter")
    settings = json.loads((copied / "adapter_config.json").read_text())
    (copied / "adapter_config.json").write_text(json.dumps({**settings, **REFUSED[title]}))
    with pytest.raises(InputError) as caught:
        merge(recipe(Written(files.base, copied, files.merged), "average"))
    assert title in str(caught.value)
    prompt = title in ("prompt tuning", "prefix tuning")
    assert ("none of its weights" if prompt else "merge_and_unload()") in str(caught.value)


def test_a_dora_adapter_as_peft_writes_it_is_refused(bases, tmp_path):
    files = write_adapter(tmp_path, bases["bert"], lora(target_modules=["query"], use_dora=True))
    with pytest.raises(InputError, match="found DoRA"):
        open_expert(*files_of(files))


def changed_adapter(files: Written, folder: Path, **changes: Any) -> Path:
    """A copy of an adapter with some tensors replaced (or, with None, removed)."""
    shutil.copytree(files.adapter, folder)
    tensors = load_file(files.adapter / "adapter_model.safetensors")
    for key, value in changes.items():
        full = next(name for name in tensors if key.replace("__", ".") in name)
        tensors.pop(full)
        if value is not None:
            tensors[full] = value
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layer__0__attention__self__query__lora_A": torch.zeros(2, 16)}, "expected rank 3"),
        ({"layer__0__attention__self__query__lora_A": torch.zeros(3, 9)}, "weight [16, 16]"),
        ({"layer__0__attention__self__query__lora_B": None}, "no lora_B"),
    ],
)
def test_factors_that_do_not_fit_name_their_module(changes, told, written, tmp_path):
    files = written("lora")
    adapter = changed_adapter(files, tmp_path / "adapter", **changes)
    with pytest.raises(InputError) as caught:
        open_expert(adapter, files.base)
    assert told in str(caught.value)
    assert "bert.encoder.layer.0.attention.self.query" in str(caught.value)


def test_the_kind_of_an_adapter_in_small_letters_is_the_same(written, tmp_path):
    files = written("lora")
    shutil.copytree(files.adapter, tmp_path / "small")
    file = tmp_path / "small" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"peft_type": "lora"}))
    ours, theirs = (open_expert(p, files.base) for p in (tmp_path / "small", files.adapter))
    assert all(ours.read(name).equal(theirs.read(name)) for name in theirs.tensors)


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_an_adapter_that_changes_nothing_is_told(name, written, tmp_path):
    """As saved before training, or by DeepSpeed without gathering: B is zero, vectors are one."""
    files = written(name)
    shutil.copytree(files.adapter, tmp_path / "nothing")
    file = tmp_path / "nothing" / "adapter_model.safetensors"
    tensors = load_file(file)
    still = {
        n: v * 0 if "lora_B" in n else v * 0 + 1 if "ia3_l" in n else v for n, v in tensors.items()
    }
    save_file(still, file)
    kept = {"experts": [{"name": "one", "model": str(tmp_path / "nothing")}]}
    for told, settings in ((True, kept), (False, {})):
        report = merge(recipe(files, "average", **settings))
        assert any("equals the base in all" in note for note in report.warnings) == told


def test_a_vector_of_another_length_names_its_module(written, tmp_path):
    files = written("ia3")
    changes = {"layer__1__attention__self__key": torch.ones(9, 1)}
    adapter = changed_adapter(files, tmp_path / "adapter", **changes)
    with pytest.raises(InputError, match=r"layer\.1\.attention\.self\.key.*output vector of 16"):
        open_expert(adapter, files.base)


def test_a_base_of_another_architecture_names_what_does_not_match(bases, written):
    with pytest.raises(InputError, match=r"no match for bert\.encoder\.layer\.0"):
        open_expert(written("lora").adapter, bases["llama"])


def test_an_adapter_is_no_checkpoint_of_its_own(written):
    files = written("lora")
    with pytest.raises(InputError, match=r"is a PEFT adapter.*beside its base"):
        Checkpoint.open(files.adapter)


def test_an_adapter_beside_a_whole_model_is_ambiguous(written, tmp_path):
    files = written("lora")
    both = shutil.copytree(files.adapter, tmp_path / "both")
    shutil.copyfile(files.base / "model.safetensors", both / "model.safetensors")
    with pytest.raises(InputError, match="found both"):
        open_expert(both, files.base)


def test_a_pickled_adapter_is_refused(written, tmp_path):
    files = written("lora")
    pickled = shutil.copytree(files.adapter, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(InputError, match="is a pickle"):
        open_expert(pickled, files.base)


def test_a_quantised_base_is_refused(written, tmp_path):
    files = written("lora")
    base = shutil.copytree(files.base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    left_over = {**config, "quantization_config": {"quant_method": "bitsandbytes"}}
    (base / "config.json").write_text(json.dumps(left_over))
    open_expert(files.adapter, base)  # its weights are plain numbers

    tensors = load_file(base / "model.safetensors")
    name = next(name for name, value in tensors.items() if value.ndim == 2)
    packed = {name: torch.zeros(4, 1, dtype=torch.uint8), f"{name}.absmax": torch.ones(1)}
    save_file(tensors | packed, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="quantised ones: bitsandbytes"):
        open_expert(files.adapter, base)


def test_two_adapters_in_one_file_are_refused(written, tmp_path):
    files = written("lora")
    copied = shutil.copytree(files.adapter, tmp_path / "adapter")
    tensors = load_file(copied / "adapter_model.safetensors")
    more = {key.replace("lora_A.", "lora_A.second."): value + 1 for key, value in tensors.items()}
    save_file(tensors | more, copied / "adapter_model.safetensors")
    with pytest.raises(InputError, match="found 2: default, second"):
        open_expert(copied, files.base)
