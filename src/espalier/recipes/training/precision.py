"""Whether this machine computes in bfloat16, rather than converting to float32 and back."""

from __future__ import annotations

import torch

_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")  # Intel's and AMD's; Arm's, as PyTorch names them


def computes_in_bfloat16() -> bool:
    """Say whether the device that runs train on multiplies in bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.10 may not say
    return any(found.get(name, False) for name in _INSTRUCTIONS)
