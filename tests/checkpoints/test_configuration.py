"""config.json in the forms in which it is found: read where the meaning is clear, else named."""

from __future__ import annotations

import json

import pytest

from mats_core.checkpoints.configuration import read_config
from mats_core.errors import InputError

NAMES = {"0": "negative", "1": "neutral", "2": "positive"}
READ = {
    "as transformers writes it": ({"id2label": NAMES}, {"id2label": NAMES}),
    "a list": ({"id2label": ["negative", "neutral", "positive"]}, {"id2label": NAMES}),
    "by name": ({"id2label": {"negative": 0, "neutral": 1, "positive": "2"}}, {"id2label": NAMES}),
    "null": ({"id2label": None, "label2id": None}, {}),
    "numbers for names": ({"id2label": {"0": 1, "1": 2}}, {"id2label": {"0": "1", "1": "2"}}),
    "one class as a text": ({"architectures": "BertModel"}, {"architectures": ["BertModel"]}),
    "no class": ({"architectures": None}, {}),
    "sizes as texts": ({"hidden_size": "16", "vocab_size": " 30 "},
                       {"hidden_size": 16, "vocab_size": 30}),
    "a switch as a text": ({"tie_word_embeddings": "False"}, {"tie_word_embeddings": False}),
    "a version stays a text": ({"transformers_version": "4"}, {"transformers_version": "4"}),
    "no model type": ({"model_type": None}, {"model_type": None}),
}  # fmt: skip
REFUSED = {
    "id2label is a number": ({"id2label": 5}, "id2label"),
    "id2label names nothing": ({"id2label": {"a": "b"}}, "id2label"),
    "id2label by name, twice the same": ({"id2label": {"a": 0, "b": 0}}, "id2label"),
    "architectures is a number": ({"architectures": 5}, "architectures"),
    "architectures of lists": ({"architectures": [["x"]]}, "architectures"),
    "model_type is a list": ({"model_type": ["bert"]}, "model_type"),
    "a list": ([1], "a list"),
    "null": (None, "null"),
    "a text": ("bert", "text"),
}


@pytest.mark.parametrize("name", READ)
def test_forms_with_a_clear_meaning(tmp_path, name):
    content, found = READ[name]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert read_config(tmp_path / "config.json") == found


@pytest.mark.parametrize("name", REFUSED)
def test_others_name_file_and_key(tmp_path, name):
    content, word = REFUSED[name]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"config\.json'.*") as caught:
        read_config(tmp_path / "config.json")
    assert word in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, "\0", "{'a': 1}"])
def test_what_is_no_json(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="JSON") as caught:
        read_config(tmp_path / "config.json")
    assert len(str(caught.value)) < 1000


def test_a_byte_order_mark_is_read_over(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', "utf-8-sig")
    assert read_config(tmp_path / "config.json") == {"model_type": "bert"}
