"""What the machine does fast."""

import torch


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is 100 times slower there."""
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
