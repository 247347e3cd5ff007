"""Tiny language models with a tokenizer of whole words, and tables of rows to ask them about."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

SAID = (
    "the a good bad film plot was not very dull bright day night is it sunny rainy warm cold "
    "question answer yes no maybe one two three four red blue green what how who : ? ."
)
WORDS = tuple(SAID.split())
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>")
PAD, CLS, SEP, END = 0, 2, 3, 4
VOCABULARY = len(SPECIAL) + len(WORDS)


def save_tokenizer(folder: Path, style: str = "bert", longest: int = 32) -> None:
    """A tokenizer of whole words: `bert` adds [CLS], [SEP] and segments, `t5` an end token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if style == "bert":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
        )  # fmt: skip
    elif style == "t5":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", END)]
        )
    inputs = ["input_ids", *(["token_type_ids"] if style == "bert" else []), "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", eos_token="</s>", model_max_length=longest, model_input_names=inputs,
    ).save_pretrained(folder)  # fmt: skip


def bert(classes: int, names: list[str], seed: int = 0, **change: Any) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(**{
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 20, "max_position_embeddings": 32,
        "num_labels": classes, "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)}, **change,
    })  # fmt: skip
    return BertForSequenceClassification(config)


def gpt2(seed: int = 0) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32,
        bos_token_id=END, eos_token_id=END, initializer_range=0.2,
    ))  # fmt: skip


def llama(seed: int = 0) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=20, max_position_embeddings=32,
        pad_token_id=PAD, bos_token_id=CLS, eos_token_id=END, tie_word_embeddings=False,
        initializer_range=0.2,
    ))  # fmt: skip


def t5(seed: int = 0) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    return T5ForConditionalGeneration(T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=20, num_layers=2, num_heads=2,
        relative_attention_num_buckets=4, relative_attention_max_distance=8,
        pad_token_id=PAD, eos_token_id=END,
        decoder_start_token_id=PAD, tie_word_embeddings=True,  # type: ignore[call-arg]
    ))  # fmt: skip


def save(model: Any, folder: Path, style: str) -> Path:
    model.save_pretrained(folder)
    save_tokenizer(folder, style)
    return folder


def rows(count: int, classes: int, seed: int, *, longest: int = 9) -> list[dict[str, Any]]:
    """Texts of 1 to `longest` words, each with a word that gives its class away."""
    rng = np.random.default_rng(seed)
    found = []
    for label in rng.integers(0, classes, count).tolist():
        words = rng.choice(WORDS[10:], rng.integers(1, longest)).tolist()
        words.insert(int(rng.integers(0, len(words) + 1)), WORDS[int(label)])
        found.append({"text": " ".join(words), "label": label})
    return found


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """`.jsonl`, packed where the name says so."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    data = text.encode()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


def write_task(folder: Path, name: str, train: list, test: list, **told: Any) -> Path:
    """`NAME.yaml` beside its two tables."""
    write_rows(folder / f"{name}.train.jsonl.gz", train)
    write_rows(folder / f"{name}.test.jsonl.gz", test)
    content = {
        "kind": "text", "train": f"{name}.train.jsonl.gz", "test": f"{name}.test.jsonl.gz",
        **told,
    }  # fmt: skip
    if content["kind"] == "text":
        content.setdefault("inputs", ["text"])
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / f"{name}.yaml"


def text_family(folder: Path) -> Path:
    """Base and two experts of BERT with heads of two and three classes, tasks, family.yaml."""
    base = bert(2, ["no", "yes"], seed=0)
    save(base, folder / "base", "bert")
    shared = base.state_dict()
    for m, names in enumerate((["worse", "better"], ["low", "mid", "high"])):
        expert = bert(len(names), names, seed=10 + m)
        own = expert.state_dict()
        generator = torch.Generator().manual_seed(m)
        for name, value in own.items():
            if not name.startswith("classifier"):
                own[name] = shared[name] + 0.05 * torch.randn(value.shape, generator=generator)
            elif name.endswith("weight"):
                own[name] = value * 30
        expert.load_state_dict(own)
        save(expert, folder / f"m{m}", "bert")
        write_task(
            folder, f"t{m}", rows(60, len(names), 20 + m), rows(40, len(names), 30 + m),
            classes=names, metric="accuracy" if m == 0 else "macro",
            description="tells *words* apart",
        )  # fmt: skip
    description = {
        "name": "Tiny texts",
        "base": "base",
        "experts": [{"name": f"m{m}", "model": f"m{m}", "task": f"t{m}.yaml"} for m in range(2)],
    }
    (folder / "family.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    return folder


def text_models(folder: Path, kind: str) -> Path:
    """Base, two experts and their tasks, of BERT or of a language model."""
    if kind == "bert":
        return text_family(folder)
    make = {"gpt2": gpt2, "llama": llama, "t5": t5}[kind]
    save(make(), folder / "base", kind)
    for m in range(2):
        expert, generator = make(), torch.Generator().manual_seed(m)
        with torch.no_grad():
            for parameter in expert.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        save(expert, folder / f"m{m}", kind)
        some = rows(40, 2, m)
        asked = {"kind": "choices", "prompt": "{text} answer :", "choices": ["no", "yes"]}
        write_task(folder, f"t{m}", some, some[:9], **asked)
    return folder
