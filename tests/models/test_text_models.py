"""Texts through evaluation and statistics, against transformers' own forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mats_core import models, tasks
from mats_core.analysis.predicted_loss import cross_entropy
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.evaluation import evaluate
from mats_core.evaluation.examiner import exam
from mats_core.merging.pipeline import merge
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.statistics.of_task import measure_task
from tests import text_cases
from tests.text_cases import save, write_task


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return text_cases.text_family(tmp_path_factory.mktemp("texts"))


def recipe(family, method="average", **change):
    experts = [{"name": f"m{m}", "model": f"m{m}", "task": f"t{m}.yaml"} for m in range(2)]
    content = {"base": "base", "experts": experts, "method": method, "device": "cpu", **change}
    return parse_recipe(content, family)


def one_by_one(folder, texts) -> torch.Tensor:
    """(texts, classes): every text by itself, without any padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return torch.cat([model(**tokenizer(t, return_tensors="pt")).logits for t in texts])


def test_logits_are_those_of_each_text_alone(family):
    split = tasks.load(family / "t1.yaml").test
    tensors = models.tensors_of(Checkpoint.open(family / "m1"))
    expected = one_by_one(family / "m1", split.inputs[:, 0].tolist())
    assert len({len(t.split()) for t in split.inputs[:, 0]}) > 5
    assert torch.allclose(evaluate.asked(family / "m1", tensors, split), expected, atol=1e-5)


def test_batches_are_of_like_length_and_come_back_in_order(family, monkeypatch):
    monkeypatch.setattr("mats_core.models.inputs.TOKENS", 40)
    split = tasks.load(family / "t1.yaml").test
    rows = models.encode(split, family / "m1")
    places = np.arange(len(split))[::-1]
    batches = list(rows.batches(places))
    assert len(batches) > 5
    assert sorted(np.concatenate([b.rows for b in batches])) == list(range(len(split)))
    assert all(b.inputs["input_ids"].numel() <= 40 for b in batches)
    tensors = models.tensors_of(Checkpoint.open(family / "m1"))
    forward = models.forward(family / "m1", tensors)
    found = evaluate.logits(forward, tensors, rows, split, places)
    expected = one_by_one(family / "m1", split.inputs[places, 0].tolist())
    assert torch.allclose(found, expected, atol=1e-5)


def test_an_exam_agrees_with_transformers(family):
    inputs = open_inputs(recipe(family))
    encoder = models.tensors_of(inputs.family.experts[0].checkpoint)
    *_, last = exam(inputs.family, family, "test").take(encoder)
    split = tasks.load(family / "t0.yaml").test
    right = one_by_one(family / "m0", split.inputs[:, 0].tolist()).argmax(1).numpy() == split.labels
    assert last.results[0].merged.answers == "".join("1" if r else "0" for r in right)
    assert last.results[0].finetuned == last.results[0].merged
    assert last.results[1].merged.metric == "macro"


def test_cross_entropy_is_that_of_transformers(family):
    inputs = open_inputs(recipe(family))
    expert, split = inputs.family.experts[1], tasks.load(family / "t1.yaml").test
    found = cross_entropy(models.tensors_of(expert.checkpoint), inputs.family, expert, split)
    logits = one_by_one(family / "m1", split.inputs[:, 0].tolist())
    labels = torch.from_numpy(split.labels)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert found == pytest.approx(expected.numpy(), abs=1e-5)


