"""Hub ids without a network: a cache of huggingface_hub made on the spot."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import save_file

from mats_core.checkpoints import hub
from mats_core.cli.main import main
from mats_core.errors import InputError
from mats_core.merging.pipeline import merge
from mats_core.recipes.family_file import load_family
from mats_core.recipes.recipe import load_recipe, parse_recipe

COMMITS = {"base": "a" * 40, "one": "b" * 40, "two": "c" * 40}


def cached(cache: Path, name: str, commit: str, seed: int, *refs: str) -> Path:
    """A model of `org` in the layout of the cache: refs, snapshots and what they hold."""
    repo = cache / f"models--org--{name}"
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir(exist_ok=True)
    for ref in refs:
        (repo / "refs" / ref).write_text(commit)
    generator = torch.Generator().manual_seed(seed)
    save_file({"fc.weight": torch.randn(3, 2, generator=generator)}, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({"model_type": "test"}))
    (snapshot / "vocab.txt").write_text("a\nb\n")
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    for seed, (name, commit) in enumerate(COMMITS.items()):
        cached(folder, name, commit, seed, "main")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def test_what_is_an_id(tmp_path):
    for text in ("org/name", "org/name@main", "org/name-1.5_x@v1.0", "Org/a@refs/pr/3"):
        assert hub.is_id(text, tmp_path)
    for text in ("name", "./org/name", "../org/name", "/org/name", "~/name", "a/b/c", "org/",
                 "org/name.safetensors", "org/name@", "model.safetensors"):  # fmt: skip
        assert not hub.is_id(text, tmp_path)
        assert hub.pinned(text, tmp_path) == text
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert not hub.is_id("org/name", tmp_path)
    assert hub.locate("org/name", tmp_path) == tmp_path / "org" / "name"  # a path wins


def test_the_cache_answers_when_offline(cache):
    there = cache / "models--org--base" / "snapshots" / COMMITS["base"]
    for revision in ("", "@main", f"@{COMMITS['base']}"):
        assert hub.locate(f"org/base{revision}") == there
        assert hub.pinned(f"org/base{revision}") == f"org/base@{COMMITS['base']}"


def test_another_revision_is_another_snapshot(cache):
    other = cached(cache, "base", "d" * 40, 9, "v2")
    assert hub.locate("org/base@v2") == other
    assert hub.locate("org/base") != other


@pytest.mark.parametrize("reference", ["org/absent", "org/base@v9"])
def test_neither_here_nor_there_is_one_sentence(cache, reference):
    with pytest.raises(InputError) as caught:
        hub.locate(reference)
    text = str(caught.value)
    assert f"checkpoint '{reference}'" in text
    assert "in the cache" in text
    assert "hf download org/" in text
    assert "\n" not in text


def test_a_snapshot_without_its_weights_is_not_taken(cache, monkeypatch):
    """As other programs leave it that fetched the configuration alone, or were interrupted."""
    there = cache / "models--org--base" / "snapshots" / COMMITS["base"]
    asked = []

    def download(repo, *, local_files_only, **settings):
        asked.append((repo, local_files_only, settings))
        return str(there)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    hub.locate("org/base@main")
    assert [local for _, local, _ in asked] == [True]
    (there / "model.safetensors").unlink()
    with pytest.raises(InputError, match="pickles only"):
        hub.locate("org/base@main")
    assert [local for _, local, _ in asked] == [True, True, False]
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (there / "model.safetensors.index.json").write_text(json.dumps(index))
    (there / "model-1-of-2.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="not all of them"):
        hub.locate("org/base@main")
    assert [local for _, local, _ in asked][3:] == [True, False]
    repo, _, settings = asked[-1]
    assert (repo, settings["revision"]) == ("org/base", "main")
    assert "*.safetensors" in settings["allow_patterns"]
    assert not any(".bin" in p or "*.py" in p or p == "*" for p in settings["allow_patterns"])
    ignored = settings["ignore_patterns"]
    for file in ("onnx/config.json", "original/model.safetensors", "openvino/a/b.json"):
        assert any(fnmatch.fnmatch(file, pattern) for pattern in ignored)
    for file in ("config.json", "1_Pooling/config.json", "2_Dense/model.safetensors"):
        assert not any(fnmatch.fnmatch(file, pattern) for pattern in ignored)


def content(**settings: object) -> dict[str, object]:
    experts = [{"name": n, "model": f"org/{n}"} for n in ("one", "two")]
    return {"base": "org/base@main", "experts": experts, "method": "average", **settings}


def test_a_merge_by_ids_pins_their_commits(cache, tmp_path):
    merge(parse_recipe(content(output="out"), tmp_path))
    written = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert written.base == f"org/base@{COMMITS['base']}"
    assert [e.model for e in written.experts] == [f"org/{n}@{COMMITS[n]}" for n in ("one", "two")]
    assert written.base_fingerprint
    assert (tmp_path / "out" / "vocab.txt").is_file()
    # What the hub's main becomes later changes nothing: the recipe runs to the same bytes.
    cached(cache, "one", "e" * 40, 77, "main")
    again = written.model_copy(update={"output": str(tmp_path / "again")})
    merge(again)
    one, other = (tmp_path / n / "model.safetensors" for n in ("out", "again"))
    assert one.read_bytes() == other.read_bytes()
    moved = parse_recipe(content(output="moved"), tmp_path)
    merge(moved)
    assert (tmp_path / "moved" / "model.safetensors").read_bytes() != one.read_bytes()


def test_families_and_the_command_line_take_ids(cache, tmp_path, capsys):
    description = {
        "name": "From the hub",
        "base": "org/base",
        "experts": [{"name": "one", "model": "org/one", "task": "not-read.npz"}],
    }
    (tmp_path / "family.yaml").write_text(yaml.safe_dump(description))
    collection = load_family(tmp_path)
    (member,) = collection.members()
    assert member[1] == cache / "models--org--one" / "snapshots" / COMMITS["one"]
    merge(collection.recipe("average", evaluate=False))
    assert main(["inspect", "org/two@main", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shapes"] == {"fc.weight": [3, 2]}
    assert main(["inspect", "org/absent"]) == 2
    assert "hf download org/absent" in " ".join(capsys.readouterr().err.split())


class Sibling:
    def __init__(self, name: str, size: int | None) -> None:
        self.rfilename, self.size = name, size


def test_an_offer_names_size_files_and_host_of_what_would_be_fetched(cache, monkeypatch):
    files = {
        "model.safetensors": 4000, "config.json": 30, "pytorch_model.bin": 4000, "README.md": None,
        "onnx/model.onnx": 9000, "1_Pooling/config.json": 7, "original/params.json": 5,
    }  # fmt: skip
    asked = []

    def model_info(self, repo, **how):
        asked.append((repo, how["revision"]))
        about = [Sibling(name, size) for name, size in files.items()]
        return type("Info", (), {"siblings": about})()

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    found = hub.offer("org/new@main")
    assert (found.reference, found.files, found.nbytes) == ("org/new@main", 3, 4037)
    assert found.host == hub.host() == "huggingface.co"
    assert asked == [("org/new", "main")]


def test_without_an_answer_an_offer_is_a_sentence(cache, monkeypatch):
    def refused(self, repo, **how):
        raise ConnectionError("Connection refused\nmore lines")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refused)
    with pytest.raises(InputError, match=r"expected an answer of huggingface.co.*refused"):
        hub.offer("org/new")
    with pytest.raises(InputError, match="expected an id"):
        hub.offer("../../etc")


def test_what_lies_in_the_cache_is_known_without_a_network(cache):
    assert hub.cached("org/base") == cache / "models--org--base" / "snapshots" / ("a" * 40)
    assert hub.cached("org/absent") is None
