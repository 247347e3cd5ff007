"""Tiny models of many architectures, from configurations, and a batch for each.

Texts have different lengths and real padding, sequences of one batch are no multiple of its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as T
from torch import Tensor, nn

EXAMPLES = 5
LENGTHS = (7, 4, 6, 7, 5)
SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "vocab_size": 50, "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
DECODER = {**SMALL, "num_key_value_heads": 1, "head_dim": 8}
PICTURES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 16, "patch_size": 4,
}  # fmt: skip
SEQ2SEQ = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": 50,
    "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A class of transformers with its configuration.

    kind  `text`: classes of texts, `tokens`: the next token, `image`, `speech`, or `pairs`
    slow  whether some of it is measured example by example; None: either
    """

    model: str
    config: str
    settings: Mapping[str, Any]
    kind: str
    slow: bool | None = None
    dtype: torch.dtype = torch.float64

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        config = getattr(T, self.config)(**self.settings)
        model = getattr(T, self.model)(config).to(self.dtype).eval()
        random = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=random, dtype=self.dtype)
                parameter.add_(0.2 * noise)
        return model

    def batch(self) -> tuple[dict[str, Tensor], Tensor]:
        return BATCHES[self.kind]()


def _ids(seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    longest = max(LENGTHS)
    mask = torch.tensor([[1] * n + [0] * (longest - n) for n in LENGTHS])
    return torch.randint(3, 50, mask.shape, generator=random) * mask, mask


def text() -> tuple[dict[str, Tensor], Tensor]:
    ids, mask = _ids(1)
    return {"input_ids": ids, "attention_mask": mask}, torch.arange(EXAMPLES) % 2


def tokens() -> tuple[dict[str, Tensor], Tensor]:
    ids, mask = _ids(2)
    truth = torch.full_like(ids, -100)
    truth[:, :-1] = torch.where(mask[:, 1:] > 0, ids[:, 1:], -100)
    return {"input_ids": ids, "attention_mask": mask}, truth


def pairs() -> tuple[dict[str, Tensor], Tensor]:
    ids, mask = _ids(3)
    random = torch.Generator().manual_seed(4)
    answers = torch.randint(3, 50, (EXAMPLES, 4), generator=random)
    inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": answers,
              "decoder_attention_mask": torch.ones_like(answers)}  # fmt: skip
    return inputs, torch.randint(3, 50, (EXAMPLES, 4), generator=random)


def image() -> tuple[dict[str, Tensor], Tensor]:
    random = torch.Generator().manual_seed(5)
    pixels = torch.randn(EXAMPLES, 3, 16, 16, generator=random, dtype=torch.float64)
    return {"pixel_values": pixels}, torch.arange(EXAMPLES) % 2


def pictures32() -> tuple[dict[str, Tensor], Tensor]:
    random = torch.Generator().manual_seed(5)
    pixels = torch.randn(EXAMPLES, 3, 32, 32, generator=random, dtype=torch.float64)
    return {"pixel_values": pixels}, torch.arange(EXAMPLES) % 2


def speech() -> tuple[dict[str, Tensor], Tensor]:
    random = torch.Generator().manual_seed(6)
    sound = torch.randn(EXAMPLES, 400, generator=random, dtype=torch.float64)
    return {"input_values": sound}, torch.arange(EXAMPLES) % 2


