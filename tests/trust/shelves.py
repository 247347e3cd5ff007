"""Files of every kind that is read here, by shelves that share a folder, and the doors they take.

A shelf makes its files in an empty folder and says of each which damage knows its form, and what is
called that reads it.  What a door returns counts as taken; where it can, it holds the result
against plain numpy, and raises `AssertionError` where that is another one.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

import mats_core as mats
from mats_core import InputError, Statistics, load_family, load_recipe, parse_recipe, run, tasks
from mats_core.adapters import open_expert
from mats_core.checkpoints import Checkpoint, Dropped, front_matter, hub, receive, search_models
from mats_core.evaluation import kept
from mats_core.export import reopen
from mats_core.merging import merge, planned
from mats_core.system import drain
from pages.shared.work import final, runs

from . import damage, right

FAMILY = "a family"
Door = Callable[[Path], Any]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    file     that is damaged, in the shelf's folder
    damage   that knows its form
    door     what reads it, given the folder
    share    of rounds, beside those of the others
    whole    what comes of it undamaged
    """

    file: str
    damage: damage.Damage
    door: Door
    share: float = 1.0
    whole: str = "taken"


# Bare weights, statistics and what names them -----------------------------------------------------


def family(folder: Path) -> None:
    """A base and two experts of two small layers, statistics, tasks, an adapter, and what names
    them."""
    g = torch.Generator().manual_seed(0)
    base = {}
    for i in range(2):
        base |= {f"block.{i}.fc.weight": torch.randn(6, 4, generator=g)}
        base |= {f"block.{i}.fc.bias": torch.randn(6, generator=g)}
    save_file(base, folder / "base.safetensors", {"format": "pt"})
    for m in range(2):
        own = {n: v + 0.1 * torch.randn(v.shape, generator=g) for n, v in base.items()}
        save_file(own, folder / f"e{m}.safetensors", {"format": "pt"})
        stats = {f"{n}.fisher": torch.rand(v.shape, generator=g) for n, v in own.items()}
        for i in range(2):
            x, y = torch.randn(9, 4, generator=g), torch.randn(9, 6, generator=g)
            stats |= {f"block.{i}.fc.input_gram": x.T @ x, f"block.{i}.fc.input_mean": x.mean(0)}
            stats |= {f"block.{i}.fc.output_gradient_gram": y.T @ y}
            stats |= {f"block.{i}.fc.bias.block": y.T @ y}
        told = {"format": "mats-statistics-1", "tokens": "9", "examples": "9", "seed": "0"}
        save_file(stats, folder / f"e{m}.stats.safetensors", told)
        few = {n: v for n, v in stats.items() if "gram" not in n}
        for i in range(2):
            for side, width in (("input", 4), ("output_gradient", 6)):
                few |= {f"block.{i}.fc.{side}_factor": torch.randn(2, width, generator=g)}
                few |= {f"block.{i}.fc.{side}_rest": torch.tensor(0.1)}
        save_file(few, folder / f"e{m}.few.safetensors", told)
    shutil.copyfile(folder / "e0.stats.safetensors", folder / "base.stats.safetensors")
    experts = [
        {"name": f"e{m}", "model": f"e{m}.safetensors", "statistics": f"e{m}.stats.safetensors"}
        for m in range(2)
    ]
    recipe = {"base": "base.safetensors", "method": "regmean", "device": "cpu", "experts": experts}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    plain = [{k: e[k] for k in ("name", "model")} for e in experts]
    told = {"name": FAMILY, "base": "base.safetensors", "experts": plain}
    (folder / "family.yaml").write_text(yaml.safe_dump(told))
    sharded = folder / "sharded"
    sharded.mkdir()
    save_file(base, sharded / "model-1.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(base, "model-1.safetensors")}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    rows = "text,label\n" + "".join(f"row {i},{'ny'[i % 2]}\n" for i in range(20))
    (folder / "rows.csv").write_text(rows)
    task = {"kind": "text", "train": "rows.csv", "test": 0.3, "inputs": ["text"]}
    (folder / "csv.yaml").write_text(yaml.safe_dump(task))
    made = parse_recipe({**recipe, "evaluate": False}, folder)
    one = runs.add(FAMILY, 2, made, merge(made))
    kept_run = runs.folder(FAMILY) / f"{one.id}.json"
    (folder / "run.json").write_bytes(kept_run.read_bytes())


def weights(folder: Path) -> Mapping[str, Kind]:
    """Checkpoints, statistics of every kind, recipes, families, and the files of the page."""
    family(folder)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    rich = {**recipe, "base_statistics": "base.stats.safetensors", "seed": 3, "dtype": "float64",
            "options": {"damping": 0.1}, "weighting": "weights", "heads": [],
            "after": [{"stretch": {"scale": 1.2}}, {"svc": {}}],
            "by": [{"match": "*.0.*", "weight": 0.5},
                   {"depth": [0, 0.5], "options": {"damping": 0.5}, "weight": {"e0": 2.0}}],
            "search": {"damping": [0.01, 0.1]}, "evaluate": {"split": "validation"},
            "lora": {"rank": 2}, "output_dtype": "float32"}  # fmt: skip
    (folder / "rich.yaml").write_text(yaml.safe_dump(rich))
    names = [{"model": f"e{m}.safetensors", "parameters": {"weight": 0.5}} for m in range(2)]
    for name, told in (
        ("mergekit", {"merge_method": "task_arithmetic", "models": names}),
        ("gradients", {"merge_method": "ties", "models": [
            {**one, "parameters": {"weight": [{"filter": "fc", "value": 0.3}, {"value": 0.5}],
                                   "density": 0.4}} for one in names]}),
    ):  # fmt: skip
        told |= {"base_model": "base.safetensors", "dtype": "float32"}
        told |= {"parameters": {"normalize": False}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(told))
    told = yaml.safe_load((folder / "family.yaml").read_text())
    for m, entry in enumerate(told["experts"]):
        entry |= {"task": ["csv.yaml", "sample:digits"][m], "weight": 1.0}
        entry |= {"statistics": f"e{m}.stats.safetensors"}
    (folder / "family.yaml").write_text(yaml.safe_dump(told))
    (folder / "README.md").write_text(
        "---\nlicense: mit\nbase_model: a/b\ndatasets: [c/d]\nlanguage: [en]\n---\n# A model\n"
    )
    (folder / "typed.txt").write_text("base.safetensors")
    (folder / "ledger.json").write_text(json.dumps({"0123456789": "2026-01-01T00:00:00+00:00"}))
    (folder / "pin.txt").write_text("0123456789")

    def merging(method: str, statistics: str = "", **more: Any) -> Door:
        """Merge, and hold the result against numpy where numpy knows the method."""

        def door(where: Path) -> None:
            experts = [{"name": f"e{m}", "model": f"e{m}.safetensors"} for m in range(2)]
            files = [statistics, statistics.replace("0", "1")] if statistics else []
            for entry, file in zip(experts, files, strict=False):
                entry["statistics"] = file
            told = {"base": "base.safetensors", "method": method, "device": "cpu", **more}
            made = merge_of(parse_recipe({**told, "experts": experts}, where))
            if method in ("average", "task_arithmetic", "regmean") and not more.get("options"):
                ends = [where / f"e{m}.safetensors" for m in range(2)]
                right.require(
                    made.tensors, made.report.layers, where / "base.safetensors", ends, method,
                    [where / file for file in files],
                )  # fmt: skip
            json.loads(made.report.to_json())

        return door

    stats, few = "e0.stats.safetensors", "e0.few.safetensors"
    over = {"base_statistics": "base.stats.safetensors"}
    return {
        "weights of an expert": Kind("e0.safetensors", damage.tensors(), merging("average"), 2),
        "weights of the base": Kind(
            "base.safetensors", damage.tensors(), merging("task_arithmetic"), 2
        ),
        "statistics: input Grams": Kind(
            stats, damage.tensors("input_gram"), merging("regmean", stats), 2
        ),
        "statistics: Fishers": Kind(stats, damage.tensors("fisher"), merging("fisher", stats)),
        "statistics: gradient Grams": Kind(stats, damage.tensors("gram"), merging("kfac", stats)),
        "statistics: means": Kind(
            stats, damage.tensors("mean"), merging("regmean", stats, options={"fold_bias": True})
        ),
        "statistics: blocks": Kind(
            stats, damage.tensors("block"), merging("kfac", stats, options={"remaining": "block"})
        ),
        "statistics: factors": Kind(few, damage.tensors("factor"), merging("kfac", few)),
        "statistics: rests": Kind(few, damage.tensors("rest"), merging("kfac_matching", few)),
        "statistics of the base": Kind(
            "base.stats.safetensors",
            damage.tensors("fisher"),
            merging("gradient_matching", stats, **over),
        ),
        "header of statistics": Kind("e1.stats.safetensors", damage.tensors(), _told),
        "index of shards": Kind(
            "sharded/model.safetensors.index.json", damage.JSON, lambda f: _read(f / "sharded")
        ),
        "recipe": Kind(
            "recipe.yaml", damage.YAML, lambda f: planned(load_recipe(f / "recipe.yaml"))
        ),
        "recipe with by and after": Kind("rich.yaml", damage.YAML, _rich, 2),
        "recipe handed over": Kind("recipe.yaml", damage.YAML, _handed_over),
        "mergekit's YAML": Kind(
            "mergekit.yaml", damage.YAML, lambda f: planned(load_recipe(f / "mergekit.yaml"))
        ),
        "mergekit's gradients": Kind(
            "gradients.yaml", damage.YAML, lambda f: planned(load_recipe(f / "gradients.yaml"))
        ),
        "family": Kind("family.yaml", damage.YAML, _family, 2),
        "model card": Kind("README.md", damage.front, _card),
        "typed path": Kind("typed.txt", damage.text, _typed, 1.5),
        "run of the page": Kind("run.json", damage.JSON, _run, 2),
        "ledger of final figures": Kind("ledger.json", damage.JSON, _ledger, 0.5),
        "pinned run": Kind("pin.txt", damage.text, _pin, 0.5),
    }


def merge_of(recipe: Any) -> Any:
    """The merge of a recipe, without a bar."""
    return mats.merge(recipe, progress=False)


def _read(path: Path) -> None:
    opened = Checkpoint.open(path)
    for name in opened.tensors:
        opened.read(name)


def _rich(folder: Path) -> None:
    recipe = load_recipe(folder / "rich.yaml").model_copy(
        update={"search": None, "evaluate": False, "output": None, "lora": None}
    )
    planned(recipe)
    if recipe.engine == "local" and recipe.refine is None and recipe.routed is None:
        json.loads(merge_of(recipe).report.to_json())


def _handed_over(folder: Path) -> None:
    reopen((folder / "recipe.yaml").read_bytes(), [load_family(folder / "family.yaml")])


def _family(folder: Path) -> None:
    json.dumps(mats.inspect(folder / "family.yaml"))


def _card(folder: Path) -> None:
    front_matter(folder / "README.md")
    search_models([folder])


def _typed(folder: Path) -> None:
    said = (folder / "typed.txt").read_bytes().decode("utf-8", "replace")
    _read(hub.locate(said, folder))


def _told(folder: Path) -> None:
    opened = Statistics.open(folder / "e1.stats.safetensors")
    json.dumps([opened.tokens, opened.notes, sorted(opened.kinds)])


def _run(folder: Path) -> None:
    kept_run = next(runs.folder(FAMILY).glob("*.json"))
    kept_run.write_bytes((folder / "run.json").read_bytes())
    found = runs.everything(FAMILY)
    for one in found:
        assert one.id == kept_run.stem
        json.dumps([one.name, one.label, runs.settings(one), runs.defaults(one)])
    final.asked(FAMILY)
    if not found:
        raise InputError("run", expected="one", found="none: it was passed over")


def _ledger(folder: Path) -> None:
    (runs.folder(FAMILY) / final.ASKED).write_bytes((folder / "ledger.json").read_bytes())
    try:
        assert final.asked(FAMILY) >= 0
    finally:
        (runs.folder(FAMILY) / final.ASKED).unlink()


def _pin(folder: Path) -> None:
    file = runs.folder(FAMILY) / runs.PIN
    file.write_bytes((folder / "pin.txt").read_bytes())
    try:
        runs.pinned(FAMILY)
        runs.everything(FAMILY)
    finally:
        file.unlink()


# Adapters -----------------------------------------------------------------------------------------


def adapters(folder: Path) -> Mapping[str, Kind]:
    """A LoRA and (IA)³ vectors over a bare base: their settings and weights."""
    g = torch.Generator().manual_seed(0)
    base = {f"block.{i}.fc.weight": torch.randn(6, 4, generator=g) for i in range(2)}
    save_file(base, folder / "base.safetensors", {"format": "pt"})
    parts = {
        f"base_model.model.block.{i}.fc.lora_{p}.weight": torch.randn(*shape, generator=g)
        for i in range(2)
        for p, shape in (("A", (2, 4)), ("B", (6, 2)))
    }
    vectors = {
        f"base_model.model.block.{i}.fc.ia3_l": torch.rand(6, 1, generator=g) for i in range(2)
    }
    settings: dict[str, Any] = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["fc"],
        "rank_pattern": {"block.0.fc": 2}, "alpha_pattern": {"fc": 4.0}, "bias": "none",
        "fan_in_fan_out": False, "use_rslora": False, "modules_to_save": None,
        "base_model_name_or_path": "a/b", "task_type": None, "inference_mode": True,
    }  # fmt: skip
    others = {"peft_type": "IA3", "target_modules": ["fc"], "feedforward_modules": [],
              "fan_in_fan_out": False, "base_model_name_or_path": "a/b"}  # fmt: skip
    for name, told, held in (("lora", settings, parts), ("ia3", others, vectors)):
        (folder / name).mkdir()
        (folder / name / "adapter_config.json").write_text(json.dumps(told))
        save_file(held, folder / name / "adapter_model.safetensors")

    def opened(name: str) -> Door:
        def door(where: Path) -> None:
            view = open_expert(where / name, Checkpoint.open(where / "base.safetensors"))
            for tensor in view.tensors:
                view.read(tensor)
            search_models([where])

        return door

    kinds = {}
    for name, called in (("lora", "LoRA"), ("ia3", "(IA)³")):
        door = opened(name)
        kinds[f"{called}: settings"] = Kind(f"{name}/adapter_config.json", damage.JSON, door, 2)
        kinds[f"{called}: weights"] = Kind(
            f"{name}/adapter_model.safetensors", damage.tensors(), door
        )
    return kinds


