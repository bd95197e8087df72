"""Which of oneDNN's kernels PyTorch calls: its library says so itself, on the standard output of the process."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import torch

_FREE = ("reorder",)  # a layout or a precision changes: no arithmetic of the network


def kernels_of(run: Callable[[], Any]) -> Counter[str]:
    """Return the kernels of one run with what they compute: ``convolution brg_conv_fwd:avx512_core_vnni u8``.

    Operators that PyTorch computes without oneDNN are not among them.
    """
    if not torch.backends.mkldnn.is_available():
        return Counter()
    with _standard_output() as said:
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            run()
        _flush()
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    return Counter(name for name in map(_kernel, lines) if name)


def _kernel(line: str) -> str:
    """Return the kernel that a line of oneDNN's tells of, or nothing.

    onednn_verbose,v1,primitive,exec,cpu,convolution,brg_conv_fwd:avx512_core,forward_inference,src:u8:... wei:s8:...
    """
    parts = line.split(",")
    if len(parts) < 9 or parts[2:4] != ["primitive", "exec"] or parts[5] in _FREE:
        return ""
    source = next((part for part in parts[8].split() if part.startswith("src")), "")
    return " ".join(part for part in (parts[5], parts[6], source.split(":")[1] if ":" in source else "") if part)


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    """Send what is written to file descriptor 1 into a file for a while: C code knows nothing of ``sys.stdout``."""
    with suppress(ValueError, OSError):
        sys.stdout.flush()
    _flush()
    with tempfile.TemporaryFile() as file:
        before = os.dup(1)
        try:
            os.dup2(file.fileno(), 1)
            yield file
        finally:
            _flush()
            os.dup2(before, 1)
            os.close(before)


def _flush() -> None:
    """Have the C library write what it holds back: its buffers are not Python's."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)
