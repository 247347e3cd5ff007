"""The shelves whose files speak of a model: configurations, tokenizers, processors, heads of a
merge, the state of a training, and tasks of lm-evaluation-harness.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file, save_file

import mats_core as mats
from mats_core import load_recipe, parse_recipe, tasks
from mats_core.checkpoints import search_models
from mats_core.merging import evaluate_output, merge, planned
from mats_core.recipes import read_branches
from tests import text_cases
from tests.conftest import class_names, make_task, vit

from . import damage
from .shelves import Door, Kind, merge_of, quiz_of_the_harness

REFINED = {"epochs": 1, "examples": 8, "batch": 8, "validation": 8}


def asked(model: str, task: str) -> Door:
    """Ask a model six examples of a task."""

    def door(where: Path) -> None:
        score = mats.evaluate(where / model, str(where / task), examples=6, progress=False)
        assert score.examples == 6
        assert 0 <= score.accuracy <= 1
        json.dumps(score.to_dict())

    return door


def texts(folder: Path) -> Mapping[str, Kind]:
    """BERT: its configuration, a tokenizer in one file, and one of a vocabulary alone."""
    text_cases.text_family(folder)
    shutil.copytree(folder / "m0", folder / "words")
    for name in ("tokenizer.json", "special_tokens_map.json"):
        (folder / "words" / name).unlink(missing_ok=True)
    vocabulary = "\n".join((*text_cases.SPECIAL, *text_cases.WORDS)) + "\n"
    (folder / "words" / "vocab.txt").write_text(vocabulary)
    told = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 32,
            "unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]",
            "mask_token": "[UNK]"}  # fmt: skip
    (folder / "words" / "tokenizer_config.json").write_text(json.dumps(told))
    special = {k: v for k, v in told.items() if k.endswith("_token")}
    (folder / "m0" / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "m0" / "added_tokens.json").write_text(json.dumps({"[UNK]": 1}))
    door, words = asked("m0", "t0.yaml"), asked("words", "t0.yaml")

    def merged(where: Path) -> None:
        content = yaml.safe_load((where / "family.yaml").read_text())
        content.pop("name")
        recipe = parse_recipe({**content, "method": "average", "evaluate": False}, where)
        json.loads(merge_of(recipe).report.to_json())
        search_models([where / "m0"])

    return {
        "config.json: asked": Kind("m0/config.json", damage.JSON, door, 2),
        "config.json: merged": Kind("m0/config.json", damage.JSON, merged),
        "config.json of the base": Kind("base/config.json", damage.JSON, merged),
        "tokenizer.json": Kind("m0/tokenizer.json", damage.JSON, door, 2),
        "tokenizer.json: merged": Kind("m0/tokenizer.json", damage.JSON, merged, 0.5),
        "tokenizer_config.json": Kind("m0/tokenizer_config.json", damage.JSON, door),
        "special_tokens_map.json": Kind("m0/special_tokens_map.json", damage.JSON, door),
        "added_tokens.json": Kind("m0/added_tokens.json", damage.JSON, door, 0.5),
        "vocab.txt": Kind("words/vocab.txt", damage.LINES, words),
        "tokenizer_config.json of words": Kind(
            "words/tokenizer_config.json", damage.JSON, words, 0.7
        ),
    }


def speech(folder: Path) -> Mapping[str, Kind]:
    """GPT-2: a vocabulary and merges of bytes, and what it is asked in words."""
    from tokenizers import ByteLevelBPETokenizer

    text_cases.text_models(folder, "gpt2")
    shutil.copytree(folder / "m0", folder / "pairs")
    for file in (folder / "pairs").glob("*token*"):
        file.unlink()
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([text_cases.SAID], vocab_size=280, special_tokens=["</s>"])
    trained.save_model(str(folder / "pairs"))
    (folder / "pairs" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GPT2Tokenizer", "eos_token": "</s>", "bos_token": "</s>",
                    "unk_token": "</s>", "model_max_length": 32})
    )  # fmt: skip
    model = text_cases.gpt2()
    model.resize_token_embeddings(trained.get_vocab_size())
    model.save_pretrained(folder / "pairs")
    door = asked("pairs", "t0.yaml")
    return {
        "config.json of GPT-2": Kind("m0/config.json", damage.JSON, asked("m0", "t0.yaml")),
        "vocab.json": Kind("pairs/vocab.json", damage.JSON, door),
        "merges.txt": Kind("pairs/merges.txt", damage.LINES, door),
        "answers to choose from": Kind("t0.yaml", damage.YAML, asked("m0", "t0.yaml")),
    }


def base_of_images(folder: Path) -> None:
    """A base and two experts of ViT with heads of their own, and their tasks."""
    vit(5, class_names(5), 0).save_pretrained(folder / "base")
    for m in range(2):
        vit(3 + m, class_names(3 + m), 0).save_pretrained(folder / f"e{m}")
        make_task(folder / f"t{m}.npz", 3 + m, m, class_names(3 + m))
    rng = np.random.default_rng(0)

    for m in range(2):
        file = folder / f"e{m}" / "model.safetensors"
        own = load_file(file)
        save_file(
            {n: (v + 0.05 * rng.standard_normal(v.shape)).astype(v.dtype) for n, v in own.items()},
            file, {"format": "pt"},
        )  # fmt: skip


def sight(folder: Path) -> Mapping[str, Kind]:
    """ViT: its configuration and its processor, and what a merge with heads leaves."""
    base_of_images(folder)
    processor = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True,
                 "do_normalize": True, "image_mean": [0.5], "image_std": [0.5], "resample": 2,
                 "rescale_factor": 1 / 255, "size": {"height": 12, "width": 12}}  # fmt: skip
    (folder / "e0" / "preprocessor_config.json").write_text(json.dumps(processor))
    shutil.copytree(folder / "e0", folder / "resized")
    wide = {**processor, "size": {"height": 12, "width": 12}, "do_center_crop": True,
            "crop_size": {"height": 12, "width": 12}, "resample": 3}  # fmt: skip
    (folder / "resized" / "preprocessor_config.json").write_text(json.dumps(wide))
    experts = [{"name": f"e{m}", "model": f"e{m}", "task": f"t{m}.npz"} for m in range(2)]
    told = {"base": "base", "experts": experts, "method": "average", "device": "cpu"}
    told |= {"evaluate": {"examples": 6}, "seed": 0}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(told))
    merge(parse_recipe({**told, "output": "done"}, folder))
    for file in ("recipe.yaml", "report.json", "config.json"):
        (folder / "done" / file).stat()
    routed = {"by": "prototypes", "rank": 2, "examples": 8}
    merge(parse_recipe({**told, "evaluate": False, "routed": routed, "output": "routed"}, folder))
    refined = parse_recipe({**told, "evaluate": False, "refine": REFINED, "output": "out"}, folder)
    events = mats.run(refined, resume=True)
    for event in events:
        if type(event).__name__ == "EpochDone":
            events.close()
            break
    partial = folder / ".out.partial"
    partial.rename(folder / "half")
    state = next((folder / "half").glob(".refining*"), None)

    def output(where: Path) -> None:
        results = evaluate_output(where / "done", "validation")
        json.dumps([result.name for result in results])

    def rich(where: Path) -> None:
        planned(load_recipe(where / "recipe.yaml"))

    def branches(where: Path) -> None:
        read_branches(where / "routed")

    def refining(where: Path) -> None:
        shutil.rmtree(where / ".out.partial", ignore_errors=True)
        shutil.rmtree(where / "out", ignore_errors=True)
        shutil.copytree(where / "half", where / ".out.partial")
        json.loads(merge_of_resumed(refined).to_json())

    kinds = {
        "config.json of ViT": Kind("e0/config.json", damage.JSON, asked("e0", "t0.npz")),
        "preprocessor_config.json": Kind(
            "e0/preprocessor_config.json", damage.JSON, asked("e0", "t0.npz"), 2
        ),
        "preprocessor_config.json, cropped": Kind(
            "resized/preprocessor_config.json", damage.JSON, asked("resized", "t0.npz")
        ),
        "recipe with tasks": Kind("recipe.yaml", damage.YAML, rich),
        "output: recipe": Kind("done/recipe.yaml", damage.YAML, output),
        "output: config.json": Kind("done/config.json", damage.JSON, output, 0.7),
        "output: weights": Kind("done/model.safetensors", damage.tensors(), output),
        "output: a head": Kind("done/heads/e0/config.json", damage.JSON, output, 0.5),
        "routed: manifest": Kind("routed/routed/manifest.json", damage.JSON, branches),
        "routed: branches": Kind("routed/routed/branches.safetensors", damage.tensors(), branches),
    }
    if state is not None:
        kinds["state of a training"] = Kind(f"half/{state.name}", damage.tensors(), refining, 0.7)
    return kinds


def merge_of_resumed(recipe: Any) -> Any:
    """The report of a merge that goes on from what an unfinished one has left."""
    return merge(recipe, resume=True)


def harness(folder: Path) -> Mapping[str, Kind]:
    """A task of lm-evaluation-harness in a file, and its rows; nothing without the package."""
    if not quiz_of_the_harness(folder):
        return {}

    def door(where: Path) -> None:
        repr(tasks.load(where / "quiz.yaml"))

    return {
        "task of the harness": Kind("quiz.yaml", damage.YAML, door, 0.4),
        "rows of the harness": Kind("rows.jsonl", damage.JSONL, door, 0.2),
    }
