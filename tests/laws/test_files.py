"""``load(save(x))`` gives x, and no damaged, foreign or hostile file gets past ``load``."""

from __future__ import annotations

import copy
import json
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from espalier.core import FileError, SetAttribute, Slice, Surgery
from espalier.graph import files
from espalier.graph.operate import operate


class Config:
    """A plain configuration object shared by two modules."""

    def __init__(self) -> None:
        self.width = 8
        self.split = (4, (8, 2))


class Tied(nn.Module):
    """Tied weights, an LSTM, every kind of buffer, a plain tensor and a config, in one small network."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.encode = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.cell = nn.LSTM(8, 4, batch_first=True)
        self.head = nn.Linear(8, 6, bias=False)
        self.same = nn.Linear(8, 6)
        self.same.weight = self.head.weight
        self.register_buffer("scale", torch.rand(8))
        self.register_buffer("hidden", torch.arange(8.0), persistent=False)
        self.plain = torch.arange(8.0)
        self.encode.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.encode(x)) * self.scale + self.hidden * self.plain
        z, _ = self.cell(y.reshape(-1, 1, self.config.width))
        return self.head(y) + self.same(y) + z.sum()


def surgery(keep: tuple[int, ...], size: int = 8) -> Surgery:
    """Return the cut of the width of ``Tied`` to ``keep``."""
    places = [
        "encode.weight:0",
        "encode.bias:0",
        "cell.weight_ih_l0:1",
        "head.weight:1",
        "scale:0",
        "hidden:0",
        "plain:0",
    ]
    places += [f"norm.{name}:0" for name in ("weight", "bias", "running_mean", "running_var")]
    slices = {}
    for place in places:
        tensor, dim = place.split(":")
        slices[tensor, int(dim)] = Slice(tensor, int(dim), keep, size)
    width = len(keep)
    attributes = [
        SetAttribute("encode", ("out_features",), width),
        SetAttribute("norm", ("num_features",), width),
        SetAttribute("cell", ("input_size",), width),
        SetAttribute("head", ("in_features",), width),
        SetAttribute("same", ("in_features",), width),
        SetAttribute("", ("config", "width"), width),
        SetAttribute("", ("config", "split", 1, 0), width),
    ]
    return Surgery(slices, {(a.module, a.path): a for a in attributes})


@pytest.fixture
def dense() -> Tied:
    torch.manual_seed(0)
    return Tied().eval()


@pytest.fixture
def saved(dense: Tied, tmp_path: Path) -> Path:
    files.save(operate(dense, surgery((1, 2, 5))), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def rewrite(path: Path, **changes: str) -> None:
    """Change metadata entries and put their hashes right: what a hostile author does."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    metadata |= changes
    hashed = {name: files._sha256(text.encode()) for name, text in metadata.items() if name != "sha256"}
    save_file(tensors, path, metadata=metadata | {"sha256": json.dumps(hashed)})


def test_a_saved_cut_comes_back_equal(dense: Tied, saved: Path) -> None:
    small = operate(dense, surgery((1, 2, 5)))
    torch.manual_seed(1)
    back = files.load(saved, Tied().eval())
    x = torch.randn(5, 6)
    assert torch.equal(back(x), small(x))
    assert back.espalier_surgery == small.espalier_surgery
    assert back.head.weight is back.same.weight
    assert not back.encode.bias.requires_grad and back.encode.weight.requires_grad
    assert back.hidden.tolist() == [1, 2, 5] and back.plain.tolist() == [1, 2, 5]
    assert back.config.width == 3 and back.config.split == (4, (3, 2))
    assert all(a is b for a, b in zip(back.cell._flat_weights, back.cell.parameters(), strict=True))


def test_load_accepts_a_factory_and_leaves_a_given_model_alone(dense: Tied, saved: Path) -> None:
    before = state(dense)
    files.load(saved, dense)
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())
    assert dense.config.width == 8 and not hasattr(dense, "espalier_surgery")
    assert files.load(saved, Tied).head.in_features == 3


def test_two_cuts_compose_through_a_file(dense: Tied, tmp_path: Path) -> None:
    once = operate(dense, surgery((1, 2, 5, 7)))
    twice = operate(once, surgery((0, 3), size=4))
    files.save(twice, tmp_path / "twice.safetensors")
    back = files.load(tmp_path / "twice.safetensors", Tied().eval())
    assert back.hidden.tolist() == [1, 7]
    x = torch.randn(3, 6)
    assert torch.equal(back(x), twice(x))
    assert torch.equal(operate(dense, surgery((1, 7)))(x), twice(x))


def test_in_place_equals_a_new_model_and_keeps_parameter_identity(dense: Tied) -> None:
    small = operate(dense, surgery((0, 3)))
    mine = copy.deepcopy(dense)
    weight = mine.head.weight
    assert operate(mine, surgery((0, 3)), inplace=True) is mine
    x = torch.randn(3, 6)
    assert torch.equal(mine(x), small(x)) and mine.head.weight is weight
    mine(x).sum().backward()
    assert weight.grad is not None and weight.grad.shape == (6, 2)