# Outputs, finished and unfinished -----------------------------------------------------------------


def outputs(folder: Path) -> Mapping[str, Kind]:
    """Journals, half-written weights and spools of merges that were stopped; reports, sums and
    recipes of finished ones."""
    family(folder)
    plain = load_recipe(folder / "recipe.yaml").model_copy(update={"evaluate": False, "seed": 1})
    (folder / "out").mkdir()
    whole = {}
    for method in ("regmean", "iso_c"):
        recipe = plain.model_copy(update={"method": method, "output": f"out/{method}"})
        merge(recipe)
        whole[method] = (folder / f"out/{method}/model.safetensors").read_bytes()
        shutil.rmtree(folder / f"out/{method}")
        events, seen = run(recipe, resume=True), 0
        for event in events:
            seen += type(event).__name__ == "LayerDone"
            if seen == 3:
                events.close()
                break
        (folder / f"out/.{method}.partial").rename(folder / method)
    merge(plain.model_copy(update={"output": "kept", "keep_sums": True}))
    merge(plain.model_copy(update={"output": "done"}))

    def going_on(method: str) -> Door:
        recipe = plain.model_copy(update={"method": method, "output": f"out/{method}"})

        def door(where: Path) -> None:
            shutil.rmtree(where / "out")
            (where / "out").mkdir()
            shutil.copytree(where / method, where / f"out/.{method}.partial")
            drain(run(recipe, resume=True))
            same = (where / f"out/{method}/model.safetensors").read_bytes() == whole[method]
            assert same, "another model than without a stop"

        return door

    def replacing(where: Path) -> None:
        shutil.rmtree(where / "out")
        (where / "out").mkdir()
        shutil.copytree(where / "done", where / "out/done")
        merge(plain.model_copy(update={"output": "out/done"}), force=True)

    def adding(where: Path) -> None:
        more = plain.experts[1].model_copy(update={"name": "more"})
        told = {"adds_to": "kept", "experts": (more,)}
        json.loads(merge_of(plain.model_copy(update=told)).report.to_json())

    sums = sorted((folder / "kept" / "sums").glob("*.safetensors"))[0].name
    journals = {
        f"journal of {method}": Kind(
            f"{method}/.journal.jsonl", damage.JSONL, going_on(method), 1.5
        )
        for method in whole
    }
    halves = {
        f"half-written {file.name.strip('.').partition('.')[0]} of {method}": Kind(
            f"{method}/{file.name}", damage.tensors(), going_on(method)
        )
        for method in whole
        for file in sorted((folder / method).iterdir())
        if file.is_file() and file.stat().st_size and file.suffix != ".jsonl"
    }
    return {
        **journals,
        **halves,
        "report of an output": Kind("done/report.json", damage.JSON, replacing),
        "recipe of an output": Kind("done/recipe.yaml", damage.YAML, replacing, 0.5),
        "sums: manifest": Kind("kept/sums/manifest.json", damage.JSON, adding),
        "sums: numbers": Kind(f"kept/sums/{sums}", damage.tensors(), adding),
        "report of sums": Kind("kept/report.json", damage.JSON, adding, 0.5),
    }


