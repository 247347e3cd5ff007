"""What a search lists of folders, what it leaves out, and that it opens nothing that runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from mats_core.checkpoints import Limits, hub, search_models
from mats_core.checkpoints.card import front_matter, stated_bases, stated_licence
from tests.checkpoints.test_hub import cached


def model(folder: Path, file: str = "model.safetensors", **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"w": torch.zeros(4, 4)}, folder / file, {"format": "pt"})
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def listed(*roots: Path, **limits: float) -> dict[str, str]:
    """Path relative to the first root → kind."""
    found = search_models(roots, Limits(**limits))  # type: ignore[arg-type]
    return {os.path.relpath(one.path, roots[0]): one.kind for one in found.models}


def adapter(folder: Path, weights: str) -> Path:
    folder.mkdir(parents=True)
    told = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    if weights.endswith("safetensors"):
        save_file({"w": torch.zeros(2, 2)}, folder / weights)
    elif weights:
        (folder / weights).write_bytes(b"\x80\x04")
    return folder


def test_models_of_every_form_are_listed_and_other_files_are_not(tmp_path):
    model(tmp_path / "whole", architectures=["BertModel"], license="mit")
    model(tmp_path / "deep" / "er" / "vit", model_type="vit")
    model(tmp_path / "bare", "one.safetensors")
    model(tmp_path / "bare", "two.safetensors")
    adapter(tmp_path / "lora", "adapter_model.safetensors")
    adapter(tmp_path / "old lora", "adapter_model.bin")
    adapter(tmp_path / "no weights", "")
    (model(tmp_path / "pickled", model_type="bert") / "model.safetensors").rename(
        tmp_path / "pickled" / "pytorch_model.bin"
    )
    (model(tmp_path / "llama.cpp", model_type="llama") / "model.safetensors").rename(
        tmp_path / "llama.cpp" / "w.gguf"
    )
    save_file({"w": torch.zeros(1)}, tmp_path / "a.safetensors", {"format": "mats-statistics-1"})
    (tmp_path / "notes.bin").write_bytes(b"no model")
    (tmp_path / "rows.csv").write_text("text,label\n")
    (tmp_path / "family.yaml").write_text("name: x\n")
    model(tmp_path / ".hidden", model_type="vit")
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    model(tmp_path / "env" / "lib", model_type="vit")
    assert listed(tmp_path) == {
        "whole": "model",
        "deep/er/vit": "model",
        "bare/one.safetensors": "model",
        "bare/two.safetensors": "model",
        "lora": "adapter",
        "old lora": "pickle",
        "no weights": "adapter",
        "pickled": "pickle",
        "llama.cpp": "other",
    }
    found = {one.name: one for one in search_models([tmp_path]).models}
    whole = found["whole"]
    assert (whole.architecture, whole.licence) == ("BertModel", "mit")
    assert whole.nbytes == (tmp_path / "whole" / "model.safetensors").stat().st_size
    assert whole.modified == (tmp_path / "whole" / "model.safetensors").stat().st_mtime
    assert found["lora"].made_from == ("org/base",)
    assert found["lora"].architecture == "LORA"
    assert "no such file" in found["no weights"].problem or "nothing there" in (
        found["no weights"].problem
    )
    for name in ("pickled", "old lora"):
        assert "weights_only=True" in found[name].problem, "the command that converts it"
    assert search_models([tmp_path]).data == (tmp_path / "rows.csv",)


def test_what_a_merge_wrote_is_listed_as_such_without_its_heads(tmp_path):
    merged = model(tmp_path / "merged", model_type="vit")
    for name in ("report.json", "recipe.yaml"):
        (merged / name).write_text("{}")
    model(merged / "heads" / "one", "head.safetensors", model_type="vit")
    (one,) = search_models([tmp_path]).models
    assert one.merged


class Trap:
    """A pickle that leaves a mark where it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_no_pickle_is_opened_and_no_text_of_others_breaks_the_search(tmp_path):
    folder = model(tmp_path / "trap", model_type="bert")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    bomb = "---\na: &a [x,x]\n" + "".join(
        f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
        for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    for number, (card, config) in enumerate(
        [
            (bomb + "license: [*j]\nbase_model: [*j]\n---\n", '{"architectures": [["x"]]}'),
            ("---\nlicense: {a: b}\n---\n", '["no mapping"]'),
            ("---\n!!python/object/apply:os.mkdir [sprung]\n---\n", "{"),
            ("\xff\xfe", '{"architectures": 7, "model_type": {"a": 1}}'),
            ("[" * 5000, "[" * 100_000),
        ]
    ):
        place = model(tmp_path / str(number))
        (place / "README.md").write_text(card)
        (place / "config.json").write_text(config)
    found = search_models([tmp_path])
    assert len(found.models) == 6
    assert not (tmp_path / "sprung").exists()
    assert all(len(one.architecture) <= 80 for one in found.models)
    assert [one.licence for one in found.models if one.kind == "model"] == [""] * 5


def test_links_in_circles_end_and_links_that_lead_out_are_not_followed(tmp_path):
    root, outside = tmp_path / "root", model(tmp_path / "outside", model_type="vit")
    inside = model(root / "a" / "model", model_type="vit")
    (root / "a" / "loop").symlink_to(root)
    (root / "again").symlink_to(inside)
    (root / "out").symlink_to(outside)
    (root / "nothing").symlink_to(tmp_path / "gone")
    names = listed(root)
    assert list(names.values()) == ["model"], "once, by whichever of its names comes first"
    assert set(names) <= {"a/model", "again"}
    assert set(listed(root, tmp_path)) >= {"out"} or "../outside" in listed(root, tmp_path)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"entries": 300}, "more than 300 files and folders"),
        ({"seconds": 0.0}, "0 s were over"),
        ({"models": 2}, "2 models are listed"),
        ({"depth": 1}, "folders that lie more than 1 folders deep were not looked into"),
    ],
)
def test_every_limit_ends_the_search_with_a_sentence(tmp_path, limits, sentence):
    for number in range(5):
        folder = model(tmp_path / f"{number}" / "model", model_type="vit")
        (folder / "below").mkdir()
        for file in range(100):
            (folder / "below" / f"{file}.txt").touch()
    found = search_models([tmp_path], Limits(**limits))
    assert sentence in " ".join(found.left_out)
    assert len(search_models([tmp_path]).models) == 5
    assert search_models([tmp_path]).left_out == ()


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    model(tmp_path / "one", model_type="vit")
    assert search_models([tmp_path / "gone"]).models == ()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    found = search_models([loop, tmp_path])
    assert [one.name for one in found.models] == ["one"]
    assert "Not read" in found.left_out[0]


