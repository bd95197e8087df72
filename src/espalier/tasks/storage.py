"""Where decoded images are kept: in memory where they fit, and on disk so that they are decoded once a machine."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..core.atomic import replacing
from .images import Encoded, Images
from .streaming import cores, mapped

_CHUNK_BYTES = 4 << 20  # a step of the progress bar, and what a worker process hands over at once
_CACHED_FROM = 4096  # images; fewer are decoded in a moment


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How images wait for their turn.

    Attributes:
        memory_bytes: a split is decoded as it is loaded and held if it takes at most this much; else its images are
            decoded batch by batch, by worker processes.
        workers: how many of those; one a core when None.
        cache: folder for decoded splits of many images, by a hash of their files; None keeps none. By default
            ``ESPALIER_CACHE`` (empty for none), or ``espalier`` in the user's own cache folder.
    """

    memory_bytes: int = 1 << 30
    workers: int | None = None
    cache: Path | None | str = "default"

    def hold(self, images: Images, what: str) -> Images:
        """Return encoded images as a tensor if that fits in memory; else, and anything else, as they are."""
        if not isinstance(images, Encoded) or images.decoded_bytes > self.memory_bytes:
            return images
        folder = cache_folder() if self.cache == "default" else self.cache
        if folder is None or len(images) < _CACHED_FROM:
            return _decoded(images, what)
        return _cached(images, Path(folder), what)

    def workers_for(self, *sources: Images) -> int:
        """Return how many processes should make batches of these images and targets."""
        if self.workers is not None:
            return self.workers
        return cores() if any(isinstance(source, Encoded) for source in sources) else 0


def cache_folder() -> Path | None:
    """Return the folder for what can be made again; None where the user wants none."""
    chosen = os.environ.get("ESPALIER_CACHE")
    if chosen is not None:
        return Path(chosen).expanduser() if chosen else None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    else:
        base = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "espalier"


def _decoded(images: Encoded, what: str) -> Tensor:
    """Decode all, by processes where there are many, with a progress bar on a terminal."""
    result = torch.empty(len(images), *images.shape, dtype=torch.uint8)
    chunks = torch.arange(len(images)).split(max(1, _CHUNK_BYTES * len(images) // images.decoded_bytes))
    workers = cores() if len(images) >= _CACHED_FROM else 0
    parts = mapped(_Part(images, chunks), len(chunks), workers)
    bar = track(parts, what, len(chunks), console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    for chunk, part in zip(chunks, bar, strict=True):
        result[chunk[0] : chunk[-1] + 1] = part
    return result


@dataclass(frozen=True, eq=False)
class _Part:
    """The images of one chunk, decoded."""

    images: Encoded
    chunks: tuple[Tensor, ...]

    def __call__(self, number: int) -> Tensor:
        return self.images[self.chunks[number]]


def _cached(images: Encoded, folder: Path, what: str) -> Tensor:
    """Return the decoded images from the cache, or decode them and leave them there.

    A cache that cannot be read or written, or whose content is not what it was, costs the time to decode and no more.
    """
    path = folder / f"images-{_key(images)}.safetensors"
    held = _load(path, (len(images), *images.shape))
    if held is None:
        held = _decoded(images, what)
        with suppress(OSError):  # read-only, or full; what was begun is removed
            folder.mkdir(parents=True, exist_ok=True)
            _save(held, path)
    return held


def _key(images: Encoded) -> str:
    """Name what was decoded, and by what."""
    return hashlib.sha256(f"{images.decoder()} {images.digest()}".encode()).hexdigest()[:40]


def _load(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    try:
        with safe_open(path, "pt") as file:
            images, digest = file.get_tensor("images"), (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    fits = images.dtype == torch.uint8 and tuple(images.shape) == shape and _hash(images) == digest
    return images if fits else None


def _save(images: Tensor, path: Path) -> None:
    with replacing(path) as temporary:
        save_file({"images": images}, temporary, {"sha256": _hash(images)})


def _hash(images: Tensor) -> str:
    return hashlib.sha256(images.numpy().data).hexdigest()
