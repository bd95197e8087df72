"""What instructions the processor has for numbers in vectors, by its own word."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

# flag in /proc/cpuinfo -> its name; later ones are wider or newer
_NAMES = {
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "sve": "SVE",
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_bf16": "AMX BF16",
    "amx_int8": "AMX INT8",
}


@cache
def instructions() -> tuple[str, ...]:
    """Return the names of those that decide how fast a network runs; none where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    return named(text)


def named(cpuinfo: str) -> tuple[str, ...]:
    """Return the names of what the text of /proc/cpuinfo lists.

    >>> named("flags : fpu sse avx2 avx512f avx512_vnni")
    ('AVX2', 'AVX-512', 'AVX-512 VNNI')
    """
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, flags=re.MULTILINE)
    flags = set(found.group(1).split()) if found else set()
    return tuple(name for flag, name in _NAMES.items() if flag in flags)