# Tables, arrays, pictures and archives ------------------------------------------------------------


def tables(folder: Path) -> Mapping[str, Kind]:
    """Rows in every format, descriptions of tasks of every kind, and what New family guesses."""
    import gzip

    import pandas as pd

    rows = [
        {"text": f"row {i}", "other": "a b"[i % 3 : i % 3 + 2], "label": "ny"[i % 2],
         "choices": ["no", "yes"], "gold": i % 2}
        for i in range(20)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    flat = frame.drop(columns="choices")
    flat.to_csv(folder / "rows.csv", index=False)
    flat.to_csv(folder / "rows.tsv", index=False, sep="\t")
    frame.to_parquet(folder / "rows.parquet")
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rows.csv.gz").write_bytes(gzip.compress((folder / "rows.csv").read_bytes()))
    (folder / "classes.json").write_text(json.dumps(["n", "y"]))
    (folder / "warm").mkdir()
    if quiz_of_the_harness(folder / "warm"):  # damage may ask for it, and it takes long to import
        _task(folder / "warm" / "quiz.yaml")
    kinds = {}
    for ending, hurt in (
        ("csv", damage.TABLE), ("tsv", damage.TABLE), ("json", damage.JSON),
        ("jsonl", damage.JSONL), ("parquet", damage.PARQUET), ("csv.gz", damage.any_bytes),
    ):  # fmt: skip
        told = {"kind": "text", "train": f"rows.{ending}", "test": 0.3, "inputs": ["text"],
                "label": "label"}  # fmt: skip
        (folder / f"{ending}.yaml").write_text(yaml.safe_dump(told))

        def door(where: Path, ending: str = ending) -> None:
            _task(where / f"{ending}.yaml")

        def guess(where: Path, ending: str = ending) -> None:
            found = tasks.guessed(where / f"rows.{ending}")
            tasks.described(found, f"rows.{ending}", None, "x")

        kinds[f"rows: {ending}"] = Kind(f"rows.{ending}", hurt, door)
        kinds[f"guessed from {ending}"] = Kind(f"rows.{ending}", hurt, guess, 0.7)
    forms: dict[str, dict[str, Any]] = {
        "text": {"inputs": ["text"], "classes": ["n", "y"], "metric": "macro", "max_length": 8},
        "pairs": {"inputs": ["text", "other"], "classes": "classes.json", "label": "label"},
        "choices": {"prompt": "{text} {other}:", "choices": [" {choices[0]}", " yes"],
                    "label": "gold", "length_normalised": False},
        "language": {"prompt": "Say {text}", "target": " {other}"},
    }  # fmt: skip
    for name, told in forms.items():
        kind = "text" if name == "pairs" else name
        content = {"kind": kind, "name": name, "train": "rows.jsonl", "test": 0.3, **told}
        (folder / f"task {name}.yaml").write_text(yaml.safe_dump(content))
        kinds[f"task: {name}"] = Kind(
            f"task {name}.yaml", damage.YAML, lambda f, name=name: _task(f / f"task {name}.yaml")
        )
    kinds["names of classes"] = Kind(
        "classes.json", damage.JSON, lambda f: _task(f / "task pairs.yaml")
    )
    return kinds


def _task(file: Path) -> None:
    task = tasks.load(file)
    assert len(task.test) > 0 or len(task.train) > 0
    repr(task)


def quiz_of_the_harness(folder: Path) -> bool:
    """Write a task in the form of lm-evaluation-harness, `quiz.yaml`, and its rows; whether the
    package is installed."""
    if importlib.util.find_spec("lm_eval") is None:
        return False
    os.environ["HF_DATASETS_OFFLINE"] = "1"
    rows = [{"q": f"is it {i}", "opts": ["yes", "no", "maybe"], "gold": i % 3} for i in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {
        "task": "quiz", "dataset_path": "json", "training_split": "train", "test_split": "test",
        "dataset_kwargs": {"data_files": {"train": "rows.jsonl", "test": "rows.jsonl"}},
        "output_type": "multiple_choice", "doc_to_text": "{{q}} ?", "doc_to_choice": "{{opts}}",
        "doc_to_target": "gold",
    }  # fmt: skip
    (folder / "quiz.yaml").write_text(yaml.safe_dump(told))
    return True


def pictures(folder: Path) -> Mapping[str, Kind]:
    """Images in folders and alone, of every format, and arrays of them."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for half in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / half / label).mkdir(parents=True)
            for i in range(2):
                shown = rng.integers(0, 255, (6, 6), dtype=np.uint8)
                Image.fromarray(shown).save(folder / half / label / f"{i}.png")
    shown = rng.integers(0, 65535, (6, 6), dtype=np.uint16)
    Image.fromarray(shown).save(folder / "deep.png")
    Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(folder / "one.jpg")
    Image.fromarray(rng.integers(0, 255, (9, 9), dtype=np.uint8)).save(folder / "one.tif")
    told = {"kind": "image", "train": "train", "test": "test", "size": 4}
    (folder / "images.yaml").write_text(yaml.safe_dump(told))
    images, labels = np.zeros((8, 6, 6), np.uint8), np.arange(8) % 2
    halves = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(folder / "task.npz", **halves, classes=np.array(["a", "b"]))

    def one(name: str) -> Door:
        def door(where: Path) -> None:
            found = tasks.one_picture((where / name).read_bytes())
            assert found.dtype == np.uint8
            assert found.ndim == 3

        return door

    def arrays(where: Path) -> None:
        _task(where / "task.npz")
        tasks.guessed(where / "task.npz")

    return {
        "picture in a folder": Kind(
            "train/cat/0.png", damage.PICTURE, lambda f: _task(f / "images.yaml"), 2
        ),
        "picture of 16 bit": Kind("deep.png", damage.PICTURE, one("deep.png")),
        "picture: JPEG": Kind("one.jpg", damage.PICTURE, one("one.jpg")),
        "picture: TIFF": Kind("one.tif", damage.PICTURE, one("one.tif")),
        "folder of images: task": Kind(
            "images.yaml", damage.YAML, lambda f: _task(f / "images.yaml")
        ),
        "arrays": Kind("task.npz", damage.NPZ, arrays, 2),
    }


def archives(folder: Path) -> Mapping[str, Kind]:
    """Archives and files that a browser hands over, and figures that are kept from earlier."""
    import zipfile

    g = torch.Generator().manual_seed(0)
    save_file({"fc.weight": torch.randn(4, 3, generator=g)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["X"], "model_type": "x"}))
    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        for name in ("model.safetensors", "config.json"):
            archive.write(folder / name, f"model/{name}")
    key = ("campaign", "a")
    kept.once(key, "cpu", lambda: (_score(),), lambda scores: True)
    home = kept._file((*key, "cpu"))
    (folder / "scores.json").write_bytes(home.read_bytes())
    kept.write(folder / "brought.json", {key: (_score(),)})

    def handed(where: Path) -> None:
        home = where / "home"
        home.mkdir(exist_ok=True)
        try:
            stream = io.BytesIO((where / "model.zip").read_bytes())
            for made in receive([Dropped("model.zip", stream)], home, 1_000_000):
                assert made.resolve().is_relative_to(home.resolve())
            search_models([home])
            outside = {one.name for one in where.iterdir()}
            assert outside == before | {"home"}, "files outside of where they belong"
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def known(where: Path) -> None:
        home.write_bytes((where / "scores.json").read_bytes())
        found = kept.once(key, "cpu", lambda: (_score(),), lambda scores: True)
        json.dumps([one.to_dict() for one in found])

    before = {one.name for one in folder.iterdir()}
    return {
        "archive": Kind("model.zip", damage.ZIP, handed, 2),
        "scores of this machine": Kind("scores.json", damage.JSON, known),
        "scores of a package": Kind(
            "brought.json", damage.JSON, lambda f: kept.brought(f / "brought.json")
        ),
    }


def _score() -> Any:
    from mats_core.evaluation import Score

    return Score(2, 4, "1100")
