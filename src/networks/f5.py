"""What surrounds F5-TTS's transformer: the published models' text symbols, the vocoder, the sampler.

Upstream: `f5_tts/model/utils.py` (text, pruned time grids) and `f5_tts/model/cfm.py` (sampler).
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from networks.dit import DiT

VOCOS_RATE = 24_000
# Time grids for few steps, in 32nds; other numbers of steps are even.
PRUNED = {
    5: [0, 2, 4, 8, 16, 32],
    6: [0, 2, 4, 6, 8, 16, 32],
    7: [0, 2, 4, 6, 8, 16, 24, 32],
    10: [0, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32],
    12: [0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32],
    16: [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32],
}
# In every checkpoint, but no weight of the network: the EMA's counters and old exports' front end.
SURPLUS = {
    "initted",
    "step",
    "mel_spec.mel_stft.mel_scale.fb",
    "mel_spec.mel_stft.spectrogram.window",
}


def pinyin(text: str) -> list[str]:
    """Text symbols of the published models: pinyin with tone for Chinese, else characters."""
    import jieba
    from pypinyin import Style, lazy_pinyin

    symbols: list[str] = []
    for word in jieba.cut(text.translate(str.maketrans(";“”‘’", ",\"\"''"))):
        if word.isascii():
            if symbols and len(word) > 1 and symbols[-1] not in " :'\"":
                symbols.append(" ")
            symbols.extend(word)
            continue
        # A wholly East Asian word is read as one, for its polyphones; a mixed one by character.
        for part in [word] if len(word.encode()) == 3 * len(word) else word:
            readings = lazy_pinyin(part, style=Style.TONE3, tone_sandhi=True, errors=list)
            for character, reading in zip(part, readings, strict=True):
                symbols += [" ", reading] if "\u3100" <= character <= "\u9fff" else [reading]
    return symbols


def read_vocabulary(path: Path) -> list[str]:
    """The symbols of a published `vocab.txt`, one a line, the space first.

    Raises ValueError if the first is not the space or two are equal.
    """
    symbols = path.read_text("utf-8").split("\n")
    symbols = symbols[:-1] if symbols[-1] == "" else symbols
    if symbols[0] != " " or len(set(symbols)) != len(symbols):
        raise ValueError(f"{path}: no vocabulary of F5-TTS (space first, every line different)")
    return symbols


def published_weights(path: Path) -> dict[str, Tensor]:
    """The transformer's tensors of a published safetensors file (the EMA's), in float32.

    Whatever is neither the transformer's nor known to be surplus stays, for a strict load to name.
    """
    tensors = {key.removeprefix("ema_model."): value for key, value in load_file(path).items()}
    return {
        key.removeprefix("transformer."): value.float()
        for key, value in tensors.items()
        if key not in SURPLUS
    }


@lru_cache
def _vocos_mel() -> MelSpectrogram:
    return MelSpectrogram(VOCOS_RATE, n_fft=1024, hop_length=256, n_mels=100, power=1.0)


def vocos_mel(samples: Tensor) -> Tensor:
    """Log-mel spectrogram [T, 100] of samples [N] at 24 kHz, what the vocoder reads.

    Magnitude, HTK scale, no filter norm, centred, natural log, floor 1e-5 (`model/modules.py`).
    """
    return _vocos_mel()(samples).clamp_min(1e-5).log().T


@lru_cache
def vocos_model(source: str = "charactr/vocos-mel-24khz") -> nn.Module:
    """The vocoder of the published models; a missing package is an error that names the remedy."""
    try:
        from vocos import Vocos
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("vocoder 'vocos': run `pip install vocos==0.1.0`") from error
    return Vocos.from_pretrained(source).eval()


def vocos(mel: Tensor) -> np.ndarray:
    """Waveform [N] at 24 kHz of a log-mel spectrogram [T, 100]."""
    with torch.inference_mode():
        return vocos_model().decode(mel.T[None])[0].numpy()


def noise(seed: int, frames: int, bands: int) -> Tensor:
    """Gaussian noise [T, bands] of one sample; a longer one of the same seed begins with it."""
    # Torch fills 16 values at a time and redraws an incomplete rest: whole blocks keep the prefix.
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(-(-frames // 16) * 16, bands, generator=generator)[:frames]


def spread(symbols: int, frames: int) -> Tensor:
    """Which of `symbols` each of `frames` hears, evenly: [T]."""
    return torch.arange(frames) * symbols // max(1, frames)


def spread_by(durations: Tensor, frames: int) -> Tensor:
    """Which symbol each of `frames` hears if symbols last as long as `durations` [L] say: [T].

    Symbols without a duration (stress, tones) are heard by no frame of their own.
    """
    ends = durations.cumsum(0)
    middles = (torch.arange(frames) + 0.5) / frames * ends[-1]
    return torch.searchsorted(ends, middles, right=True).clamp_max(len(durations) - 1)


def time_grid(steps: int, sway: float) -> Tensor:
    """Times [steps + 1] from 0 to 1; a negative `sway` moves them towards the noise."""
    even = torch.linspace(0, 1, steps + 1)
    times = torch.tensor(PRUNED[steps]) / 32 if steps in PRUNED else even
    return times + sway * (torch.cos(torch.pi / 2 * times) - 1 + times)


def euler(
    model: DiT,
    noise: Tensor,
    condition: Tensor,
    text: Tensor,
    mask: Tensor,
    text_frames: Tensor | None = None,
    *,
    times: Tensor,
    cfg: float,
) -> Tensor:
    """Follow the velocity from noise [B, N, C] to speech [B, N, C] by Euler steps along `times`.

    The other tensors as in `DiT.forward`. Guidance is c + cfg (c - u), where the unconditional u has
    neither audio nor text; 0 turns it off.
    """
    embedded = model.embed_text(text, mask, text_frames)
    if cfg:
        silent = model.embed_text(text, mask, text_frames, drop=True)
        embedded = torch.cat([embedded, silent])
        condition = torch.cat([condition, torch.zeros_like(condition)])
        mask = mask.repeat(2, 1)
    x = noise
    for time, step in zip(times, times.diff(), strict=False):
        both = x.repeat(2, 1, 1) if cfg else x
        velocity = model.velocity(both, condition, embedded, time.expand(len(both)), mask)
        if cfg:
            given, free = velocity.chunk(2)
            velocity = given + cfg * (given - free)
        x = x + step * velocity
    return x
