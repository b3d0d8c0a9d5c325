"""The paper's judges, tiny and random, in the layouts that upstream publishes.

What they say means nothing; that they load, hear and answer is what can be tested without a network.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig, WavLMConfig, WavLMModel, WhisperConfig
from transformers import WhisperForConditionalGeneration as Whisper

from intp.audio import SAMPLE_RATE
from judges import ctranslate2

VOCABULARY, END, STAMPS = 51_866, 50_257, 50_364
CHARACTERS = "你好世界我是中国人"
FAIRSEQ = (  # transformers' names, fairseq's
    ("feature_projection.projection", "post_extract_proj"),
    ("feature_projection.layer_norm", "layer_norm"),
    ("masked_spec_embed", "mask_emb"),
    ("conv.parametrizations.weight.original0", "0.weight_g"),
    ("conv.parametrizations.weight.original1", "0.weight_v"),
    ("pos_conv_embed.conv.bias", "pos_conv_embed.0.bias"),
    ("pos_conv_embed", "pos_conv"),
    ("gru_rel_pos_linear", "grep_linear"),
    ("gru_rel_pos_const", "grep_a"),
    ("rel_attn_embed", "relative_attention_bias"),
    ("attention.", "self_attn."),
    ("feed_forward.intermediate_dense", "fc1"),
    ("feed_forward.output_dense", "fc2"),
)


def whisper(folder: Path, words: Sequence[str] = (), ending: float = 1.0) -> None:
    """A folder like whisper-large-v3's: 128 bands, its generation settings, `tokenizer.json`.

    With `words` (" the", …) the settings suppress every other token, and the end's embedding is
    `ending` times as long as chance made it, so that answers end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = ctranslate2.BASE.data() / "tokenizer.json"
    shutil.copy(str(source), folder)
    torch.manual_seed(0)
    model = Whisper(
        WhisperConfig(
            vocab_size=VOCABULARY, num_mel_bins=128, d_model=32, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
            decoder_ffn_dim=64, init_std=0.3,
        )
    )  # fmt: skip
    model.model.decoder.embed_tokens.weight.data[END] *= ending
    silent = {1, 2}
    if words:
        encode = Tokenizer.from_file(str(folder / "tokenizer.json")).encode
        said = {encode(word, add_special_tokens=False).ids[0] for word in words}
        silent = set(range(STAMPS)) - said - {END}
    model.generation_config = GenerationConfig(
        decoder_start_token_id=50258, eos_token_id=END, pad_token_id=END, is_multilingual=True,
        no_timestamps_token_id=50363, lang_to_id={"<|en|>": 50259}, max_length=448,
        task_to_id={"transcribe": 50359},
        suppress_tokens=[*sorted(silent), *range(STAMPS, VOCABULARY)],
        begin_suppress_tokens=[220, END],
    )  # fmt: skip
    model.save_pretrained(folder)


