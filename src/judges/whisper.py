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
from judges.base import JudgeError, checked, default_device

CONTEXTS = (8.0, 12.0, 16.0, 30.0)
MARGIN = 0.5  # seconds of silence after a clip in a shortened context, where speech may end
SPARE_TOKENS = 8
VERSION = "1"


class WhisperRecogniser:
    """Any Whisper of transformers as a judge; see `transcribe` for what it does and does not do."""

    def __init__(
        self,
        model: WhisperForConditionalGeneration,
        tokenizer: Tokenizer,
        name: str,
        *,
        context_seconds: float = CONTEXTS[0],
        batch_size: int = 16,
        tokens_per_second: float | None = 14.0,
        mixed_language: str = "zh",
        mixed_prompt: str = "",
    ) -> None:
        """`context_seconds` is the shortest audio context, 30 the only other choice of Whisper.

        `tokens_per_second` caps what a clip may say (None: Whisper's own 448 tokens); code-switched
        speech is heard as `mixed_language` after `mixed_prompt`.
        """
        self.device = default_device()
        self.model = model.to(self.device, fast_dtype(self.device)).eval()
        self.tokenizer = tokenizer
        self.features = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
        self.contexts = sorted({context_seconds, *(c for c in CONTEXTS if c > context_seconds)})
        self.batch_size = batch_size
        self.tokens_per_second = tokens_per_second
        self.mixed_language, self.mixed_prompt = mixed_language, mixed_prompt
        self.end = self._token("<|endoftext|>")
        self.banned = self._banned_tokens()
        self.id = (
            f"{name} v{VERSION} context={context_seconds:g}s cap={tokens_per_second}/s"
            f" mixed={mixed_language}{':' + mixed_prompt if mixed_prompt else ''}"
            f" {str(self.model.dtype).removeprefix('torch.')}"
        )

    def transcribe(
        self, audio: Sequence[np.ndarray], languages: Sequence[str], progress: str | None = None
    ) -> list[str]:
        """One transcript a clip, in the language it is said to be in; forced, never detected.

        Clips share a batch if they fit the same context, so that what is heard in one does not
        depend on the others. A clip of more than 30 s is cut at its quietest points and the
        transcripts are joined. Silence is asked like speech: what Whisper makes up counts.
        Raises JudgeError for an unknown language or an empty or non-finite clip.
        """
        clips = checked(audio)
        pieces = [
            (language, self._context(len(piece)), len(piece), index, piece)
            for index, (clip, language) in enumerate(zip(clips, languages, strict=True))
            for piece in split_at_pauses(clip, self.contexts[-1])
        ]
        # Stable, so that the pieces of one clip that share a batch stay in their order.
        numbered = sorted(enumerate(pieces), key=lambda item: item[1][:3])
        batches = [
            group[start : start + self.batch_size]
            for _, alike in itertools.groupby(numbered, key=lambda item: item[1][:2])
            for group in [list(alike)]
            for start in range(0, len(group), self.batch_size)
        ]
        texts: dict[int, str] = {}
        for batch in tqdm(batches, progress, disable=progress is None):
            language, context = batch[0][1][:2]
            heard = self._transcribe_batch([p[4] for _, p in batch], language, context)
            texts.update(zip((number for number, _ in batch), heard, strict=True))
        joined: list[list[str]] = [[] for _ in clips]
        for number, piece in enumerate(pieces):
            joined[piece[3]].append(texts[number].strip())
        return [" ".join(parts) for parts in joined]

    def _context(self, samples: int) -> float:
        """The shortest context in seconds that holds so many samples."""
        seconds = samples / SAMPLE_RATE
        fitting = (c for c in self.contexts[:-1] if seconds <= c - MARGIN)
        return next(fitting, self.contexts[-1])

    @torch.inference_mode()
    def _transcribe_batch(
        self, clips: list[np.ndarray], language: str, context: float
    ) -> list[str]:
        mels = self.features(
            clips,
            sampling_rate=SAMPLE_RATE,
            max_length=round(context * SAMPLE_RATE),
            return_tensors="pt",
        ).input_features
        encoded = self._encode(mels.to(self.device, self.model.dtype))
        prefix = self._prefix(language)
        most = self.model.config.max_target_positions - len(prefix)
        if self.tokens_per_second is None:
            limits = [most] * len(clips)
        else:
            seconds = [len(clip) / SAMPLE_RATE for clip in clips]
            limits = [min(most, SPARE_TOKENS + int(self.tokens_per_second * s)) for s in seconds]
        return [self.tokenizer.decode(t) for t in self._decode(encoded, prefix, limits)]

    def _encode(self, mels: Tensor) -> Tensor:
        """Encoder states [B, T, D] of log-mels [B, bands, 2T]; T may be less than 1,500."""
        encoder = self.model.model.encoder
        states = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mels)))).transpose(1, 2)
        states = states + encoder.embed_positions.weight[: states.shape[1]]
        for layer in encoder.layers:
            states = layer(states, None)
        return encoder.layer_norm(states)

    def _decode(self, encoded: Tensor, prefix: list[int], limits: list[int]) -> list[list[int]]:
        """Greedy tokens of each row of encoder states [B, T, D], at most `limits[b]` of them."""
        tokens = torch.tensor([prefix] * len(limits), device=self.device)
        allowed = torch.tensor(limits, device=self.device)
        done = torch.zeros(len(limits), dtype=torch.bool, device=self.device)
        steps, cache = [], None
        for step in range(max(limits)):
            output = self.model.model.decoder(
                input_ids=tokens, encoder_hidden_states=encoded, cache=cache, use_cache=True
            )
            cache = output.cache
            logits = self.model.proj_out(output.last_hidden_state[:, -1])
            logits[:, self.banned[step == 0]] = -math.inf
            chosen = logits.argmax(dim=-1)
            done |= (chosen == self.end) | (step >= allowed)
            if done.all():
                break
            steps.append(chosen.masked_fill(done, self.end))
            tokens = steps[-1][:, None]
        rows = torch.stack(steps, dim=1).tolist() if steps else [[] for _ in limits]
        return [[token for token in row if token != self.end] for row in rows]

    def _prefix(self, language: str) -> list[int]:
        """Tokens before the transcript; raises JudgeError for a language Whisper has no tag for."""
        tag, prompt = language, ""
        if language == "mixed":
            tag, prompt = self.mixed_language, self.mixed_prompt
        words = ["<|startoftranscript|>", f"<|{tag}|>", "<|transcribe|>", "<|notimestamps|>"]
        tokens = [self._token(word) for word in words]
        if prompt:
            before = self.tokenizer.encode(" " + prompt, add_special_tokens=False).ids
            tokens = [self._token("<|startofprev|>"), *before, *tokens]
        return tokens

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
    """bfloat16 on a CPU that multiplies it in hardware (elsewhere it is 100 times slower)."""
    known = torch.cpu.get_capabilities()
    fast = device.type == "cpu" and (known.get("avx512_bf16") or known.get("amx_bf16"))
    return torch.bfloat16 if fast else torch.float32


def load_published(folder: str | Path) -> tuple[WhisperForConditionalGeneration, Tokenizer]:
    """A Whisper in the published layout: a folder or a name on the hub, `tokenizer.json` in it."""
    from transformers.utils import cached_file

    try:
        model = WhisperForConditionalGeneration.from_pretrained(folder)
        return model, Tokenizer.from_file(cached_file(folder, "tokenizer.json"))
    except (OSError, TypeError) as error:
        raise JudgeError(f"{folder}: neither a Whisper's folder nor on the hub: {error}") from error
