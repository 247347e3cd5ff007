"""The thing itself before its description: heads, embeddings, padding, and what a model takes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import mats_core as mats
from mats_core import models, tasks
from mats_core.checkpoints import Checkpoint
from mats_core.errors import InputError
from tests import text_cases
from tests.text_cases import PAD, VOCABULARY, save, write_rows

NAMED = {"a": 0, "b": 1, "c": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("heads")


def edited(folder, **change):
    """A configuration with other values; None takes a key out."""
    file = folder / "config.json"
    content = json.loads(file.read_text()) | change
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


def expert(folder, name, names, size=None, **change):
    """A saved classifier whose configuration names these classes."""
    place = save(text_cases.bert(size or len(names), [f"n{i}" for i in range(size or len(names))]),
                 folder / name, "bert")  # fmt: skip
    labels = {str(i): one for i, one in enumerate(names)} or None
    back = {one: i for i, one in enumerate(names)} or None
    return edited(place, id2label=labels, label2id=back, **change)


def task(folder, labels, **told):
    rows = [{"text": "good film", "label": label} for label in labels] * 6
    rows = [row | {"text": f"{row['text']} {'very ' * (i % 5)}"} for i, row in enumerate(rows)]
    write_rows(folder / "rows.jsonl", rows)
    content = {"kind": "text", "train": "rows.jsonl", "test": 0.25, "inputs": ["text"], **told}
    (folder / "t.yaml").write_text(json.dumps(content))
    return tasks.load(folder / "t.yaml")


# Heads and classes --------------------------------------------------------------------------------

FITS = {
    # names of the head, labels of the file, classes of the task → the classes as they are asked
    "the same": (["no", "yes"], ["yes", "no"], None, ("no", "yes"), ""),
    "another case": (["NEGATIVE", "POSITIVE"], ["positive", "negative"], None, None, "are read"),
    "turned": (["POSITIVE", "NEGATIVE"], ["positive", "negative"], None, None, "are read"),
    "turned, spelt alike": (["yes", "no"], ["yes", "no"], None, None, ""),
    "turned, and named": (["yes", "no"], ["yes", "no"], ["no", "yes"], None, ""),
    "punctuation": (["not_entailment", "entailment"], ["Not entailment", "Entailment"], None, None,
                    "are read"),
    "numbers for names": (["no", "yes"], [0, 1], None, None, ""),
    "names, numbers in the file": (["yes", "no"], [0, 1], ["no", "yes"], None, ""),
    "one class is absent": (["a", "b", "c"], ["a", "c"], None, ("a", "b", "c"), ""),
    "no names, numbers": ([], [0, 1], None, ("0", "1"), ""),
    "LABEL_0, numbers": (["LABEL_0", "LABEL_1"], [0, 1], None, ("0", "1"), ""),
    "LABEL_0 in both": (["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_0"], None, None, ""),
    "LABEL_0, names": (["LABEL_0", "LABEL_1"], ["bad", "good"], None, ("bad", "good"),
                       "taken in the order"),
    "LABEL_0, names in order": (["LABEL_0", "LABEL_1"], ["bad", "good"], ["good", "bad"],
                                ("good", "bad"), ""),
    "other words in order": (["contra", "neutral"], ["no", "maybe"], ["no", "maybe"],
                             ("no", "maybe"), "taken in the order"),
    "one other word in its place": (["World", "Sci/Tech"], ["world", "Science"],
                                    ["world", "Science"], ("world", "Science"),
                                    "taken in the order"),
    "stars": (["1 star", "2 stars"], [1, 2], None, ("1", "2"), "taken in the order"),
}  # fmt: skip


@pytest.mark.parametrize("case", FITS)
def test_classes_are_brought_into_the_order_of_the_head(folder, case):
    names, labels, told, expected, note = FITS[case]
    place = expert(folder, "fits", names, size=max(2, len(names)))
    given = task(folder, labels, **({"classes": told} if told else {}))
    asked = models.check(Checkpoint.open(place), given)
    assert asked.task.classes == (tuple(names) if expected is None else expected)
    # Every row keeps the label that its file has, by name.
    if labels != [*range(len(labels))]:
        for ours, theirs in ((given.train, asked.task.train), (given.test, asked.task.test)):
            before = [tasks.matched([given.classes[k]], asked.task.classes) for k in ours.labels]
            after = [asked.task.classes[k] for k in theirs.labels]
            assert [*(next(iter(one.values())) for one in before)] == after
    said = [one for one in asked.notes if "classes of" in one]
    assert bool(said) == bool(note)
    assert not note or note in said[0]


REFUSED = {
    "a head of two without names": ([], 2, [0, 1, 2], None, r"2 classes.*found 3: 0, 1, 2"),
    "a head of three without names": ([], 3, [0, 1], None, r"3 classes.*found 2: 0, 1"),
    "one row": ([], 1, [0, 1], None, r"1 classes, the size of the head"),
    "other names": (["x", "y"], 2, ["bad", "good"], None, r"x, y, found bad, good.*'classes'"),
    "some other names, turned": (["World", "Tech"], 2, ["Science", "world"], ["Science", "world"],
                                 r"World, Tech, found Science, world"),
    "more than the head": (["a", "b"], 2, ["a", "b", "c"], None, r"a, b, found 3: a, b, c"),
    "fewer are named": (["a", "b", "c"], 3, ["a", "b"], ["a", "b"], r"a, b, c, found 2: a, b"),
    "names beside the head": (["a", "b", "c"], 4, ["a", "b", "c"], None,
                              r"4 classes, the size of the head.*config.json names 3.*found 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_the_heads_is_refused_with_both(folder, case):
    names, size, labels, told, says = REFUSED[case]
    place = expert(folder, "refused", names, size)
    given = task(folder, labels, **({"classes": told} if told else {}))
    with pytest.raises(InputError, match=says):
        models.check(Checkpoint.open(place), given)


def test_an_expert_is_scored_by_the_names_of_its_classes(folder):
    place = expert(folder, "scored", ["POSITIVE", "NEGATIVE"])
    rows = text_cases.rows(40, 2, 1)
    write_rows(folder / "r.jsonl", rows)
    told = {"kind": "text", "train": "r.jsonl", "test": "r.jsonl", "inputs": ["text"]}
    (folder / "numbers.yaml").write_text(json.dumps(told))
    right = mats.evaluate(str(place), str(folder / "numbers.yaml"))
    named = [row | {"label": ["positive", "negative"][row["label"]]} for row in rows]
    write_rows(folder / "r2.jsonl", named)
    (folder / "names.yaml").write_text(json.dumps(told | {"train": "r2.jsonl", "test": "r2.jsonl"}))
    with pytest.warns(UserWarning, match="are read 'negative' as 'NEGATIVE'"):
        assert mats.evaluate(str(place), str(folder / "names.yaml")).correct == right.correct


# Sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "said"),
    [("vocab_size", VOCABULARY - 3), ("vocab_size", VOCABULARY + 9), ("type_vocab_size", 1),
     ("max_position_embeddings", 512), ("max_position_embeddings", 16)],
)  # fmt: skip
def test_a_model_is_built_with_the_sizes_of_its_weights(folder, key, said):
    place = expert(folder, "sized", ["no", "yes"])
    texts = ["good film " * 15, "bad"]  # 30 words: as many tokens as the 32 places take
    write_rows(folder / "long.jsonl", [{"text": t, "label": i} for i, t in enumerate(texts)] * 5)
    told = {"kind": "text", "train": "long.jsonl", "test": 0.4, "inputs": ["text"]}
    (folder / "long.yaml").write_text(json.dumps(told))
    given = tasks.load(folder / "long.yaml")
    right = mats.evaluate(str(place), given)
    statistics = mats.measure(str(place), given, examples=4, progress=False)
    edited(place, **{key: said})
    with pytest.warns(UserWarning, match=rf"says {key} {said}, the weights have the size"):
        assert mats.evaluate(str(place), given).answers == right.answers
    again = mats.measure(str(place), given, examples=4, progress=False)
    name = "bert.encoder.layer.0.output.dense.input_gram"
    before, after = statistics.read(name, (20, 20)), again.read(name, (20, 20))
    assert before is not None
    assert after is not None
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"hidden_size": 20}, "config.json"), ({"num_hidden_layers": 9}, "every parameter"),
     ({"num_hidden_layers": 10**6}, "no more layers than the"),
     ({"intermediate_size": 24}, r"\[24"), ({"num_attention_heads": 0}, "config.json"),
     ({"architectures": ["Nothing"]}, "a class of transformers"), ({"hidden_act": "no"}, "config")],
)  # fmt: skip
def test_a_configuration_of_another_model_is_one_sentence(folder, change, says):
    place = edited(expert(folder, "other", ["no", "yes"]), **change)
    with pytest.raises(InputError, match=says):
        mats.evaluate(str(place), task(folder, ["no", "yes"]))


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        ("regression", True),
        ("multi_label_classification", True),
        ("single_label_classification", False),
        (None, False),
    ],
)
def test_a_head_that_was_trained_for_another_question_is_told(folder, problem, told):
    place = expert(folder, f"problem-{problem}", ["no", "yes"], problem_type=problem)
    asking = models.check(Checkpoint.open(place), task(folder, ["no", "yes"]))
    said = [note for note in asking.notes if "problem_type" in note]
    assert [f"problem_type '{problem}'" in note for note in said] == [True] * told


def test_tokens_beyond_the_embedding_are_named(folder):
    place = save(text_cases.bert(2, ["no", "yes"], vocab_size=12), folder / "short", "bert")
    with pytest.raises(InputError, match=r"tokens below 12, the rows.*found \d+, '"):
        mats.evaluate(str(place), task(folder, ["no", "yes"]))


# Padding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [-1, VOCABULARY, 10**6, None])
@pytest.mark.parametrize("make", ["bert", "llama", "gpt2", "t5"])
def test_a_padding_token_that_is_none_changes_nothing(folder, make, pad):
    style = {"bert": "bert", "t5": "t5"}.get(make, "gpt")
    model = text_cases.bert(2, ["no", "yes"]) if make == "bert" else getattr(text_cases, make)()
    place = save(model, folder / make, style)
    write_rows(folder / "p.jsonl", text_cases.rows(24, 2, 3))
    kinds = {"bert": {"kind": "text", "inputs": ["text"]}}
    told = kinds.get(make, {"kind": "choices", "prompt": "{text}", "choices": [" no", " yes"]})
    (folder / "p.yaml").write_text(json.dumps({"train": "p.jsonl", "test": 0.5, **told}))
    given = tasks.load(folder / "p.yaml")
    config = json.loads((place / "config.json").read_text())
    kept = config.get("decoder_start_token_id", PAD)
    right = mats.evaluate(str(place), given)
    edited(place, pad_token_id=pad, **({"decoder_start_token_id": kept} if make == "t5" else {}))
    assert mats.evaluate(str(place), given).answers == right.answers
    assert mats.measure(str(place), given, examples=4, progress=False).layers


# What a model takes -------------------------------------------------------------------------------


def whisper():
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    return WhisperForConditionalGeneration(WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=VOCABULARY,
        max_source_positions=20, max_target_positions=20, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    ))  # fmt: skip


def wav2vec():
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    return Wav2Vec2ForSequenceClassification(Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3),
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, classifier_proj_size=8,
    ))  # fmt: skip


@pytest.mark.parametrize("make", [whisper, wav2vec])
@pytest.mark.parametrize("kind", ["text", "choices", "language"])
def test_a_model_of_speech_is_refused_in_a_sentence(folder, make, kind):
    place = save(make(), folder / make.__name__, "gpt")
    told = {"text": {"inputs": ["text"]}, "language": {"inputs": ["text"]},
            "choices": {"prompt": "{text}", "choices": [" no", " yes"]}}  # fmt: skip
    write_rows(folder / "p.jsonl", text_cases.rows(10, 2, 3))
    content = {"kind": kind, "train": "p.jsonl", "test": 0.5, **told[kind]}
    (folder / "speech.yaml").write_text(json.dumps(content))
    with pytest.raises(InputError, match="which takes audio"):
        mats.evaluate(str(place), str(folder / "speech.yaml"))


# Experts that are none ----------------------------------------------------------------------------


def test_an_expert_that_does_worse_than_its_base_is_told(tiny_family, tmp_path):
    content = np.load(tiny_family / "t0.npz")
    arrays = dict(content)
    arrays["y_test"] = (arrays["y_test"] + 1) % len(arrays["classes"])
    np.savez(tmp_path / "turned.npz", **arrays)
    entry = {"name": "e0", "model": str(tiny_family / "e0"), "task": str(tmp_path / "turned.npz")}
    recipe = mats.parse_recipe(
        {"base": str(tiny_family / "base"), "experts": [entry], "method": "average"}
    )
    report = mats.merge(recipe, progress=False).report
    result = report.tasks[0]
    told = [one for one in report.warnings if "the expert 'e0' reaches" in one]
    worse = result.finetuned.value < result.pretrained.value
    guessed = result.finetuned.value < 1 / len(arrays["classes"])
    assert len(told) == worse + guessed
    assert told, "the labels are turned: it cannot do well"
