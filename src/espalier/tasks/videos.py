"""Videos by index: encoded files, of which clips are decoded when asked for.

    clip = frames number start, start + stride, start + 2 stride, ...        a video that is too short begins again

A clip lies in the middle of its video, or at a random moment where training crops at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from ..core import FileError
from .augmentation.geometry import resized
from .images import Crops, Encoded


@dataclass(frozen=True, eq=False)
class EncodedVideos(Encoded):
    """Videos as the bytes of their files.

    Attributes:
        height, width: of every clip; videos of another shape are scaled so that they cover it, and cropped.
        frames: of a clip.
        stride: from one of them to the next.
    """

    height: int
    width: int
    frames: int = 16
    stride: int = 4

    @property
    def shape(self) -> tuple[int, ...]:
        """Colours, frames, height, width."""
        return 3, self.frames, self.height, self.width

    def settings(self) -> str:
        """Return all that the decoded bytes depend on beside the files and the decoder."""
        return f"video {self.frames}x{self.height}x{self.width} every {self.stride}"

    def decoder(self) -> str:
        """Return the versions of PyAV and of FFmpeg's codecs."""
        av = _pyav(self.place(0))
        return f"1 pyav {av.__version__} libavcodec {av.library_versions['libavcodec']}"

    def whole(self, row: int) -> Tensor:
        """Decode the clip in the middle of one."""
        clip = self._clip(row, 0.5)
        height, width = clip.shape[2:]
        share = min(height / self.height, width / self.width)
        h, w = max(1, round(self.height * share)), max(1, round(self.width * share))
        return self._fitted(resized(clip.flatten(0, 1), ((height - h) // 2, (width - w) // 2, h, w), self._size))

    def part(self, number: int, row: int, crops: Crops) -> Tensor:
        """Decode a random part of one: the same place in all frames, from a random moment on."""
        clip = self._clip(row, float(crops.times[number]))
        return self._fitted(crops.apply(number, clip.flatten(0, 1), self._size, labels=False))

    @property
    def _size(self) -> tuple[int, int]:
        return self.height, self.width

    def _fitted(self, clip: Tensor) -> Tensor:
        return clip.view(self.shape)

    def _clip(self, row: int, when: float) -> Tensor:
        """Return bytes (3, frames, height, width) at the video's own size; ``when`` is 0 for the first, 1 for the last.

        Raises:
            FileError: PyAV is not installed, or these bytes are no video that it can read.
        """
        place = self.place(row)
        av, content = _pyav(place), self.content(row)
        try:
            wanted = self._wanted(_said(av, content), when)
            found = dict(_decoded(av, content, set(wanted)))
            if len(found) < len(set(wanted)):  # it ends sooner than its header says
                wanted = self._wanted(_there(av, content), when)
                found = dict(_decoded(av, content, set(wanted)))
        except (av.FFmpegError, IndexError, ValueError) as error:
            raise FileError(f"{place} is not a video that can be read: {error}") from error
        if not found:
            raise FileError(f"{place} is a video without a frame")
        return torch.stack([torch.from_numpy(found[number]) for number in wanted]).permute(3, 0, 1, 2)

    def _wanted(self, count: int, when: float) -> list[int]:
        room = max(0, count - 1 - (self.frames - 1) * self.stride)
        start = min(room, int(when * (room + 1)))
        return [(start + self.stride * i) % max(1, count) for i in range(self.frames)]


def _said(av: Any, content: bytes) -> int:
    """Return how many frames a video's header says it has, or its packets where it says nothing."""
    with av.open(BytesIO(content)) as file:
        stream = file.streams.video[0]
        return stream.frames or sum(packet.size > 0 for packet in file.demux(stream))


def _there(av: Any, content: bytes) -> int:
    """Return how many frames can be decoded, from the first on."""
    count = 0
    with av.open(BytesIO(content)) as file, suppress(av.FFmpegError):
        for _ in file.decode(video=0):
            count += 1
    return count


def _decoded(av: Any, content: bytes, wanted: set[int]) -> Iterator[tuple[int, Any]]:
    """Yield the wanted frames by number, as bytes (height, width, 3)."""
    last = max(wanted)
    with av.open(BytesIO(content)) as file, suppress(av.FFmpegError):  # the end may be damaged: it is seen to be short
        for number, frame in enumerate(file.decode(video=0)):
            if number in wanted:
                yield number, frame.to_ndarray(format="rgb24")
            if number >= last:
                return


def _pyav(place: str) -> Any:
    """Return PyAV.

    Raises:
        FileError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise FileError(f"{place} needs PyAV: pip install 'espalier[video]'") from error
    return av