BATCHES: dict[str, Callable[[], tuple[dict[str, Tensor], Tensor]]] = {
    "text": text, "tokens": tokens, "pairs": pairs, "image": image, "image 32": pictures32,
    "speech": speech,
}  # fmt: skip
WAVE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8, "vocab_size": 20,
}  # fmt: skip
STAGES = {"image_size": 32, "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}

CASES = {
    "DeBERTa": Case(
        "DebertaForSequenceClassification", "DebertaConfig",
        {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, "text", True,
    ),
    "DeBERTa v2": Case(
        "DebertaV2ForSequenceClassification", "DebertaV2Config",
        {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, "text", True,
    ),
    "DeBERTa v3": Case(
        "DebertaV2ForSequenceClassification", "DebertaV2Config",
        {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
         "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_buckets": 8,
         "position_biased_input": False}, "text", True,
    ),
    "XLM-RoBERTa": Case(
        "XLMRobertaForSequenceClassification", "XLMRobertaConfig", SMALL, "text", False
    ),
    "ALBERT": Case(
        "AlbertForSequenceClassification", "AlbertConfig", {**SMALL, "embedding_size": 8}, "text",
    ),
    "ELECTRA": Case("ElectraForSequenceClassification", "ElectraConfig", SMALL, "text", False),
    "MPNet": Case("MPNetForSequenceClassification", "MPNetConfig", SMALL, "text", True),
    "ModernBERT": Case(
        "ModernBertForSequenceClassification", "ModernBertConfig",
        {**SMALL, "global_attn_every_n_layers": 2, "local_attention": 4}, "text", False,
    ),
    "XLNet": Case(
        "XLNetForSequenceClassification", "XLNetConfig",
        {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24, "vocab_size": 50}, "text", True,
    ),
    "Longformer": Case(
        "LongformerForSequenceClassification", "LongformerConfig",
        {**SMALL, "attention_window": 4, "type_vocab_size": 1}, "text",
    ),
    "BigBird": Case(
        "BigBirdForSequenceClassification", "BigBirdConfig",
        {**SMALL, "attention_type": "original_full"}, "text",
    ),
    "FNet": Case("FNetForSequenceClassification", "FNetConfig",
        {k: v for k, v in SMALL.items() if "heads" not in k}, "text"),
    "Gemma": Case("GemmaForCausalLM", "GemmaConfig", DECODER, "tokens", False),
    "Gemma 2": Case("Gemma2ForCausalLM", "Gemma2Config", DECODER, "tokens", False),
    "Gemma 3": Case("Gemma3ForCausalLM", "Gemma3TextConfig", DECODER, "tokens", False),
    "Mistral": Case("MistralForCausalLM", "MistralConfig", DECODER, "tokens", False),
    "Phi": Case("PhiForCausalLM", "PhiConfig", SMALL, "tokens", False),
    "Phi 3": Case("Phi3ForCausalLM", "Phi3Config", SMALL, "tokens", False),
    "Qwen 2": Case("Qwen2ForCausalLM", "Qwen2Config", DECODER, "tokens", False),
    "Qwen 3": Case("Qwen3ForCausalLM", "Qwen3Config", DECODER, "tokens", False),
    "Qwen 3 MoE": Case("Qwen3MoeForCausalLM", "Qwen3MoeConfig",
        {**DECODER, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
        "tokens", True, torch.float32),
    "Mixtral": Case("MixtralForCausalLM", "MixtralConfig",
        {**DECODER, "num_local_experts": 4}, "tokens", True, torch.float32),
    "OPT": Case("OPTForCausalLM", "OPTConfig",
        {**SMALL, "ffn_dim": 24, "word_embed_proj_dim": 16}, "tokens"),
    "Bloom": Case("BloomForCausalLM", "BloomConfig",
        {"vocab_size": 50, "hidden_size": 16, "n_layer": 2, "n_head": 2}, "tokens", False),
    "GPT-NeoX": Case("GPTNeoXForCausalLM", "GPTNeoXConfig", SMALL, "tokens", False),
    "Falcon": Case("FalconForCausalLM", "FalconConfig",
        SMALL, "tokens", False),
    "BART": Case("BartForConditionalGeneration", "BartConfig", SEQ2SEQ, "pairs"),
    "Marian": Case("MarianMTModel", "MarianConfig", SEQ2SEQ, "pairs"),
    "T5": Case("T5ForConditionalGeneration", "T5Config",
        {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 50,
         "decoder_start_token_id": 0, "eos_token_id": 1}, "pairs", True),
    "ConvNeXt": Case("ConvNextForImageClassification", "ConvNextConfig", STAGES, "image 32", True),
    "ConvNeXt v2": Case(
        "ConvNextV2ForImageClassification", "ConvNextV2Config", STAGES, "image 32", True
    ),
    "Swin": Case("SwinForImageClassification", "SwinConfig",
        {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2],
         "window_size": 4}, "image", True),
    "BEiT": Case("BeitForImageClassification", "BeitConfig",
        {**PICTURES, "use_relative_position_bias": True, "layer_scale_init_value": 0.1,
         "use_mean_pooling": True}, "image", True),
    "DINOv2": Case("Dinov2ForImageClassification", "Dinov2Config", PICTURES, "image"),
    "DINOv2, other size": Case("Dinov2ForImageClassification", "Dinov2Config",
        {**PICTURES, "image_size": 24}, "image", True),
    "DeiT": Case("DeiTForImageClassification", "DeiTConfig", PICTURES, "image", False),
    "SigLIP": Case("SiglipForImageClassification", "SiglipConfig",
        {"vision_config": PICTURES, "text_config": {**SMALL, "projection_size": 16}}, "image"),
    "MobileViT": Case("MobileViTForImageClassification", "MobileViTConfig",
        {"image_size": 32, "patch_size": 2, "hidden_sizes": [8, 8, 8], "num_hidden_layers": 1,
         "num_attention_heads": 2, "neck_hidden_sizes": [4, 8, 8, 8, 8, 8, 16]}, "image 32"),
    "ResNet": Case("ResNetForImageClassification", "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, "image 32", False),
    "MobileNet v2": Case("MobileNetV2ForImageClassification", "MobileNetV2Config",
        {"image_size": 32, "depth_multiplier": 0.2, "min_depth": 4}, "image 32"),
    "SegFormer": Case("SegformerForImageClassification", "SegformerConfig",
        {"image_size": 32, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1],
         "num_attention_heads": [1, 2, 2, 2]}, "image 32"),
    "wav2vec 2": Case(
        "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", WAVE, "speech", True
    ),
    "HuBERT": Case("HubertForSequenceClassification", "HubertConfig", WAVE, "speech", True),
}  # fmt: skip