def test_pairs_have_segments_and_are_cut(family, tmp_path):
    pair = {"text": "the film", "other": "was very very very very dull", "label": 1}
    file = write_task(tmp_path, "pairs", [pair] * 10, [pair, {**pair, "label": 0}],
                      inputs=["text", "other"], classes=["no", "yes"], max_length=8)  # fmt: skip
    split = tasks.load(file).test
    batch = models.encode(split, family / "base").batch(np.arange(2))
    assert batch.inputs["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert batch.inputs["input_ids"].shape == (2, 8)
    assert batch.inputs["input_ids"][0, [0, 3, 7]].tolist() == [2, 3, 3]
    assert split.text(0) == "the film ¶ was very very very very dull"


def test_a_merge_of_texts_is_evaluated_and_measured(family):
    statistics = {}
    for m in range(2):
        checkpoint = Checkpoint.open(family / f"m{m}")
        found = measure_task(checkpoint, tasks.load(family / f"t{m}.yaml"), examples=24)
        found.save(family / f"m{m}.stats.safetensors")
        statistics[f"m{m}"] = found
    experts = [
        {"name": f"m{m}", "model": f"m{m}", "task": f"t{m}.yaml",
         "statistics": f"m{m}.stats.safetensors"} for m in range(2)
    ]  # fmt: skip
    report = merge(recipe(family, "regmean", experts=experts))
    assert [r.name for r in report.tasks] == ["m0", "m1"]
    assert report.coverage["merged"] > 10
    split = tasks.load(family / "t0.yaml").train
    order = np.random.default_rng(0).permutation(len(split))[:24]
    words = sum(len(str(text).split()) + 2 for text in split.inputs[order, 0])
    assert statistics["m0"].metadata["tokens"] == str(words), "padding is not counted"


def test_statistics_do_not_depend_on_batches_or_padding(family):
    checkpoint, task = Checkpoint.open(family / "m1"), tasks.load(family / "t1.yaml")
    for labels in ("empirical", "true"):
        whole, single = (
            measure_task(checkpoint, task, examples=16, batch_size=size, labels=labels, seed=3)
            for size in (16, 1)
        )
        assert whole.metadata == single.metadata
        for name, shape in whole.shapes.items():
            a, b = (s.read(name, shape, dtype=torch.float64) for s in (whole, single))
            assert a is not None
            assert b is not None
            if float(a.abs().max()) > 1e-12:  # keys' biases do not matter to a softmax
                assert torch.allclose(a, b, rtol=1e-3, atol=1e-5 * float(a.abs().max())), name


def test_decoders_that_classify_find_their_last_token(tmp_path):
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(1)
    model = GPT2ForSequenceClassification(GPT2Config(
        vocab_size=text_cases.VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32,
        eos_token_id=text_cases.END, bos_token_id=text_cases.END, num_labels=2,  # type: ignore[call-arg]
    )).eval()  # fmt: skip
    assert model.config.pad_token_id is None
    folder = save(model, tmp_path / "m", "gpt2")
    rows = text_cases.rows(12, 2, 5)
    split = tasks.load(write_task(tmp_path, "t", rows, rows, classes=["a", "b"])).test
    found = evaluate.asked(folder, models.tensors_of(Checkpoint.open(folder)), split)
    assert torch.allclose(found, one_by_one(folder, split.inputs[:, 0].tolist()), atol=1e-5)


# What is refused ----------------------------------------------------------------------------------


def test_a_model_without_a_tokenizer_is_refused(family, tmp_path):
    text_cases.bert(2, ["a", "b"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="Copy those of the pre-trained model"):
        models.encode(tasks.load(family / "t0.yaml").test, tmp_path)


def test_a_model_that_cannot_be_asked_is_refused(family, tiny_family):
    texts, images = tasks.load(family / "t0.yaml"), tasks.load(tiny_family / "t0.npz")
    with pytest.raises(InputError, match=r"a classifier of texts.*found ViTForImage"):
        measure_task(Checkpoint.open(tiny_family / "e0"), texts)
    with pytest.raises(InputError, match=r"a classifier of images.*found BertFor"):
        measure_task(Checkpoint.open(family / "m0"), images)


def test_classes_in_another_order_are_brought_into_that_of_the_head(family, tmp_path):
    expert, rows = Checkpoint.open(family / "m0"), text_cases.rows(10, 2, 1)
    right = tasks.load(write_task(tmp_path, "right", rows, rows, classes=["worse", "better"]))
    named = [row | {"label": ["worse", "better"][row["label"]]} for row in rows]
    turned = tasks.load(write_task(tmp_path, "turned", named, named, classes=["better", "worse"]))
    assert turned.test.labels.tolist() == [1 - label for label in right.test.labels]
    asked = models.check(expert, turned).task
    assert asked.classes == ("worse", "better")
    assert asked.digest == right.digest
    assert models.check(expert, right).task is right


def test_more_tokens_than_the_model_has_places_are_refused(family, tmp_path):
    rows = text_cases.rows(10, 2, 1)
    file = write_task(tmp_path, "long", rows, rows, classes=["worse", "better"], max_length=64)
    with pytest.raises(InputError, match="at most the 32 tokens"):
        models.encode(tasks.load(file).test, family / "m0")