def test_numbers_of_every_kind_survive(tmp_path: Path) -> None:
    model = nn.Module()
    kinds = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    for i, dtype in enumerate(kinds):
        model.register_buffer(f"b{i}", torch.tensor([[0, 1], [1, 1]]).to(dtype).t())
    model.register_buffer("scalar", torch.tensor(3.5))
    model.register_buffer("empty", torch.zeros(0, 3))
    model.register_buffer("view", torch.arange(10)[2:4])
    whole = torch.arange(6.0)
    for name, view in {"whole": whole, "square": whole.view(2, 3), "left": whole[:4], "right": whole[2:]}.items():
        model.register_buffer(name, view)
    model.register_buffer("wide", torch.ones(1).expand(4))
    files.save(model, tmp_path / "m.safetensors")
    blank = nn.Module()
    for name, tensor in model.named_buffers():
        blank.register_buffer(name, torch.zeros(tensor.shape, dtype=tensor.dtype))
    back = files.load(tmp_path / "m.safetensors", blank)
    for name, tensor in model.named_buffers():
        assert torch.equal(tensor, back.get_buffer(name)) and tensor.dtype == back.get_buffer(name).dtype


def test_every_flipped_bit_is_found(dense: Tied, saved: Path) -> None:
    whole = saved.read_bytes()
    rng = random.Random(0)
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    places = [*range(8), *rng.sample(range(8, header), 300), *rng.sample(range(header, len(whole)), 150)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        saved.write_bytes(damaged)
        with pytest.raises(FileError):
            files.load(saved, dense)


def test_every_truncation_is_found(dense: Tied, saved: Path) -> None:
    whole = saved.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(FileError, match="truncated|damaged|longer"):
            files.load(saved, dense)


def test_foreign_files_are_refused(dense: Tied, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileError, match="No such file"):
        files.load(path, dense)
    with pytest.raises(FileError, match="cannot read"):
        files.load(tmp_path, dense)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(FileError, match="not one that Espalier wrote"):
        files.load(path, dense)
    torch.save(dense.state_dict(), path)
    with pytest.raises(FileError, match="not a safetensors file"):
        files.load(path, dense)
    path.write_bytes(struct.pack("<Q", 2**63) + b"{" * 100)
    with pytest.raises(FileError, match="longer than the file"):
        files.load(path, dense)


HOSTILE = [
    ([{"op": "set", "module": "", "path": ["_modules"], "value": 1}], "private attribute"),
    ([{"op": "set", "module": "", "path": ["config", "__class__"], "value": 1}], "private attribute"),
    ([{"op": "set", "module": "", "path": ["forward"], "value": 1}], "no attribute"),
    ([{"op": "set", "module": "", "path": ["new"], "value": 1}], "no attribute"),
    ([{"op": "set", "module": "head", "path": ["in_features"], "value": 1.5}], "cannot become float"),
    ([{"op": "set", "module": "head", "path": ["in_features"], "value": True}], "cannot become bool"),
    ([{"op": "set", "module": "head", "path": ["in_features"], "value": "x"}], "cannot become str"),
    ([{"op": "set", "module": "", "path": ["config"], "value": 1}], "cannot become int"),
    ([{"op": "set", "module": "", "path": ["config", "split", 1], "value": [1, "x"]}], "cannot become tuple"),
    ([{"op": "set", "module": "nobody", "path": ["x"], "value": 1}], "no module"),
    ([{"op": "set", "module": "", "path": [], "value": 1}], "no attribute"),
    ([{"op": "slice", "tensor": "nobody", "dim": 0, "keep": [0], "size": 8}], "no tensor"),
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


def read(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def test_another_architecture_is_refused_by_name(saved: Path) -> None:
    with pytest.raises(FileError, match="does not fit this Linear"):
        files.load(saved, nn.Linear(2, 2))
    with pytest.raises(FileError, match="returned str"):
        files.load(saved, lambda: "model")  # type: ignore[arg-type,return-value]
    with pytest.raises(FileError, match="es.model"):
        files.load(saved, "timm:resnet18")  # type: ignore[arg-type]
    with pytest.raises(FileError, match="already cut"):
        files.load(saved, files.load(saved, Tied))


def test_the_architecture_name_is_shown_not_built(dense: Tied, tmp_path: Path) -> None:
    dense.espalier_source = "timm:resnet50"  # type: ignore[assignment]
    files.save(dense, tmp_path / "named.safetensors")
    assert files.read_header(tmp_path / "named.safetensors").architecture == "timm:resnet50"
    with pytest.raises(FileError, match="saved from timm:resnet50"):
        files.load(tmp_path / "named.safetensors", nn.Linear(2, 2))


def test_what_safetensors_cannot_hold_is_refused(dense: Tied, tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return object()

    with pytest.raises(FileError, match="pt2"):
        files.save(torch.fx.symbolic_trace(nn.Linear(2, 2)), tmp_path / "g.safetensors")
    with pytest.raises(FileError, match="pickle"):
        files.save(Extra(2, 2), tmp_path / "e.safetensors")
    with pytest.raises(FileError, match="meta"):
        files.save(nn.Linear(2, 2, device="meta"), tmp_path / "m.safetensors")
    private = Surgery({}, {("", ("_x",)): SetAttribute("", ("_x",), 1)})
    dense._x = 2  # type: ignore[assignment]
    with pytest.raises(FileError, match="private"):
        files.save(operate(dense, private), tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(dense: Tied, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def broken(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(files, "save_file", broken)
    with pytest.raises(FileError, match="disk full"):
        files.save(dense, saved)
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == [saved.name]
