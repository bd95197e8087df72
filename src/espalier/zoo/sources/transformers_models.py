"""``transformers:TYPE``: a Hugging Face architecture with random weights, built from its configuration's defaults.

``transformers:tiny-TYPE`` is the same architecture in small: two layers, four heads, 64 wide. Nothing is ever
downloaded; a pretrained model comes from the user's own ``from_pretrained``.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from ...core import ModelError, UnknownNameError
from .extra import collection

_TINY = "tiny-"

# Fields of a configuration and what they are in small. Only those that a configuration has are set.
_TINY_FIELDS = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "n_embd", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "hidden_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"), 128),
    **dict.fromkeys(("ffn_hidden_size",), 256),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "num_kv_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads",), 2),
    **dict.fromkeys(("head_dim", "d_kv"), 16),
}
_TINY_VOCABULARY = 1024

_ENOUGH_TOKENS = 16
_FIRST_TOKEN = 3  # below it sit the padding, start and end marks of most vocabularies
_SAMPLES = 16_000  # of audio: one second


def names() -> list[str]:
    """Return the full names of the architectures."""
    return [f"transformers:{kind}" for kind in collection("transformers").CONFIG_MAPPING]


def build(name: str, pretrained: bool, classes: int | None) -> nn.Module:
    """Build an architecture with random weights and its usual head (a classifier when ``classes`` is given)."""
    transformers = collection("transformers")
    kind = name.removeprefix(_TINY)
    if kind not in transformers.CONFIG_MAPPING:
        raise UnknownNameError("model", f"transformers:{name}", names())
    if pretrained:
        raise ModelError(
            f"transformers:{name} names an architecture, not a set of weights: "
            "load the model with its own from_pretrained and pass the module"
        )
    config = _configuration(transformers, kind, small=name.startswith(_TINY), classes=classes)
    head = _head(transformers, config, classes)
    _check_fits_memory(head, config, kind)
    return head.from_config(config)


def example(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Return two random inputs by keyword: pixels, token ids, audio, or those that the model reads together."""
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    main = str(getattr(model, "main_input_name", "input_ids"))
    keys = [main]
    if main == "input_ids" and hasattr(config, "vision_config"):
        keys.append("pixel_values")
    inputs = {key: _input(key, config, generator) for key in keys}
    if getattr(config, "is_encoder_decoder", False) and main != "pixel_values":
        inputs["decoder_input_ids"] = _input("input_ids", config, generator)
    return inputs


def input_shape(name: str) -> None:
    """Return nothing: only the configuration of a built model tells what it reads."""


def _configuration(transformers: Any, kind: str, *, small: bool, classes: int | None) -> Any:
    """Return the defaults of a kind, with the cache for generation off: it is no part of the network."""
    defaults = transformers.AutoConfig.for_model(kind).to_dict()
    fields: dict[str, Any] = {"use_cache": False} if "use_cache" in defaults else {}
    if small:
        fields |= _tiny(defaults)
    if classes is not None:
        fields["num_labels"] = classes
        if defaults.get("pad_token_id") is None:
            fields["pad_token_id"] = 0  # a decoder's classifier reads the last token before the padding
    config = transformers.AutoConfig.for_model(kind, **fields)
    config.architectures = config.architectures or []  # from_config reads a list where a kind has several classes
    return config


def _tiny(defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that make a configuration small and keep its structure."""
    if isinstance(defaults.get("depths"), list):  # stages of growing width: their other fields follow from one another
        return {"depths": [1] * len(defaults["depths"])}
    fields: dict[str, Any] = {
        key: min(small, defaults[key]) for key, small in _TINY_FIELDS.items() if isinstance(defaults.get(key), int)
    }
    fields |= {k: _tiny(v) for k, v in defaults.items() if k in ("text_config", "vision_config") and v is not None}
    marks = [v for k, v in defaults.items() if k.endswith("token_id") and isinstance(v, int)]
    if max(marks, default=0) < _TINY_VOCABULARY < defaults.get("vocab_size", 0):
        fields["vocab_size"] = _TINY_VOCABULARY
    return fields


def _head(transformers: Any, config: Any, classes: int | None) -> Any:
    """Choose the automatic class: a classifier if classes are asked for, else what the architecture is used for."""
    classifiers = ["ImageClassification", "SequenceClassification", "AudioClassification"]
    if classes is not None:
        wanted = classifiers
    elif getattr(config, "is_encoder_decoder", False):
        wanted = ["Seq2SeqLM", "SpeechSeq2Seq"]
    elif type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        wanted = classifiers
    else:
        wanted = ["ImageClassification", "CausalLM", *classifiers[1:]]
    for task in wanted:
        head = getattr(transformers, f"AutoModelFor{task}")
        if type(config) in head._model_mapping:
            return head
    if classes is not None:
        raise ModelError(f"transformers:{config.model_type} has no classifier; leave classes out")
    return transformers.AutoModel


def _check_fits_memory(head: Any, config: Any, kind: str) -> None:
    """Refuse what would not fit this machine; on the meta device a model costs nothing to look at."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    with torch.device("meta"):
        model = head.from_config(config)
    needed = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > 0.8 * memory:
        raise ModelError(
            f"transformers:{kind} with its default configuration takes {needed / 1e9:.0f} GB, and this machine has "
            f"{memory / 1e9:.0f} GB; transformers:{_TINY}{kind} is the same architecture in small"
        )


def _input(key: str, config: Any, generator: torch.Generator) -> torch.Tensor:
    if key == "pixel_values":
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", None) or 224
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return torch.randn(2, getattr(vision, "num_channels", 3), height, width, generator=generator)
    if key == "input_values":
        return torch.randn(2, _SAMPLES, generator=generator)
    if key == "input_features":
        frames = 2 * getattr(config, "max_source_positions", 512)
        return torch.randn(2, getattr(config, "num_mel_bins", 80), frames, generator=generator)
    if key == "input_ids":
        vocabulary = getattr(getattr(config, "text_config", config), "vocab_size", _TINY_VOCABULARY)
        return torch.randint(_FIRST_TOKEN, vocabulary, (2, _ENOUGH_TOKENS), generator=generator)
    raise ModelError(f"no default example for the input {key!r} of {type(config).__name__}; give your own")
