"""What the machine does fast."""

import torch


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is 100 times slower there."""
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def precision() -> str:
    """bf16 where the device multiplies it in hardware; elsewhere it is slower than float32."""
    multiplies = cpu_multiplies_bf16()
    if torch.cuda.is_available():
        multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if multiplies else "no"


def fast(wanted: bool = True) -> torch.autocast:
    """A context in which matrices multiply in bf16, if `wanted` and where that is faster."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(kind, torch.bfloat16, enabled=wanted and precision() == "bf16")
