"""Choices and token losses of causal and encoder-decoder models, against transformers' own loss."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import yaml

from mats_core import models, tasks
from mats_core.analysis.predicted_loss import cross_entropy
from mats_core.checkpoints.files import Checkpoint
from mats_core.cli.main import main
from mats_core.errors import InputError
from mats_core.evaluation import evaluate
from mats_core.evaluation.examiner import exam
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from tests import text_cases
from tests.conftest import loaded
from tests.text_cases import END, PAD, VOCABULARY, WORDS, save, write_rows, write_task

MAKE = {"gpt2": text_cases.gpt2, "llama": text_cases.llama, "t5": text_cases.t5}
NUMBER = {word: i + len(text_cases.SPECIAL) for i, word in enumerate(WORDS)}
ROWS = [
    {"question": "is it a good film", "other": "maybe not", "label": 0},
    {"question": "what", "other": "blue", "label": 1},
    {"question": "how was the very very dull plot ?", "other": "no one", "label": 1},
    {"question": "is it day", "other": "yes", "label": 0},
]
ANSWERS = (" yes", " no not very")


@pytest.fixture(scope="module", params=MAKE)
def case(request, tmp_path_factory):
    """(name, directory, transformers' own model)."""
    folder = tmp_path_factory.mktemp(request.param)
    model = MAKE[request.param](seed=3).eval()
    return request.param, save(model, folder, "t5" if request.param == "t5" else "gpt2"), model


def ids(text: str) -> list[int]:
    return [NUMBER[word] for word in text.split()]


def loss(name, model, prompt: str, answer: str) -> tuple[float, int]:
    """transformers' own mean loss of an answer, as a sum, and the tokens that it is over."""
    if name == "t5":
        labels = [*ids(answer), END]
        with torch.inference_mode():
            mean = model(input_ids=torch.tensor([[*ids(prompt), END]]),
                         labels=torch.tensor([labels])).loss  # fmt: skip
        return float(mean) * len(labels), len(labels)
    before, labels = ids(prompt), ids(answer)
    whole = torch.tensor([before + labels])
    asked = torch.tensor([[-100] * len(before) + labels])
    with torch.inference_mode():
        mean = model(input_ids=whole, labels=asked).loss
    count = len(labels) if before else len(labels) - 1
    return float(mean) * count, count


def load(folder, told, rows=ROWS):
    return tasks.load(write_task(folder, "t", rows * 3, rows, **told)).test


CHOICES = {"kind": "choices", "prompt": "question : {question} answer :", "choices": ANSWERS}


@pytest.mark.parametrize("normalised", [False, True, "characters", "bytes"])
def test_choices_are_scored_by_their_likelihood(case, tmp_path, normalised):
    name, folder, model = case
    told = {**CHOICES, "choices": [*ANSWERS, " {other}"], "length_normalised": normalised}
    split = load(tmp_path, told)
    found = evaluate.asked(folder, models.tensors_of(Checkpoint.open(folder)), split)
    assert found.shape == (4, 3)
    for row, said in zip(ROWS, found, strict=True):
        for answer, score in zip((*ANSWERS, f" {row['other']}"), said, strict=True):
            nats, tokens = loss(name, model, f"question : {row['question']} answer :", answer)
            text = answer.strip()
            by = {True: tokens, "characters": len(text), "bytes": len(text.encode("utf-8"))}
            expected = -nats / by.get(normalised, 1)
            assert float(score) == pytest.approx(expected, abs=1e-4)


def test_token_losses(case, tmp_path):
    name, folder, model = case
    told = {"kind": "language", "prompt": "{question} answer :", "target": " {other}"}
    split = load(tmp_path, told)
    tensors = models.tensors_of(Checkpoint.open(folder))
    expected = [loss(name, model, f"{r['question']} answer :", r["other"]) for r in ROWS]
    found = evaluate.asked(folder, tensors, split)
    assert found[:, 0].numpy() == pytest.approx([nats for nats, _ in expected], abs=1e-4)
    assert found[:, 1].tolist() == [tokens for _, tokens in expected]
    score = evaluate.score(folder, tensors, split)
    nats, tokens = (sum(column) for column in zip(*expected, strict=True))
    assert score.value == pytest.approx(math.exp(-nats / tokens), abs=1e-5)
    assert score.metric == "likelihood"
    assert 0 <= score.interval[0] < score.value < score.interval[1] <= 1


def test_plain_text_asks_every_token_but_the_first(case, tmp_path):
    name, folder, model = case
    split = load(tmp_path, {"kind": "language", "inputs": ["question"]}, [ROWS[0], ROWS[2]])
    tensors = models.tensors_of(Checkpoint.open(folder))
    if name == "t5":
        with pytest.raises(InputError, match="Give 'prompt' and 'target'"):
            evaluate.asked(folder, tensors, split)
        return
    found = evaluate.asked(folder, tensors, split)
    for row, (nats, tokens) in zip((ROWS[0], ROWS[2]), found.tolist(), strict=True):
        expected, count = loss(name, model, "", row["question"])
        assert (nats, tokens) == (pytest.approx(expected, abs=1e-4), count)


def test_long_prompts_are_cut_and_the_answer_stays(case, tmp_path):
    name, folder, model = case
    split = load(tmp_path, {**CHOICES, "max_length": 6}, [ROWS[2]])
    found = evaluate.asked(folder, models.tensors_of(Checkpoint.open(folder)), split)
    words = f"question : {ROWS[2]['question']} answer :".split()
    for answer, score in zip(ANSWERS, found[0], strict=True):
        if name == "t5":
            kept = words[:5]  # the end token is the sixth
        else:
            kept = [words[0], *words[1 - (6 - len(answer.split())) :]]
        assert float(score) == pytest.approx(
            -loss(name, model, " ".join(kept), answer)[0], abs=1e-4
        )
    with pytest.raises(InputError, match="Raise 'max_length'"):
        evaluate.asked(folder, models.tensors_of(Checkpoint.open(folder)),
                       load(tmp_path, {**CHOICES, "max_length": 3}))  # fmt: skip


def test_tokens_that_reach_over_the_border_belong_to_the_answers(tmp_path):
    """A tokenizer that joins the end of a prompt with the beginning of an answer."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    letters = [(c, -2.0) for c in "abcxyz:"]
    joined = [("[UNK]", 0.0), ("</s>", 0.0), (":x", -1.0), (":y", -1.0), ("ab", -1.0)]
    tokenizer = Tokenizer(kinds.Unigram([*joined, *letters], unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("|", "removed")
    text_cases.gpt2().save_pretrained(tmp_path)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="</s>"
    ).save_pretrained(tmp_path)
    rows = [{"q": "ab:", "label": 0}] * 6
    split = load(tmp_path, {"kind": "choices", "prompt": "{q}", "choices": ["x", "yz", "z"]}, rows)
    batch = models.encode(split, tmp_path).batch(np.array([0]))
    assert batch.targets is not None
    asked = [[tokenizer.id_to_token(t) for t in row if t >= 0] for row in batch.targets.tolist()]
    # `ab:x` is `ab` and `:x`: the colon is asked of every answer, or of none.
    assert asked == [[":x"], [":y", "z"], [":", "z"]]


def test_padding_and_batches_do_not_matter(case, tmp_path, monkeypatch):
    _, folder, _ = case
    split = load(tmp_path, CHOICES)
    tensors = models.tensors_of(Checkpoint.open(folder))
    whole = evaluate.asked(folder, tensors, split)
    monkeypatch.setattr("mats_core.models.inputs.TOKENS", 1)
    assert torch.allclose(evaluate.asked(folder, tensors, split), whole, atol=1e-4)
    rows = models.encode(split, folder)
    assert len(list(rows.batches(np.arange(4)))) == 4


# Families -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Two T5 experts without heads: one chooses, the other writes."""
    folder = tmp_path_factory.mktemp("t5s")
    base = text_cases.t5(seed=0)
    save(base, folder / "base", "t5")
    for m in range(2):
        expert = text_cases.t5(seed=0)
        generator = torch.Generator().manual_seed(m)
        with torch.no_grad():
            for parameter in expert.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        save(expert, folder / f"m{m}", "t5")
    write_task(folder, "t0", ROWS * 3, ROWS * 3, metric="f1", **CHOICES)
    write_task(folder, "t1", ROWS * 3, ROWS, kind="language", prompt="{question}", target="{other}")
    (folder / "family.yaml").write_text(yaml.safe_dump({
        "name": "Tiny T5", "base": "base",
        "experts": [{"name": f"m{m}", "model": f"m{m}", "task": f"t{m}.yaml"} for m in range(2)],
    }))  # fmt: skip
    return folder


def test_an_exam_of_choices_and_losses(family):
    experts = [{"name": f"m{m}", "model": f"m{m}", "task": f"t{m}.yaml"} for m in range(2)]
    content = {"base": "base", "method": "average", "device": "cpu", "experts": experts}
    inputs = open_inputs(parse_recipe(content, family))
    encoder = models.tensors_of(inputs.family.experts[1].checkpoint)
    *_, last = exam(inputs.family, family, "test").take(encoder)
    chosen, written = last.results
    assert (chosen.merged.metric, written.merged.metric) == ("f1", "likelihood")
    assert written.merged.value == pytest.approx(written.finetuned.value, abs=1e-6)
    split = tasks.load(family / "t1.yaml").test
    losses = cross_entropy(encoder, inputs.family, inputs.family.experts[1], split)
    model = loaded(inputs.family.experts[1].checkpoint)
    expected = [loss("t5", model, r["question"], r["other"])[0] for r in ROWS]
    assert losses == pytest.approx(expected, abs=1e-4)


def test_the_command_line_measures_merges_and_evaluates(family, tmp_path, capsys):
    assert main(["measure", "--family", str(family), "--out", str(tmp_path / "s"),
                 "--examples", "6", "--device", "cpu"]) == 0  # fmt: skip
    recipe = {
        "base": str(family / "base"), "method": "regmean", "device": "cpu",
        "output": str(tmp_path / "out"),
        "experts": [
            {"name": f"m{m}", "model": str(family / f"m{m}"), "task": str(family / f"t{m}.yaml"),
             "statistics": str(tmp_path / "s" / f"m{m}.stats.safetensors")}
            for m in range(2)
        ],
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["merge", str(tmp_path / "r.yaml")]) == 0
    said = capsys.readouterr().out
    assert "likelihood" in said
    assert "f1" in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [task["metric"] for task in report["tasks"]] == ["f1", "likelihood"]
    assert main(["evaluate", str(tmp_path / "out"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [t["value"] for t in again["tasks"]] == [
        pytest.approx(t["value"], abs=1e-4) for t in report["tasks"]
    ]
    assert main(["evaluate", str(family / "m0"), "--task", str(family / "t0.yaml")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("t0: f1 ")
    assert "  yes " in said
    code = main(["evaluate", str(family / "m1"), "--task", str(family / "t1.yaml"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert set(found) == {"task", "likelihood", "examples", "interval", "classes"}


def test_what_a_model_cannot_be_asked_is_refused(family, tmp_path):
    write_rows(tmp_path / "x.jsonl", ROWS)
    choices = tasks.load(family / "t0.yaml")
    text_cases.bert(2, ["a", "b"]).save_pretrained(tmp_path / "b")
    with pytest.raises(InputError, match=r"a causal or an encoder-decoder.*found BertFor"):
        models.check(Checkpoint.open(tmp_path / "b"), choices)
    texts = tasks.load(
        write_task(tmp_path, "t", ROWS, ROWS, inputs=["question"], classes=["a", "b"])
    )
    with pytest.raises(InputError, match=r"a classifier of texts.*found T5For"):
        models.check(Checkpoint.open(family / "m0"), texts)


def test_the_pad_token_is_the_models_own(case):
    name, folder, _ = case
    facts = models.facts_of(folder)
    assert facts.pad == (END if name == "gpt2" else PAD)
    assert facts.positions == (None if name == "t5" else 32)
    assert max(NUMBER.values()) < VOCABULARY
