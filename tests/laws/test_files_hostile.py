"""No file, whatever its author wrote into it, reaches into a model or makes its layers lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from espalier.core import FileError
from espalier.graph import files

from .model_files import Tied, read, rewrite, state

HOSTILE = [
    ([{"op": "set", "module": "", "path": ["_modules"], "value": 1}], "private attribute"),
    ([{"op": "set", "module": "", "path": ["config", "__class__"], "value": 1}], "private attribute"),
    ([{"op": "set", "module": "", "path": ["forward"], "value": 1}], "no attribute"),
    ([{"op": "set", "module": "", "path": ["new"], "value": 1}], "no attribute"),
    ([{"op": "set", "module": "head", "path": ["in_features"], "value": 1.5}], "cannot become float"),
    ([{"op": "set", "module": "head", "path": ["in_features"], "value": True}], "cannot become bool"),
    ([{"op": "set", "module": "head", "path": ["in_features"], "value": "x"}], "no number"),
    ([{"op": "set", "module": "head", "path": ["in_features"], "value": [1]}], "cannot become tuple"),
    ([{"op": "set", "module": "head", "path": ["in_features"], "value": 10**400}], "64 bits"),
    ([{"op": "set", "module": "", "path": ["config"], "value": 1}], "cannot become int"),
    ([{"op": "set", "module": "", "path": ["config", "split", 1], "value": [1, "x"]}], "no number"),
    ([{"op": "set", "module": "nobody", "path": ["x"], "value": 1}], "no module"),
    ([{"op": "set", "module": "", "path": [], "value": 1}], "no attribute"),
    ([{"op": "slice", "tensor": "nobody", "dim": 0, "keep": [0], "size": 8}], "no tensor"),
    ([{"op": "slice", "tensor": "scale", "dim": False, "keep": [0], "size": 8}], "64 bits"),
    ([{"op": "slice", "tensor": "scale", "dim": 0, "keep": "01", "size": 8}], "no list"),
    ([{"op": "slice", "tensor": "scale", "dim": 1, "keep": [0], "size": 8}], "dimensions"),
    ([{"op": "slice", "tensor": "scale", "dim": 0, "keep": [8], "size": 8}], "in range"),
    ([{"op": "slice", "tensor": "scale", "dim": 0, "keep": [0, 0], "size": 8}], "distinct"),
    ([{"op": "slice", "tensor": "scale", "dim": 0, "keep": [0], "size": 10**12}], "expects size"),
    ([{"op": "slice", "tensor": "hidden", "dim": 0, "keep": [], "size": 8}], "at least one"),
    ([{"op": "exec", "code": "1"}], "unknown operation"),
    ([{"op": "slice"}], "KeyError"),
    ({"op": "slice"}, "TypeError"),
    ([], "shape"),
]


@pytest.mark.parametrize(("operations", "message"), HOSTILE)
def test_hostile_surgery_is_refused_before_the_model_is_touched(
    dense: Tied, saved: Path, operations: object, message: str
) -> None:
    before, attributes = state(dense), dict(vars(dense.config))
    rewrite(saved, surgery=json.dumps(operations))
    built = Tied()
    for given in (dense, lambda: built):
        with pytest.raises(FileError, match=message):
            files.load(saved, given)
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())
    assert vars(dense.config) == attributes and vars(built.config) == attributes and built.head.in_features == 8


def test_layers_that_would_contradict_their_weights_are_refused(dense: Tied, saved: Path) -> None:
    original, operations = saved.read_bytes(), json.loads(read(saved)["surgery"])
    set_ = {(one["module"], one["path"][-1]): one for one in operations if one["op"] == "set"}
    assert {("encode", "out_features"), ("norm", "num_features"), ("cell", "input_size")} <= set_.keys()
    for (module, name), one in set_.items():
        if module == "":  # the user's own config: what it means, only the model's Python knows
            continue
        others = [other for other in operations if other is not one]
        for hostile in (others, [*others, {**one, "value": 7}]):
            rewrite(saved, surgery=json.dumps(hostile))
            with pytest.raises(
                FileError, match=rf"contradicts itself: {module}\.{name} would be .*, and its tensors say 3"
            ):
                files.load(saved, dense)
            saved.write_bytes(original)
    rewrite(
        saved, surgery=json.dumps([*operations, {"op": "set", "module": "cell", "path": ["hidden_size"], "value": 3}])
    )
    with pytest.raises(FileError, match=r"cell\.hidden_size would be 3, and its tensors say 4"):
        files.load(saved, dense)


LAYERS = [
    (lambda: nn.Conv2d(4, 6, 3, groups=2), ["in_channels"], 8, "in_channels would be 8, and its tensors say 4"),
    (lambda: nn.ConvTranspose2d(4, 6, 3), ["out_channels"], 7, "out_channels would be 7, and its tensors say 6"),
    (lambda: nn.LayerNorm((4, 3)), ["normalized_shape", 1], 9, r"normalized_shape would be \(4, 9\), .* say \(4, 3\)"),
    (lambda: nn.LayerNorm((4, 3)), ["normalized_shape"], [4, 2], r"normalized_shape would be \(4, 2\)"),
    (lambda: nn.GroupNorm(2, 4), ["num_channels"], 6, "num_channels would be 6"),
    (lambda: nn.Embedding(5, 4), ["num_embeddings"], 50, "num_embeddings would be 50"),
    (lambda: nn.LSTM(3, 4), ["hidden_size"], 2, "hidden_size would be 2"),
    (lambda: nn.GRUCell(3, 4), ["input_size"], 2, "input_size would be 2"),
    (lambda: nn.MultiheadAttention(4, 2), ["kdim"], 2, "kdim would be 2"),
]


@pytest.mark.parametrize(("make", "path", "value", "message"), LAYERS)
def test_every_kind_of_layer_is_checked(make, path: list, value: object, message: str, tmp_path: Path) -> None:
    model = nn.ModuleDict({"layer": make()})
    files.save(model, tmp_path / "m.safetensors")
    files.load(tmp_path / "m.safetensors", model)
    change = {"op": "set", "module": "layer", "path": path, "value": value}
    rewrite(tmp_path / "m.safetensors", surgery=json.dumps([change]))
    with pytest.raises(FileError, match=message):
        files.load(tmp_path / "m.safetensors", model)


def test_hostile_metadata_is_refused(dense: Tied, saved: Path) -> None:
    original = saved.read_bytes()
    lists = json.loads(read(saved)["tensors"])
    for changes, message in [
        ({"espalier": "2"}, "format version"),
        ({"surgery": "[" * 100_000}, "cannot be read"),
        ({"surgery": '[{"op": "set", "module": "", "path": ["a"], "value": NaN}]'}, "cannot be read"),
        ({"tensors": json.dumps({**lists, "extra": ["float32", [1], "0"]})}, "no tensor 'extra'"),
        ({"tensors": json.dumps({k: v for k, v in lists.items() if k != "scale"})}, "also 'scale'"),
        ({"tensors": json.dumps({**lists, "scale": ["float64", [3], "0"]})}, "convert the model"),
        ({"tensors": json.dumps({**lists, "scale": ["float32", [3], "0"]})}, "does not match its SHA-256"),
        ({"aliases": "{}"}, "tie different"),
        ({"aliases": "[]"}, "cannot be read"),
    ]:
        rewrite(saved, **changes)
        with pytest.raises(FileError, match=message):
            files.load(saved, dense)
        saved.write_bytes(original)


def test_a_name_that_would_command_a_terminal_is_refused(dense: Tied, saved: Path) -> None:
    rewrite(saved, architecture="timm:\x1b[2Jgone")
    with pytest.raises(FileError, match="characters that cannot be shown") as refused:
        files.load(saved, dense)
    assert "\x1b" not in str(refused.value)