def paraformer(folder: Path, characters: str = CHARACTERS) -> None:
    """A folder like paraformer-zh's (SeacoParaformer), with everything in it that it has.

    `characters` are those it may hear, besides a few letters and words.
    """
    from funasr.register import tables
    from omegaconf import OmegaConf

    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<blank>", "<s>", "</s>", *characters, *"abc", "hello", "wor@@", "ld", "<unk>"]
    (folder / "tokens.json").write_text(json.dumps(tokens), "utf-8")
    shift, scale = (" ".join([value] * 560) for value in ("-8.0", "0.15"))
    (folder / "am.mvn").write_text(
        "<Nnet>\n<Splice> 560 560\n[ 0 ]\n"
        f"<AddShift> 560 560\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> 560 560\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )
    decoder = {
        "attention_heads": 2, "linear_units": 32, "num_blocks": 1, "att_layer_num": 1,
        "kernel_size": 3, "sanm_shfit": 0,
    }  # fmt: skip
    parts = {
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": 16, "attention_heads": 2, "linear_units": 32, "num_blocks": 2,
            "input_layer": "pe", "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True, "kernel_size": 3, "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": decoder,
        "seaco_decoder": "ParaformerSANMDecoder",
        "seaco_decoder_conf": {**decoder, "wo_input_layer": True},
        "predictor": "CifPredictorV3",
        "predictor_conf": {
            "idim": 16, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45,
            "smooth_factor2": 0.25, "noise_threshold2": 0.01, "upsample_times": 3,
            "use_cif1_cnn": False, "upsample_type": "cnn_blstm",
        },
    }  # fmt: skip
    sizes = {"inner_dim": 16, "predictor_bias": 1, "sampling_ratio": 0.75, "NO_BIAS": 5}
    frontend = {"fs": SAMPLE_RATE, "window": "hamming", "n_mels": 80, "lfr_m": 7, "lfr_n": 6}
    config = {
        "model": "SeacoParaformer",
        "model_conf": sizes,
        **parts,
        "frontend": "WavFrontend",
        "frontend_conf": frontend,
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    torch.manual_seed(0)
    model = tables.model_classes["SeacoParaformer"](
        **sizes, **parts, input_size=560, vocab_size=len(tokens)
    )
    torch.save(model.state_dict(), folder / "model.pt")


def wavlm_tdnn(path: Path, **extra: Tensor) -> WavLMModel:
    """Save a tiny random WavLM-TDNN under upstream's names, with `extra` keys; returns its backbone."""
    torch.manual_seed(0)
    backbone = WavLMModel(
        WavLMConfig(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
            conv_dim=(16,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
            num_buckets=32, feat_extract_norm="layer", do_stable_layer_norm=True,
        )
    ).eval()  # fmt: skip
    weights = {
        f"feature_extract.model.{fairseq(name)}": values
        for name, values in backbone.state_dict().items()
    }
    torch.save({"model": weights | speaker_head() | extra}, path)
    return backbone


def fairseq(name: str) -> str:
    """What fairseq calls a weight that transformers calls `name`."""
    for ours, theirs in FAIRSEQ:
        name = name.replace(ours, theirs)
    if name.startswith("feature_extractor"):
        return name.replace(".conv.", ".0.").replace(".layer_norm.", ".2.1.")
    if name.startswith("encoder.layers"):
        return name.replace(".layer_norm.", ".self_attn_layer_norm.")
    return name


def speaker_head() -> dict[str, Tensor]:
    """Random weights of the ECAPA-TDNN head, 16 channels wide, under UniSpeech's names."""
    weights = {"feature_weight": torch.randn(4)}
    convs = {"layer1.conv": (16, 32, 5), "conv": (24, 48, 1), "pooling.linear1": (8, 24, 1)}
    convs |= {"pooling.linear2": (24, 8, 1), "linear": (12, 48)}
    norms = {"layer1.bn": 16, "bn": 48}
    for layer in ("layer2", "layer3", "layer4"):
        for part in ("Conv1dReluBn1", "Conv1dReluBn2"):
            convs[f"{layer}.{part}.conv"] = (16, 16, 1)
            norms[f"{layer}.{part}.bn"] = 16
        for i in range(7):
            convs[f"{layer}.Res2Conv1dReluBn.convs.{i}"] = (2, 2, 3)
            norms[f"{layer}.Res2Conv1dReluBn.bns.{i}"] = 2
        convs |= {f"{layer}.SE_Connect.linear1": (4, 16), f"{layer}.SE_Connect.linear2": (16, 4)}
    for name, shape in convs.items():
        weights |= {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.randn(shape[0])}
    for name, size in norms.items():
        weights |= {f"{name}.{leaf}": torch.rand(size) + 0.5 for leaf in ("weight", "bias")}
        weights |= {f"{name}.running_{leaf}": torch.rand(size) + 0.5 for leaf in ("mean", "var")}
        weights[f"{name}.num_batches_tracked"] = torch.tensor(1)
    return weights
