"""Where models run, and what the machine does fast."""

import torch


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cpu_prefers_bf16() -> bool:
    """Whether bfloat16 is the faster way to multiply here: with AMX, or with AVX-512's instruction
    unless Intel's, which takes 1.7 times float32's time; elsewhere it is 100 times slower."""
    known = torch.cpu.get_capabilities()
    intel = known.get("cpu_name", "").startswith("Intel")
    return bool(known.get("amx_bf16") or (known.get("avx512_bf16") and not intel))


def precision() -> str:
    """bf16 where the device multiplies it faster than float32."""
    multiplies = cpu_prefers_bf16()
    if torch.cuda.is_available():
        multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if multiplies else "no"


def fast(wanted: bool = True) -> torch.autocast:
    """A context in which matrices multiply in bf16, if `wanted` and where that is faster."""
    return torch.autocast(
        default_device().type, torch.bfloat16, enabled=wanted and precision() == "bf16"
    )