def test_models_of_the_hub_are_called_by_their_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert hub.cache_folder() == tmp_path / "hub"
    cached(tmp_path / "hub", "base", "a" * 40, 0, "main")
    cached(tmp_path / "hub", "base", "b" * 40, 1, "refs-pr-3")
    shutil.copytree(tmp_path / "hub" / "models--org--base", tmp_path / "hub" / "datasets--org--d")
    (tmp_path / "hub" / "models--org--empty" / "snapshots").mkdir(parents=True)
    found = search_models([hub.cache_folder()]).models
    assert [one.reference for one in found] == ["org/base", f"org/base@{'b' * 40}"]
    assert [one.name for one in found] == ["base", "base"]
    assert all(one.of_hub for one in found)
    assert [hub.locate(one.reference) for one in found] == [one.path for one in found]


def test_what_a_model_says_that_it_was_made_from(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nbase_model: [org/a, 3, org/b]\nlicense: [mit, x]\n---"
    )
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": "org/a"}))
    assert stated_bases(tmp_path) == ("org/a", "org/b")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/c"}')
    assert stated_bases(tmp_path) == ("org/c", "org/a", "org/b")
    assert stated_licence(tmp_path, {"license": "other"}) == "mit, x"
    assert stated_licence(None, {"license": "other"}) == "other"
    assert front_matter(tmp_path / "none.md") == {}


def test_folders_of_images_by_class_are_listed_once_for_both_halves(tmp_path):
    for place in ("pets/cat", "pets/dog", "signs/train/a", "signs/train/b", "signs/test/a",
                  "signs/test/b", "holidays"):  # fmt: skip
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "1.PNG").touch()
    assert search_models([tmp_path]).data == (tmp_path / "pets", tmp_path / "signs")
