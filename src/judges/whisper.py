"""Whisper, batched: the audio context is as short as the clip allows, the decoding greedy."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from intp.audio import SAMPLE_RATE
from intp.device import cpu_prefers_bf16, default_device
from judges.base import JudgeError, checked
from judges.decoding import GreedyDecoder

LONGEST = 30.0  # seconds that Whisper can hear at once
MARGIN = 0.5  # seconds of silence that follow a clip
SPARE_TOKENS = 8
MULTILINGUAL = 51865  # the smallest vocabulary with language tags
VERSION = "3"


class WhisperRecogniser:
    """Any Whisper of transformers as a judge; see `transcribe` for what it does and does not do."""

    def __init__(
        self,
        model: WhisperForConditionalGeneration,
        tokenizer: Tokenizer,
        name: str,
        *,
        context_seconds: float = 3.0,
        batch_size: int = 16,
        tokens_per_second: float | None = 14.0,
    ) -> None:
        """`context_seconds` is the shortest audio context; 30 is Whisper as published.

        `tokens_per_second` caps what a clip may say (None: Whisper's own 448 tokens).
        """
        self.device = default_device()
        self.model = model.to(self.device, fast_dtype(self.device)).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.features = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
        self.shortest, self.batch_size = min(context_seconds, LONGEST), batch_size
        self.tokens_per_second = tokens_per_second
        self.end = self._token("<|endoftext|>")
        self.banned = self._banned_tokens()
        nothing = np.zeros(SAMPLE_RATE, np.float32)
        silence = None if self.shortest == LONGEST else self._encode([nothing], LONGEST)[0]
        self.decoder = GreedyDecoder(self.model, silence)
        self.id = (
            f"{name} v{VERSION} context={context_seconds:g}s cap={tokens_per_second}/s"
            f" {str(self.model.dtype).removeprefix('torch.')}"
        )

    def transcribe(
        self, audio: Sequence[np.ndarray], languages: Sequence[str], progress: str | None = None
    ) -> list[str]:
        """One transcript a clip, in the language it is said to be in; forced, never detected.
        Code-switched speech is asked for in its matrix language ("mixed-en", "mixed-zh").

        The encoder sees a clip with half a second of silence after it, rounded up to whole seconds,
        so that what is heard in one clip does not depend on the others of its batch. A clip of more
        than 30 s is cut at its quietest points and the transcripts are joined. Silence is asked
        like speech: what Whisper makes up counts.
        Raises JudgeError for an unknown language or an empty or non-finite clip.
        """
        pieces = [
            (self._prefix(language), index, piece)
            for index, (clip, language) in enumerate(zip(checked(audio), languages, strict=True))
            for piece in split_at_pauses(clip, LONGEST)
        ]
        order = sorted(range(len(pieces)), key=lambda i: len(pieces[i][2]))
        batches = [
            order[start : start + self.batch_size]
            for start in range(0, len(order), self.batch_size)
        ]
        texts = [""] * len(pieces)
        for batch in tqdm(batches, progress, disable=progress is None):
            heard = self._tokens([pieces[i][2] for i in batch], [pieces[i][0] for i in batch])
            for i, tokens in zip(batch, heard, strict=True):
                texts[i] = self.tokenizer.decode(tokens).strip()
        joined: list[list[str]] = [[] for _ in audio]
        for (_, index, _), text in zip(pieces, texts, strict=True):
            joined[index].append(text)
        return [" ".join(parts) for parts in joined]

    def _tokens(self, clips: list[np.ndarray], prefixes: list[list[int]]) -> list[list[int]]:
        """What is heard in clips of at most 30 s, in order of length, after equally long prefixes."""
        encoded = []
        for context, alike in itertools.groupby(clips, key=self._context):
            encoded += self._encode(list(alike), context)
        most = self.model.config.max_target_positions - len(prefixes[0])
        limits = [most] * len(clips)
        if self.tokens_per_second is not None:
            seconds = [len(clip) / SAMPLE_RATE for clip in clips]
            limits = [min(most, SPARE_TOKENS + int(self.tokens_per_second * s)) for s in seconds]
        return self.decoder(encoded, prefixes, limits, self.end, self.banned)

    def _context(self, clip: np.ndarray) -> float:
        """The audio context in seconds that a clip [N] is heard in."""
        return min(LONGEST, max(self.shortest, math.ceil(len(clip) / SAMPLE_RATE + MARGIN)))

    @torch.inference_mode()
    def _encode(self, clips: list[np.ndarray], context: float) -> list[Tensor]:
        """Encoder states [T, D] of each clip in a context of T / 50 seconds."""
        mels = self.features(
            clips,
            sampling_rate=SAMPLE_RATE,
            max_length=round(context * SAMPLE_RATE),
            return_tensors="pt",
        ).input_features.to(self.device, self.model.dtype)
        encoder = self.model.model.encoder
        states = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mels)))).transpose(1, 2)
        states = states + encoder.embed_positions.weight[: states.shape[1]]
        for layer in encoder.layers:
            states = layer(states, None)
        return list(encoder.layer_norm(states))

    def _prefix(self, language: str) -> list[int]:
        """Tokens before the transcript; raises JudgeError for a language Whisper has no tag for.

        An English-only Whisper is asked without language and task, and for English alone.
        """
        tag = language.removeprefix("mixed-")
        if self.model.config.vocab_size < MULTILINGUAL:
            if language != "en":
                raise JudgeError(f"{language}: this Whisper knows English only")
            return [self._token("<|startoftranscript|>"), self._token("<|notimestamps|>")]
        words = ["<|startoftranscript|>", f"<|{tag}|>", "<|transcribe|>", "<|notimestamps|>"]
        return [self._token(word) for word in words]

    def _token(self, text: str) -> int:
        token = self.tokenizer.token_to_id(text)
        if token is None:
            raise JudgeError(f"{text}: not in Whisper's vocabulary; unknown language?")
        return token

    def _banned_tokens(self) -> dict[bool, Tensor]:
        """Tokens never chosen, at the first step (True) and later: `generate`'s, and timestamps."""
        config = self.model.generation_config
        stamps = range(self._token("<|notimestamps|>"), self.model.config.vocab_size)
        always = [*(config.suppress_tokens or []), *stamps]
        first = [*always, *(config.begin_suppress_tokens or [])]
        return {k: torch.tensor(v, device=self.device) for k, v in ((False, always), (True, first))}


def split_at_pauses(samples: np.ndarray, seconds: float) -> Iterator[np.ndarray]:
    """Cut [N] into even pieces of at most `seconds`, each cut in the quietest 0.2 s about there."""
    limit, window = round(seconds * SAMPLE_RATE), SAMPLE_RATE // 5
    while len(samples) > limit:
        middle, slack = len(samples) // math.ceil(len(samples) / (0.8 * limit)), limit // 10
        power = np.cumsum(np.square(samples[middle - slack : middle + slack], dtype=np.float64))
        cut = middle - slack + window // 2 + int((power[window:] - power[:-window]).argmin())
        yield samples[:cut]
        samples = samples[cut:]
    yield samples


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a CPU that multiplies it faster, else float32."""
    fast = device.type == "cpu" and cpu_prefers_bf16()
    return torch.bfloat16 if fast else torch.float32


def load_published(folder: str | Path) -> tuple[WhisperForConditionalGeneration, Tokenizer]:
    """A Whisper in the published layout: a folder or a name on the hub, `tokenizer.json` in it."""
    from transformers.utils import cached_file

    try:
        model = WhisperForConditionalGeneration.from_pretrained(folder)
        return model, Tokenizer.from_file(cached_file(folder, "tokenizer.json"))
    except (OSError, TypeError) as error:
        raise JudgeError(f"{folder}: neither a Whisper's folder nor on the hub: {error}") from error
