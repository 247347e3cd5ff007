"""Tasks of lm-evaluation-harness: its own object words the rows, and they are answered as it would.

What needs the harness (the extra [lm-eval]) is left out where that is not installed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mats_core import tasks
from mats_core.checkpoints import Checkpoint
from mats_core.errors import InputError
from mats_core.evaluation import evaluate
from mats_core.models import tensors_of
from mats_core.tasks import loading
from tests.text_cases import gpt2, save

installed = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None and "CI" not in os.environ,
    reason="the extra [lm-eval] is not installed",
)
QUIZ = [
    {"q": "is it sunny", "opts": ["yes", "no"], "gold": 1},
    {"q": "is it cold", "opts": ["maybe", "no", "yes"], "gold": 0},
    {"q": "the film was", "opts": ["good", "not bad"], "gold": 1},
]
FORM: dict[str, Any] = {
    "output_type": "multiple_choice", "doc_to_text": "{{q}} ?", "doc_to_choice": "{{opts}}",
    "doc_to_target": "gold",
}  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and no cache of another test."""
    if importlib.util.find_spec("datasets"):
        from datasets import config

        monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def described(folder: Path, rows: list[dict[str, Any]] = QUIZ, **change: Any) -> Path:
    """A YAML of the harness beside its rows, which it names relative to itself."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {
        "task": "my_quiz", "dataset_path": "json", "training_split": "train", "test_split": "test",
        "dataset_kwargs": {"data_files": {"train": "rows.jsonl", "test": "rows.jsonl"}},
        **FORM, **change,
    }  # fmt: skip
    told = {key: value for key, value in told.items() if value is not None}
    (folder / "quiz.yaml").write_text(yaml.safe_dump(told))
    return folder / "quiz.yaml"


def rows_of(split: tasks.Split) -> list[tuple[str, ...]]:
    return [tuple(map(str, row)) for row in split.inputs]


@installed
def test_a_yaml_with_rows_beside_it(tmp_path):
    task = tasks.load("quiz.yaml", root=described(tmp_path / "own").parent)
    assert rows_of(task.test) == [
        ("is it sunny ?", " yes", " no", ""),
        ("is it cold ?", " maybe", " no", " yes"),
        ("the film was ?", " good", " not bad", ""),
    ]
    assert task.test.labels.tolist() == [1, 0, 1]
    assert (task.name, task.form.kind, task.form.metric) == ("quiz", "choices", "accuracy")
    assert task.classes == ("choice 1", "choice 2", "choice 3")


LONG = [
    {"q": "is it sunny", "opts": ["yes it is and has been", "no"], "gold": 1},
    {"q": "is it cold", "opts": ["maybe", "no", "yes, a naïve café’s é"], "gold": 2},
    {"q": "the film was", "opts": ["good", "not bad at all but long"], "gold": 1},
]


@installed
@pytest.mark.parametrize(
    ("metric", "delimiter"), [("acc", " "), ("acc_norm", " "), ("acc_bytes", " -> ")]
)
def test_the_answers_are_those_of_the_harness(tmp_path, metric, delimiter):
    """Every log-likelihood and answer, against `simple_evaluate` on the same model."""
    lm_eval = importlib.import_module("lm_eval")
    HFLM = importlib.import_module("lm_eval.models.huggingface").HFLM
    TaskManager = importlib.import_module("lm_eval.tasks").TaskManager
    from transformers import AutoTokenizer, GPT2LMHeadModel

    listed = [{"metric": name} for name in dict.fromkeys(["acc", metric])]
    file = described(tmp_path / "own", LONG, metric_list=listed, target_delimiter=delimiter)
    folder = save(gpt2(seed=5), tmp_path / "model", "gpt2")
    task = tasks.load(file)
    assert task.description.endswith(f": my_quiz, {metric}")
    said = evaluate.asked(folder, tensors_of(Checkpoint.open(folder)), task.test)
    ours = float((said.argmax(1).numpy() == task.test.labels).mean())
    config = yaml.safe_load(file.read_text())
    rows = str(file.parent / "rows.jsonl")
    config["dataset_kwargs"] = {"data_files": {"train": rows, "test": rows}}
    harness = TaskManager(include_defaults=False).load([config])["tasks"]["my_quiz"]
    model = HFLM(
        pretrained=GPT2LMHeadModel.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu", batch_size=1,
    )  # fmt: skip
    found = lm_eval.simple_evaluate(model, tasks=[harness], bootstrap_iters=0, log_samples=True)
    assert found["results"]["my_quiz"][f"{metric},none"] == pytest.approx(ours)
    for row, answers, sample in zip(said, LONG, found["samples"]["my_quiz"], strict=True):
        theirs = np.array([float(one[0][0]) for one in sample["resps"]])
        if metric == "acc_norm":
            theirs /= [len(answer) for answer in answers["opts"]]
        if metric == "acc_bytes":
            theirs /= [len(answer.encode("utf-8")) for answer in answers["opts"]]
        assert row[: len(theirs)].tolist() == pytest.approx(theirs.tolist(), abs=1e-4)
        assert sample[metric] == (theirs.argmax() == answers["gold"])


@installed
def test_without_training_rows_a_fifth_is_tested(tmp_path):
    rows = [{"q": f"row {k}", "opts": ["yes", "no"], "gold": k % 2} for k in range(20)]
    task = tasks.load(described(tmp_path / "own", rows, training_split=None))
    assert len(task.test) == 4
    assert len(task.train) + len(task.validation) == 16
    assert "has no training rows: 20% of its rows" in " ".join(task.notes)
    assert task.classes == ("yes", "no"), "the same in every row"


@installed
@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"output_type": "loglikelihood", "doc_to_choice": None, "doc_to_target": " {{opts[0]}}"},
         [("is it sunny ?", " yes"), ("is it cold ?", " maybe"), ("the film was ?", " good")]),
        ({"output_type": "loglikelihood_rolling", "doc_to_choice": None, "doc_to_text": "",
          "doc_to_target": "{{q}}"},
         [("", "is it sunny"), ("", "is it cold"), ("", "the film was")]),
    ],
)  # fmt: skip
def test_texts_that_follow(tmp_path, change, rows):
    task = tasks.load(described(tmp_path / "own", **change))
    assert task.form.kind == "language"
    assert rows_of(task.test) == rows


@installed
def test_examples_in_the_prompt(tmp_path):
    task = tasks.load(described(tmp_path / "own", num_fewshot=1, fewshot_split="train"))
    shown = rows_of(task.test)[0][0]
    assert shown.endswith("\n\nis it sunny ?")
    assert "1-shot" in task.description


@installed
def test_rows_whose_answer_is_hidden_are_left_out(tmp_path):
    task = tasks.load(described(tmp_path / "own", [*QUIZ, {**QUIZ[0], "gold": -1}]))
    assert len(task.test) == 3
    assert "1 test rows of task 'quiz' of lm_eval have no right answer" in " ".join(task.notes)


@installed
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output_type": "generate_until", "doc_to_choice": None}, "what a model writes"),
        ({"dataset_kwargs": {"data_files": {"train": "gone.jsonl"}}}, "can read, with its data"),
        ({"doc_to_text": "{{nothing}}"}, "can read|nothing"),
        ({"doc_to_target": "{{[0, 1]}}"}, "one right answer, found 2"),
        ({"doc_to_text": "{{cycler.__init__.__globals__.os.getcwd()}}"}, "can read|unsafe"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        tasks.load(described(tmp_path / "own", **change))


@installed
def test_names_that_are_no_task(monkeypatch):
    listed = importlib.import_module("lm_eval.tasks")
    # Reading the thousands of tasks that the harness has takes five seconds.
    monkeypatch.setattr(listed, "TaskManager", functools.cache(listed.TaskManager))
    for name, words in (("arc_eazy", "arc_easy"), ("mmlu_stem", "expected one task|can read")):
        with pytest.raises(InputError, match=words):
            tasks.load(f"lm_eval:{name}")


# Without the harness ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lm_eval:arc_easy", "own/quiz.yaml"])
def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, name):
    described(tmp_path / "own")
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    monkeypatch.setitem(__import__("sys").modules, "lm_eval.tasks", None)
    with pytest.raises(InputError, match=r"pip install lm-eval .*extra \[lm-eval\]"):
        tasks.load(name, root=tmp_path)


def test_code_beside_a_file_is_never_run(tmp_path):
    file = described(tmp_path / "own")
    file.write_text(file.read_text() + "process_docs: !function evil.run\n")
    (file.parent / "evil.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(InputError, match="without functions of its own"):
        tasks.load(file)


def test_a_form_is_told_from_its_keys_and_its_files_are_watched(tmp_path):
    file = described(tmp_path / "own")
    assert loading.of_harness(file)
    assert set(loading.files("quiz.yaml", file.parent)) == {file, file.parent / "rows.jsonl"}
    (tmp_path / "ours.yaml").write_text("kind: text\ntrain: a\ntest: b\ninputs: [c]\n")
    assert not loading.of_harness(tmp_path / "ours.yaml")
    (file.parent / "more.yaml").write_text("include: quiz.yaml\ntask: more\n")
    assert set(loading.files("more.yaml", file.parent)) > {file.parent / "rows.jsonl"}


def test_a_yaml_of_the_harness_is_offered_as_it_stands(tmp_path):
    found = tasks.guessed(described(tmp_path / "own"), speaks=True)
    assert (found.kind, found.found) == ("ready", ())
