"""The text layouts and second stages of CosyVoice 2 and Ints: upstream's packages, called, not copied.

A layout (`…Frontend`) reads texts by a tokenizer in a local folder and says in which order text and
speech stand. A speech part (`…Speech`) turns sound into tokens and back. An AR configuration names one
of each, so that a mini model can have a published layout and the speech tokens of the project.
Upstream's packages pin their own versions of transformers: the speech parts run in their environment.
"""

import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from networks.causal_lm import causal_lm
from networks.cosyvoice2 import EXTRA, MARKS, Qwen2LM
from networks.upstream import RATE_IN, RATE_OUT, MissingUpstream, local, resampled, seeded

# Event marks that CosyVoice adds to Qwen2's tokenizer (`cosyvoice/tokenizer/tokenizer.py`).
EVENTS = [
    "<|im_start|>", "<|im_end|>", "<|endofprompt|>", "[breath]", "<strong>", "</strong>", "[noise]",
    "[laughter]", "[cough]", "[clucking]", "[accent]", "[quick_breath]", "<laughter>", "</laughter>",
    "[hissing]", "[sigh]", "[vocalized-noise]", "[lipsmack]", "[mn]",
]  # fmt: skip
SYSTEM = "You are a powerful AI assistant for speech understanding and generation."
INSTRUCTION = "Please speak the following text out loud: "
INSTALL_COSYVOICE = (
    "CosyVoice 2's speech tokenizer, flow and vocoder come with the package cosyvoice: clone "
    "github.com/FunAudioLLM/CosyVoice with its submodules, install its requirements in an "
    "environment of its own, and put it and its third_party/Matcha-TTS on PYTHONPATH"
)
INSTALL_INTS = (
    "Ints' speech tokenizer and second stage come with DualCodec and Amphion: pip install dualcodec, "
    "clone github.com/open-mmlab/Amphion with pull request 439 (models/tts/ints, and its env.sh for "
    "the rest), and name the clone in speech_options as `amphion`"
)
Parts = tuple[list[int], list[int], list[int], list[int]]


def text_tokenizer(folder: str) -> Any:
    """The Hugging Face tokenizer in a local folder. Raises FileNotFoundError if there is none."""
    if not Path(local(folder)).is_dir():
        raise FileNotFoundError(f"{local(folder)}: no such folder with the model's text tokenizer")
    return AutoTokenizer.from_pretrained(local(folder), local_files_only=True)


class CosyVoice2Frontend:
    """sos, text of the reference, target text, task id, then speech (`cosyvoice/llm/llm.py`).

    `config.frontend_options`: `tokenizer`, a folder (published: `CosyVoice-BlankEN`), and `events`,
    the marks added to it. Texts are tokenised one by one and read as written: upstream's own
    normaliser would split them and speak the pieces apart.
    """

    offset = 0

    def __init__(self, config: Any):
        options = {"events": EVENTS} | config.frontend_options
        self.tokenizer = text_tokenizer(options["tokenizer"])
        self.tokenizer.add_tokens(options["events"], special_tokens=True)
        end, rows = config.tokens, config.tokens + EXTRA
        # Upstream also stops at the two rows after `end`; the adapter never samples them.
        self.ids = {"eos_target": end, "pad": rows - 1, "sos": rows, "task": rows + 1}
        self.first = rows + MARKS

    def text(self, prompt: Any, heard: bool) -> Parts:
        """Ids of head, reference text (none unless `heard`), target text, and tail."""
        texts = (prompt.prompt_text if heard else "", prompt.target_text)
        before, target = (
            [self.first + i for i in self.tokenizer(text)["input_ids"]] for text in texts
        )
        return [self.ids["sos"]], before, target, [self.ids["task"]]

    def build(self, config: Any) -> nn.Module:
        """The model with random weights; `config.model` are sizes of transformers' Qwen2Config."""
        sizes = {"vocab_size": len(self.tokenizer)} | config.model
        return Qwen2LM(config.tokens, **sizes)


class IntsFrontend:
    """A Phi-3 chat that asks for the text to be spoken, then the audio as the answer begins.

    Layout of Amphion's `models/tts/ints` (pull request 439). `config.frontend_options`: `tokenizer`,
    a folder; `start_of_audio`, the id of that mark (32064), after which the vocabulary has the end of
    audio, then the codes; `pad` (32000). Whether a bos stands in front is the tokenizer's to say, as
    upstream calls it with defaults. Upstream joins the texts bare; `config.separator` goes between
    them where the first ends in ASCII, and "" gives upstream's sequence.
    """

    def __init__(self, config: Any):
        options = {"start_of_audio": 32_064, "pad": 32_000} | config.frontend_options
        self.tokenizer = text_tokenizer(options["tokenizer"])
        self.separator = config.separator
        start = options["start_of_audio"]
        self.ids = {"pad": options["pad"], "bos_target": start, "eos_target": start + 1}
        self.offset = start + 2
        known = self.tokenizer.get_vocab()
        for mark, wanted in (("<|start_of_audio|>", start), ("<|audio_0|>", self.offset)):
            if known.get(mark, wanted) != wanted:
                raise ValueError(f"{mark} is {known[mark]} in the tokenizer, not {wanted}")

    def text(self, prompt: Any, heard: bool) -> Parts:
        """Ids of head, reference text (none unless `heard`), target text, and tail."""
        before = ""
        if heard:
            gap = self.separator if prompt.prompt_text[-1:].isascii() else ""
            before = prompt.prompt_text + gap
        parts = [
            f"<|system|>\n{SYSTEM}<|end|>\n<|user|>\n{INSTRUCTION}", before, prompt.target_text,
            "<|end|>\n<|assistant|>",
        ]  # fmt: skip
        # As one string, since a token may span a seam; it then belongs to the part that it ends in.
        encoded = self.tokenizer("".join(parts), return_offsets_mapping=True)
        ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
        seams = [len("".join(parts[: i + 1])) for i in range(3)]
        a, b, c = (sum(end <= seam for end in ends) for seam in seams)
        return ids[:a], ids[a:b], ids[b:c], [*ids[c:], self.ids["bos_target"]]

    def build(self, config: Any) -> nn.Module:
        """The model with random weights; `config.model` are sizes of transformers' Phi3Config."""
        sizes = {
            "model_type": "phi3", "vocab_size": self.offset + config.tokens,
            "pad_token_id": self.ids["pad"], "eos_token_id": self.ids["eos_target"],
        }  # fmt: skip
        return causal_lm(sizes | config.model)


