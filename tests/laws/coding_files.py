"""Small files of every kind of stream, and what damage and malice do to them."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from espalier import coding
from espalier.coding import Codebook, Uniform, binary, ternary

PROLOGUE = struct.Struct("<8sHHII")
CODERS = ("best", "packed", "static", "adaptive", "context", "huffman")


def every_kind() -> tuple[dict[str, Tensor], dict[str, Codebook | Uniform]]:
    """Return tensors, of every type and kind of stream, and what some are made of; the same ones every time."""
    random = Random(0)

    def normal(*shape: int) -> Tensor:  # sums of even numbers: exact, and so the same on every machine
        numbers = [sum(random.random() for _ in range(12)) - 6 for _ in range(math.prod(shape))]
        return torch.tensor(numbers, dtype=torch.float64).float().reshape(shape)

    integers = (3 * normal(16, 8, 3, 3)).round().clamp(-7, 7).to(torch.int8)  # the smallest that contexts take
    made: dict[str, Codebook | Uniform] = {
        f"grid.{coder}": Uniform(integers=integers[:4], step=normal(4).abs() / 8, coder=coder) for coder in CODERS
    }
    made["grid.context"] = Uniform(integers=integers, step=normal(16).abs() / 8, coder="context")
    made["grid.half"] = Uniform(integers=integers[:, :2], step=torch.tensor(0.125), dtype=torch.float16)
    made["grid.last"] = Uniform(integers=integers[0, 0], step=normal(3), axis=-1, dtype=torch.bfloat16)
    made["grid.sparse"] = Uniform(integers=integers.where(normal(16, 8, 3, 3) > 1.7, 0), step=torch.tensor(0.5))
    made["signs"] = binary(normal(8, 40) > 0, normal(8).abs())
    made["three"] = ternary(normal(4, 33).round().clamp(-1, 1), torch.tensor(0.5), torch.tensor(0.75))
    made["centroids"] = Codebook(symbols=integers.long() + 7, codebook=normal(15).sort().values)
    tensors = {name: value.value() for name, value in made.items()}
    tensors |= {"dense": normal(20, 30), "pruned": normal(25, 20) * (normal(25, 20) > 1.5), "scalar": torch.tensor(3.5)}
    tensors |= {"shared": torch.tensor([0.5, -0.0, float("nan")])[torch.arange(600) % 3], "none": torch.zeros(0, 5)}
    tensors |= {"zeros": torch.zeros(65, 70), "counter": torch.tensor(781), "flags": normal(77) > 0}
    for kind in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.complex64, torch.int32):
        tensors[str(kind)] = normal(11, 9).mul(9).to(kind)
    return tensors, made


def same(first: Tensor, second: Tensor) -> bool:
    """Say whether two tensors are the same bit by bit."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return first.numel() == 0 or bool(torch.equal(_bytes(first), _bytes(second)))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def written(path: Path) -> dict[str, Tensor]:
    """Write a file of every kind, and return what is in it."""
    tensors, made = every_kind()
    coding.encode(tensors, path, tensors=made, threads=1)
    return tensors


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header of a file and its streams."""
    _, _, how, stored, _ = PROLOGUE.unpack(data[: PROLOGUE.size])
    start = PROLOGUE.size + 32
    held = data[start : start + stored]
    return json.loads(zlib.decompress(held, -15) if how else held), data[start + stored :]


def joined(header: dict[str, Any], streams: bytes, **prologue: Any) -> bytes:
    """Return a file whose hash is right, whatever its header says: what a hostile author writes."""
    text = prologue.get("text") or json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    stored = prologue.get("stored", text)
    fixed = PROLOGUE.pack(
        b"\x89ESP\r\n\x1a\n", prologue.get("version", 1), prologue.get("how", 0), len(stored),
        prologue.get("length", len(text)),
    )  # fmt: skip
    return fixed + hashlib.sha256(fixed + stored).digest() + stored + streams


def resealed(stream: bytes) -> bytes:
    """Return a stream with a CRC that fits."""
    return stream[:-4] + zlib.crc32(stream[:-4]).to_bytes(4, "little")


def mutations(data: bytes, random: Random) -> Iterator[tuple[str, bytes]]:
    """Yield endless damaged and hostile versions of a file, and what was done to it."""
    header, streams = parts(data)
    while True:
        yield "bits", _flipped(data, random, random.choice((1, 1, 1, 2, 8)))
        yield "cut", data[: random.randrange(len(data))]
        yield "longer", data + random.randbytes(random.randrange(1, 40))
        yield "spliced", _spliced(data, random)
        yield "header", joined(_edited(header, random), streams)
        yield "stream", joined(header, _hostile_streams(header, streams, random))
        yield "sizes", joined(_resized(header, random), streams)


def _flipped(data: bytes, random: Random, count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _spliced(data: bytes, random: Random) -> bytes:
    start, size, to = random.randrange(len(data)), random.randrange(1, 64), random.randrange(len(data))
    return data[:to] + data[start : start + size] + data[to + random.choice((0, size)) :]


def _edited(header: dict[str, Any], random: Random) -> dict[str, Any]:
    """Change one thing that the header says; the hash will fit."""
    changed = json.loads(json.dumps(header))
    values = [None, -1, 0, 2**63, 1e300, "", "x", "\x1b[2J", [], {}, [[]], True, "float64", [2**40, 2**40]]
    one = random.choice(changed["tensors"])
    place = random.randrange(5)
    if place == 0:
        changed[random.choice(sorted(changed))] = random.choice(values)
    elif place == 1:
        changed["tensors"][random.randrange(len(changed["tensors"]))] = random.choice(values)
    elif place == 2:
        one[random.randrange(4)] = random.choice(values)
    elif place == 3:
        one[0] = random.choice(["\x07", "new", "a" * 300, changed["tensors"][0][0]])
    else:
        changed["surgery"] = [{"op": random.choice(["set", "slice", "exec"]), "value": random.choice(values)}]
    return changed


def _resized(header: dict[str, Any], random: Random) -> dict[str, Any]:
    """Let a tensor claim to be another one: of another type, or of many more elements."""
    changed = json.loads(json.dumps(header))
    one = random.choice(changed["tensors"])
    size = one[3] - 4
    one[2] = random.choice(
        [[4096 * size], [64, 64 * size], [4096 * size + 1], [2**62], [1] * 64, [size, 8, 8, 64], [0], [2**31, 2**31]]
    )
    one[1] = random.choice([one[1], "float64", "int8", "bool", "bfloat16", "complex64"])
    return changed


def _hostile_streams(header: dict[str, Any], streams: bytes, random: Random) -> bytes:
    """Change bytes of some streams, mostly of their beginnings, and let their CRCs fit."""
    found, at = [], 0
    for _, _, _, size in header["tensors"]:
        stream = streams[at : at + size]
        if random.random() < 0.2:
            changed = bytearray(stream)
            for _ in range(random.choice((1, 1, 2, 5))):
                place = random.randrange(min(len(stream) - 4, random.choice((6, 40, 10**6))))
                changed[place] = random.choice(
                    (0, 1, 2, 3, 4, 5, 127, 128, 255, changed[place] ^ 1, random.randrange(256))
                )
            stream = resealed(bytes(changed))
        found.append(stream)
        at += size
    return b"".join(found)
