"""``load(save(x))`` gives x, and no damaged, foreign or hostile file gets past ``load``."""

from __future__ import annotations

import copy
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import espalier as es
from espalier.core import FileError, SetAttribute, Surgery
from espalier.graph import files
from espalier.graph.surgery.operate import operate

from .model_files import Tied, hashed, read, rewrite, state, state_on_disk, surgery


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


def test_equal_models_are_equal_files(dense: Tied, saved: Path, tmp_path: Path) -> None:
    for number in range(8):  # the library's own order of the metadata is another one every time
        es.save(es.load(saved, dense), tmp_path / f"{number}.safetensors")
    first, *others = (path.read_bytes() for path in sorted(tmp_path.glob("?.safetensors")))
    assert all(other == first for other in others)


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


@pytest.mark.parametrize("proof", ["float64", "float32", "shapes", "not proved"])
def test_the_proof_is_kept(dense: Tied, tmp_path: Path, proof: str) -> None:
    small = operate(dense, surgery((1, 2, 5)))
    small.espalier_proof = proof  # type: ignore[assignment]
    files.save(small, tmp_path / "small.safetensors")
    assert files.load(tmp_path / "small.safetensors", dense).espalier_proof == proof
    assert files.load(tmp_path / "small.safetensors", Tied).espalier_proof == proof


def test_what_was_not_proved_says_so(dense: Tied, saved: Path) -> None:
    assert files.load(saved, dense).espalier_proof == "not proved"
    files.save(dense, saved)
    assert not hasattr(files.load(saved, dense), "espalier_proof"), "nothing was cut"
    small = operate(dense, surgery((1, 2, 5)))
    small.espalier_proof = "I swear"  # type: ignore[assignment]
    files.save(small, saved)
    assert files.load(saved, dense).espalier_proof == "not proved"
    metadata = {name: text for name, text in read(saved).items() if name not in ("proof", "sha256")}
    save_file({n: t.clone() for n, t in state_on_disk(saved).items()}, saved, metadata=hashed(metadata))
    assert files.load(saved, dense).espalier_proof == "not proved", "a file of before proofs were kept"
    rewrite(saved, proof="by magic")
    with pytest.raises(FileError, match="its proof is 'by magic'"):
        files.load(saved, dense)


def test_a_real_cut_and_its_proof_survive_a_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    graph = es.trace(model, torch.randn(2, 4))
    for prove, proof in ((True, "float64"), (False, "not proved")):
        small = es.cut(model, graph, es.Plan({"0.weight:0": (0, 1, 5)}), prove=prove)
        es.save(small, tmp_path / "small.safetensors")
        assert small.espalier_proof == proof == es.load(tmp_path / "small.safetensors", model).espalier_proof


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
