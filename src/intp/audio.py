"""Audio in and out: files, the log-mel front end (F5-TTS's recipe at 16 kHz) and Griffin-Lim."""

import io
import logging
from functools import lru_cache

import numpy as np
import soundfile
import torch
import torchaudio

SAMPLE_RATE = 16_000
N_FFT = 1024
HOP = 256
N_MELS = 100
MEL_FLOOR = 1e-5
FRAME_RATE = SAMPLE_RATE / HOP

log = logging.getLogger(__name__)


class AudioError(ValueError):
    """A recording that cannot be used; the message names the file and what is wrong with it."""


def check_audio(samples: np.ndarray, name: str) -> np.ndarray:
    """Return `samples` [N] as float32, or raise `AudioError` if empty, not finite or not mono."""
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1:
        raise AudioError(f"{name}: expected mono samples [N], got shape {samples.shape}")
    if samples.size == 0:
        raise AudioError(f"{name}: holds no samples")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds NaN or infinite samples; write it again")
    return samples


def mono(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """Samples [N] of a WAV, FLAC or Ogg file's bytes and their rate; channels are averaged, which is
    said in the log. Raises AudioError naming what cannot be decoded, is truncated or holds NaN."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, promised = file.samplerate, file.frames
            samples = file.read(dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name}: cannot be decoded ({error}); is it truncated?") from error
    # libsndfile reads a RIFF file that is shorter than its header says in silence.
    riff = int.from_bytes(data[4:8], "little") if data[:4] == b"RIFF" else 0
    if len(samples) < promised or (riff != 0xFFFFFFFF and len(data) < riff + 8):
        raise AudioError(f"{name}: truncated, the header promises more audio than there is")
    if samples.shape[1] > 1:
        log.warning("%s: %d channels averaged to mono", name, samples.shape[1])
    return check_audio(samples.mean(axis=1), name), rate


def decode(data: bytes, name: str) -> np.ndarray:
    """The same at 16 kHz: another rate is resampled, which is said in the log."""
    samples, rate = mono(data, name)
    if rate != SAMPLE_RATE:
        log.warning("%s: resampled from %d to %d Hz", name, rate, SAMPLE_RATE)
    return resample(samples, rate, SAMPLE_RATE)


def resample(samples: np.ndarray, found: int, rate: int) -> np.ndarray:
    """Resample [N] from `found` to `rate` Hz with torchaudio's windowed sinc."""
    resampled = torchaudio.functional.resample
    return samples if found == rate else resampled(torch.from_numpy(samples), found, rate).numpy()


@lru_cache
def _mel_transform() -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS, power=1.0
    )


def log_mel(samples: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Log-mel spectrogram of samples [N] at 16 kHz: [T, 100], T = N // 256 + 1.

    Magnitude, HTK scale, no filter norm, centred, natural log (F5-TTS `model/modules.py`).
    """
    samples = torch.as_tensor(samples, dtype=torch.float32)
    return _mel_transform()(samples).clamp_min(MEL_FLOOR).log().T


@lru_cache
def _inverse_mel() -> torch.Tensor:
    return torch.linalg.pinv(_mel_transform().mel_scale.fb)


def griffin_lim(mel: torch.Tensor, iterations: int = 32, seed: int = 0) -> np.ndarray:
    """Waveform [N] of a log-mel spectrogram [T, 100]: pseudo-inverse filter bank, then Griffin-Lim."""
    magnitude = (mel.float().exp() @ _inverse_mel()).clamp_min(0).T
    # A single token is shorter than the window: silence after it, cut off again below.
    magnitude = torch.nn.functional.pad(magnitude, (0, max(0, N_FFT // HOP - len(mel))))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wave = torchaudio.functional.griffinlim(
            magnitude, window=torch.hann_window(N_FFT), n_fft=N_FFT, hop_length=HOP,
            win_length=N_FFT, power=1.0, n_iter=iterations, momentum=0.99, length=None,
            rand_init=True,
        )  # fmt: skip
    wave = wave[: max(1, len(mel) - 1) * HOP]
    return (wave / wave.abs().max().clamp_min(1.0)).numpy()