@lru_cache(maxsize=1)
def cosyvoice(weights: str) -> Any:
    """Upstream's CosyVoice 2 with the weights of a local copy of its repository, once a process."""
    try:
        from cosyvoice.cli.cosyvoice import CosyVoice2
    except ImportError as error:
        raise MissingUpstream(INSTALL_COSYVOICE) from error
    return CosyVoice2(weights)


class CosyVoice2Speech:
    """FSQ tokens, 25 a second, and their sound by upstream's flow and vocoder.

    `config.speech_options`: `weights`, the folder of the published repository. Upstream's front end
    takes a path and cuts at 30 s (`cosyvoice/cli/frontend.py` at ace7c47).
    """

    representation = "speech tokens of CosyVoice 2"

    def __init__(self, config: Any, tokenizer: object = None):
        self.weights = local(config.speech_options["weights"])

    def inputs(self, samples: np.ndarray) -> dict[str, Tensor]:
        """What upstream makes of a recording [N] at 16 kHz, with mel and tokens of like length."""
        model = cosyvoice(self.weights)
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/reference.wav"
            soundfile.write(path, samples, RATE_IN, subtype="FLOAT")
            return model.frontend.frontend_zero_shot("", "", path, model.sample_rate, "")

    def encode(self, samples: np.ndarray) -> Tensor:
        """Speech [N] at 16 kHz to tokens [M]."""
        return self.inputs(samples)["flow_prompt_speech_token"][0].long().cpu()

    def decode(self, tokens: Tensor, reference_speech: np.ndarray, seed: int) -> np.ndarray:
        """Tokens [M] to samples at 16 kHz in the voice of the reference.

        The flow starts from one fixed noise; the vocoder's source draws, and is seeded.
        """
        inputs = self.inputs(reference_speech)
        names = ("flow_prompt_speech_token", "prompt_speech_feat", "flow_embedding")
        with seeded(seed):
            made = cosyvoice(self.weights).model.tts(
                source_speech_token=tokens[None], **{name: inputs[name] for name in names}
            )
            speech = torch.cat([part["tts_speech"] for part in made], dim=1)[0]
        return resampled(speech, RATE_OUT, RATE_IN).numpy()


@lru_cache(maxsize=1)
def ints(amphion: str, tokenizer: str, device: str) -> Any:
    """Upstream's Ints without its language model, once a process."""
    # Amphion is no package to install: its modules are found from the clone's folder.
    sys.path.append(amphion)
    try:
        from models.tts.ints.ints import Ints
        from utils.util import load_config
    except ImportError as error:
        raise MissingUpstream(INSTALL_INTS) from error
    config = load_config(f"{amphion}/models/tts/ints/ints.json")
    return Ints(tokenizer, config, device=device, build_llm=False)


class IntsSpeech:
    """DualCodec's first layer, 12.5 codes a second, and their sound by VoiceBox and Vocos.

    `config.speech_options`: `amphion`, a clone of Amphion, `tokenizer`, the folder of the text
    tokenizer (upstream reads it in any case), and `device`. Upstream fetches DualCodec, VoiceBox
    (amphion/Ints) and Vocos (amphion/Vevo1.5) from the hub or its cache.
    """

    representation = "first codes of DualCodec"

    def __init__(self, config: Any, tokenizer: object = None):
        options = {"device": "cpu"} | config.speech_options
        self.folders = local(options["amphion"]), local(options["tokenizer"])
        self.device = options["device"]

    @torch.no_grad()
    def encode(self, samples: np.ndarray) -> Tensor:
        """Speech [N] at 16 kHz to codes [M], in float32 as Ints does (DualCodec's own is float16)."""
        return ints(*self.folders, self.device).audio_tokenizer(samples)[0].long().cpu()

    @torch.no_grad()
    def decode(self, tokens: Tensor, reference_speech: np.ndarray, seed: int) -> np.ndarray:
        """Codes [M] to samples at 16 kHz in the voice of the reference; the flow's noise is seeded."""
        model = ints(*self.folders, self.device)
        codes = torch.cat([self.encode(reference_speech), tokens])[None].to(self.device)
        with seeded(seed):
            mel = model.code2mel(codes, resampled(reference_speech, RATE_IN, RATE_OUT).numpy())
            speech = model.mel2audio(mel)
        return resampled(speech, RATE_OUT, RATE_IN).numpy()
