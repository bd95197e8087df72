"""After a cut, a config says what the network has become, or a warning says that it does not."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import espalier as es
from espalier.core import EspalierWarning, Plan
from espalier.graph import Graph
from espalier.graph.file_size import FileSize
from espalier.graph.surgery.describing import Observation, describe_sizes
from espalier.zoo.sources import torchvision_operators

transformers = pytest.importorskip("transformers")

# kept units of the groups whose names hold a word: heads whole, everything else to half
UNIFORM: dict[str, dict[str, int]] = {
    "llama": {"embed_tokens": 32, "q_proj.weight:0.0": 1, "gate_proj": 64},
    "qwen3": {"embed_tokens": 32, "q_proj.weight:0.0": 1, "gate_proj": 64},
    "bert": {"word_embeddings": 32, "query.weight:0.0": 2, "intermediate": 64, "pooler": 32},
    "gpt2": {"wte": 32, "c_attn.weight:1.0": 2, "c_fc": 128},
    "vit": {"patch_embeddings": 32, "q_proj.weight:0.0": 2, "fc1": 64},
    "t5": {"q.weight:0.0": 2, "q.weight:0.1": 8, "v.weight:0.1": 8, "wi.weight": 64},
    "clip": {"class_embedding": 32, "patch_embedding": 32, "_proj.weight:0.0": 2, "fc1": 64},
}
AFTER: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1},
    "qwen3": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1},
    "bert": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2},
    "gpt2": {"n_embd": 32, "n_head": 2},
    "vit": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2},
    "t5": {"d_kv": 8, "d_ff": 64, "num_heads": 2},
    "clip": {"vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}},
}


def network(kind: str) -> tuple[Any, Any, Graph]:
    torch.manual_seed(0)
    model: Any = es.model(f"transformers:tiny-{kind}").eval()
    example = es.default_example(model, f"transformers:tiny-{kind}")
    return model, example, es.trace(model, example)


def plan_of(graph: Graph, counts: Mapping[str, int]) -> Plan:
    """Keep the last units of the groups whose names hold a word."""
    wanted = {name: n for name in graph.groups for word, n in counts.items() if word in name}
    counts = graph.feasible(wanted, held=wanted)
    keep = {name: tuple(range(graph.sizes[name] - n, graph.sizes[name])) for name, n in counts.items()}
    return Plan(keep, graph.fingerprint)


def logits(model: Any, example: Any) -> torch.Tensor:
    with torch.no_grad():
        return (model(**example) if isinstance(example, dict) else model(example))[0]


def holds(config: Any, values: Mapping[str, Any]) -> bool:
    return all(
        holds(getattr(config, name), value) if isinstance(value, dict) else getattr(config, name) == value
        for name, value in values.items()
    )


@pytest.mark.parametrize(
    "kind", [kind if kind in ("llama", "bert") else pytest.param(kind, marks=pytest.mark.slow) for kind in UNIFORM]
)
def test_a_uniform_cut_is_rebuilt_from_its_config(kind: str, tmp_path: Path) -> None:
    model, example, graph = network(kind)
    before = model.config.to_dict()
    small: Any = es.cut(model, graph, plan_of(graph, UNIFORM[kind]))  # a warning would fail the test
    assert small.espalier_notes == ()
    assert small.config is not model.config and model.config.to_dict() == before
    assert holds(small.config, AFTER[kind]) and not holds(model.config, AFTER[kind])
    after = small.config.to_dict()
    small.save_pretrained(tmp_path / "theirs")
    again = type(small).from_pretrained(tmp_path / "theirs").eval()
    assert_close(logits(again, example), logits(small, example))  # a file's memory may be aligned otherwise
    assert not torch.allclose(logits(small, example), logits(model, example))
    fresh = type(small)(copy.deepcopy(small.config))
    assert {n: p.shape for n, p in fresh.named_parameters()} == {n: p.shape for n, p in small.named_parameters()}

    es.save(small, tmp_path / "ours.safetensors")
    back: Any = es.load(tmp_path / "ours.safetensors", model)
    assert back.config.to_dict() == after and model.config.to_dict() == before
    assert torch.equal(logits(back, example), logits(small, example))


def test_fewer_queries_a_key_are_fine_and_decisions_stay_as_they_were() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=2, head_dim=8, use_cache=False,
    )  # fmt: skip
    model: Any = transformers.LlamaForCausalLM(config).eval()
    graph = es.trace(model, {"input_ids": torch.arange(3, 9)[None]})
    small: Any = es.cut(model, graph, plan_of(graph, {"q_proj.weight:0.1": 2}))
    assert small.config.num_attention_heads == 4 and small.config.num_key_value_heads == 2
    assert small.model.layers[0].self_attn.num_key_value_groups == 2
    with pytest.warns(EspalierWarning, match="num_key_value_groups, which is 4, and the config gives 1"):
        small = es.cut(model, graph, plan_of(graph, {"q_proj.weight:0.1": 1}))  # the code asks whether it is one
    assert small.model.layers[0].self_attn.num_key_value_groups == 4 and small.config.num_attention_heads == 2


def test_every_config_of_a_model_follows_its_copies_too() -> None:
    model, _, graph = network("t5")
    small: Any = es.cut(model, graph, plan_of(graph, UNIFORM["t5"]), prove=False)
    assert model.encoder.config is not model.config  # T5 gives each stack its own copy
    assert [one.config.d_ff for one in (small, small.encoder, small.decoder)] == [64, 64, 64]
    assert small.encoder.block[0].layer[0].SelfAttention.n_heads == 2


def test_configs_within_a_config_speak_of_their_own_towers(tmp_path: Path) -> None:
    torchvision_operators.declare()
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 40, "max_position_embeddings": 8, "eos_token_id": 2},
        vision_config={**tower, "image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    model: Any = transformers.CLIPModel(config).eval()
    example = {"input_ids": torch.arange(3, 11)[None], "pixel_values": torch.randn(1, 3, 16, 16)}
    graph = es.trace(model, example)
    counts = {name: 12 if name.startswith("text") else 20 for name in graph.groups if ".fc1." in name}
    small: Any = es.cut(model, graph, plan_of(graph, counts))
    sizes = small.config.text_config.intermediate_size, small.config.vision_config.intermediate_size
    assert sizes == (12, 20) and model.config.text_config.intermediate_size == 24
    assert small.text_model.config.intermediate_size == 12
    small.save_pretrained(tmp_path)
    assert_close(logits(type(small).from_pretrained(tmp_path).eval(), example), logits(small, example))


def test_generate_works_on_a_cut_llama(tmp_path: Path) -> None:
    model, _, graph = network("llama")
    small: Any = es.cut(model, graph, plan_of(graph, UNIFORM["llama"]))
    small.save_pretrained(tmp_path)
    again: Any = type(small).from_pretrained(tmp_path).eval()
    ids = torch.randint(3, 1000, (2, 7), generator=torch.Generator().manual_seed(1))
    settings = {"max_new_tokens": 6, "do_sample": False, "use_cache": True, "attention_mask": torch.ones_like(ids)}
    whole = small.generate(ids, **{**settings, "use_cache": False})
    assert whole.shape == (2, 13)
    for one in (small, again):
        assert torch.equal(one.generate(ids, **settings), whole)
        assert torch.equal(one.generate(ids, **settings, cache_implementation="static"), whole)


def test_unequal_layers_are_warned_of_and_saved_right(tmp_path: Path) -> None:
    model, example, graph = network("llama")
    plan = plan_of(graph, {"embed_tokens": 32, "layers.0.mlp.gate_proj": 64, "layers.1.mlp.gate_proj": 48})
    with pytest.warns(EspalierWarning) as caught:
        small: Any = es.cut(model, graph, plan)
    (note,) = small.espalier_notes
    assert str(caught[0].message) == note and caught[0].filename == __file__
    assert "config.intermediate_size would be 64 for model.layers.0.mlp" in note
    assert "48 for model.layers.1.mlp" in note and "hidden_size" not in note
    assert "save_pretrained" in note and "static cache" in note and "es.save" in note
    assert small.config.hidden_size == 32 and small.config.intermediate_size == 128
    es.save(small, tmp_path / "ours.safetensors")
    back: Any = es.load(tmp_path / "ours.safetensors", model)
    assert torch.equal(logits(back, example), logits(small, example)) and back.config.hidden_size == 32
    with pytest.warns(EspalierWarning, match="before this cut either"):
        again = es.trace(small, example)
        es.cut(small, again, plan_of(again, {"embed_tokens": 16}))


@pytest.mark.parametrize(
    ("kind", "counts", "reason"),
    [
        # which frequencies are left, no config can say; heads go, the width that they divide stays; nothing reads it
        ("llama", {"q_proj.weight:0.2": 4}, "rotary_emb.inv_freq has other values"),
        (
            "bert",
            {"_embeddings": 32, "query.weight:0.1": 8, "value.weight:0.1": 8, "pooler": 32},
            "scaling is 0.25, the config gives|attention_head_size is 8",
        ),
        ("bert", {"query.weight:0.0": 2}, "hidden_size would be 32 for"),
        ("gpt2", {"wte": 32, "c_attn.weight:1.0": 2, "c_fc": 100}, "has 100 where it gives"),
        ("dinov2", {"patch_embeddings": 32, "q_proj.weight:0.0": 2, "fc1": 128}, "mask_token has shape"),
    ],
)
def test_what_a_config_cannot_say_is_said(kind: str, counts: dict[str, int], reason: str) -> None:
    model, _, graph = network(kind)
    with pytest.warns(EspalierWarning, match=reason):
        es.cut(model, graph, plan_of(graph, counts), prove=False)


def test_what_was_asked_of_a_model_without_data_is_asked_again() -> None:
    model, _, graph = network("gemma")
    plan = plan_of(graph, {"embed_tokens": 32})
    FileSize(graph).of_plan(plan)  # looks at the skeleton
    with pytest.warns(EspalierWarning, match="embed_scale has other values"):
        es.cut(model, graph, plan, prove=False)


def test_cutting_twice_keeps_the_config_right(tmp_path: Path) -> None:
    model, example, graph = network("llama")
    once: Any = es.cut(model, graph, plan_of(graph, {"gate_proj": 96}))
    graph = es.trace(once, example)
    twice: Any = es.cut(once, graph, plan_of(graph, UNIFORM["llama"]))
    assert (once.config.intermediate_size, twice.config.intermediate_size) == (96, 64)
    es.save(twice, tmp_path / "twice.safetensors")
    back: Any = es.load(tmp_path / "twice.safetensors", model)
    assert back.config.to_dict() == twice.config.to_dict()
    assert torch.equal(logits(back, example), logits(twice, example))


def test_cutting_in_place_leaves_another_models_config_alone() -> None:
    model, example, graph = network("llama")
    other = type(model)(model.config)
    shared = model.config
    mine = es.cut_(model, graph, plan_of(graph, UNIFORM["llama"]))
    assert mine is model and model.config.hidden_size == 32 and model.model.config is model.config
    assert other.config is shared and shared.hidden_size == 64
    assert logits(model, example).shape == logits(other, example).shape


class Perceptron(nn.Module):
    """A network of the user's own, made from a namespace, with sizes in a list and one derived size."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        widths = [config.inputs, *config.widths]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.wide = nn.Linear(widths[-1], 2 * config.half)
        self.head = nn.Linear(2 * config.half, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return self.head(self.wide(x).relu())


def test_configs_of_ones_own_follow_too() -> None:
    model = Perceptron(SimpleNamespace(inputs=4, widths=[8, 6], half=5))
    graph = es.trace(model, torch.zeros(2, 4))
    counts = {"layers.0": 4, "layers.1": 5, "wide": 6}
    small: Any = es.cut(model, graph, plan_of(graph, counts))
    assert (small.config.widths, small.config.half) == ([4, 5], 3) and model.config.widths == [8, 6]
    with pytest.warns(EspalierWarning, match="wide.weight has 7 where|cannot be rebuilt"):
        es.cut(model, graph, plan_of(graph, {"wide": 7}))


def test_a_model_that_is_not_made_from_its_config_is_left_alone() -> None:
    class Plain(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.config = SimpleNamespace(width=width)
            self.body, self.head = nn.Linear(4, width), nn.Linear(width, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x).relu())

    model = Plain(8)
    graph = es.trace(model, torch.zeros(2, 4))
    small: Any = es.cut(model, graph, plan_of(graph, {"body": 4}))
    assert small.config.width == 8 and small.espalier_notes == ()


def test_nothing_random_is_drawn_and_nothing_warned_of_while_checking() -> None:
    model, _, graph = network("bert")
    state = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        es.cut(model, graph, plan_of(graph, UNIFORM["bert"]), prove=False)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_sizes_are_described_by_values_that_suit_all_places() -> None:
    a, b = ("attr", "", ("a",)), ("attr", "", ("b",))
    key_a, key_b = ("", ("a",)), ("", ("b",))
    originals = {key_a: 8, key_b: 2}
    product, quotient = ("*", a, b), ("//", a, b)
    seen = [Observation(product, 12, "x"), Observation(quotient, 3, "y"), Observation(a, 6, "z")]
    assert describe_sizes(seen, originals).values == {key_a: 6, key_b: 2}
    silent = ("*", b, ("//", a, b))  # 6 = b * (6 // b) says nothing of b
    seen = [Observation(silent, 6, "x"), Observation(a, 6, "z")]
    assert describe_sizes(seen, originals).values == {key_a: 6}
    apart = describe_sizes([Observation(a, 6, "x"), Observation(a, 5, "y"), Observation(product, 12, "z")], originals)
    assert not apart.values and apart.unequal == {key_a: {6: "x", 5: "y"}}
    broken = describe_sizes([Observation(a, 6, "x"), Observation(("*", a, ("const", 4)), 20, "y")], originals)
    assert [one.where for one in broken.broken] == ["y"]
