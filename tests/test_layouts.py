"""CosyVoice 2's and Ints' layouts: names, sequences, loading by configuration, and sampling."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from conftest import make_prompt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

import intp.models
from intp.adapters.ar import ARAdapter, ARConfig
from intp.adapters.base import Example
from intp.models import load_adapter
from intp.params import Model, Params, load_params
from intp.trainer import Pair, Recipe, train
from networks import ar_upstream
from networks.ar_upstream import INSTRUCTION, SYSTEM, CosyVoice2Speech, IntsSpeech
from networks.causal_lm import causal_lm
from networks.cosyvoice2 import Qwen2LM
from networks.speech import TokenizerSpeech
from networks.upstream import MissingUpstream

CHAT = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
GREEDY = {"temperature": 1e-4, "top_k": 1, "top_p": 1.0, "max_seconds": 0.4}
SPEECH = ("cosyvoice2", "ints")


def text_folder(folder: Path, marks: list[str], added: list[str] = ()) -> str:
    """A byte-level BPE of a few merges, saved as transformers keeps tokenizers."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator([SYSTEM, INSTRUCTION, "abcd abcd.", "ab. abc"], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe)
    made.add_tokens([*marks, *added], special_tokens=True)
    made.save_pretrained(folder)
    return str(folder)


def settings(layout: str, folder: Path) -> dict[str, object]:
    """The published settings of a layout, with a text tokenizer of our own and the mini's speech."""
    if layout == "cosyvoice2":
        options = {"tokenizer": text_folder(folder, [])}
        frontend = "CosyVoice2Frontend"
    else:
        start = len(AutoTokenizer.from_pretrained(text_folder(folder, CHAT)))
        audio = ["<|start_of_audio|>", "<|end_of_audio|>", *(f"<|audio_{i}|>" for i in range(1000))]
        text_folder(folder, CHAT, audio)
        options = {"tokenizer": str(folder), "start_of_audio": start, "pad": 0}
        frontend = "IntsFrontend"
    return {
        "text_positions": "plain", "frontend": f"networks.ar_upstream:{frontend}",
        "frontend_options": options,
    }  # fmt: skip


def make_layout(layout: str, folder: Path, tokenizer) -> ARAdapter:
    """A tiny model in a published layout, with weights large enough to prefer some tokens."""
    torch.manual_seed(4)
    adapter = ARAdapter(ARConfig(**settings(layout, folder), model=SIZES), tokenizer)
    for name, weight in adapter.model.named_parameters():
        if "norm" not in name:
            weight.data = 0.15 * torch.randn(weight.shape)
    return adapter


@pytest.fixture(params=SPEECH)
def tiny(request, tmp_path: Path, tokenizer) -> ARAdapter:
    return make_layout(request.param, tmp_path / "text", tokenizer)


@pytest.fixture
def cosyvoice2(tmp_path: Path, tokenizer) -> ARAdapter:
    return make_layout("cosyvoice2", tmp_path / "text", tokenizer)


@pytest.fixture
def ints(tmp_path: Path, tokenizer) -> ARAdapter:
    return make_layout("ints", tmp_path / "text", tokenizer)


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def test_cosyvoice2_has_the_published_names_and_shapes():
    with torch.device("meta"):
        model = Qwen2LM()
    layer = {
        **{f"self_attn.{p}_proj.weight": (n, 896) for p, n in (("q", 896), ("k", 128), ("v", 128))},
        **{f"self_attn.{p}_proj.bias": (n,) for p, n in (("q", 896), ("k", 128), ("v", 128))},
        "self_attn.o_proj.weight": (896, 896), "mlp.gate_proj.weight": (4864, 896),
        "mlp.up_proj.weight": (4864, 896), "mlp.down_proj.weight": (896, 4864),
        "input_layernorm.weight": (896,), "post_attention_layernorm.weight": (896,),
    }  # fmt: skip
    assert shapes(model) == {
        "llm.model.model.embed_tokens.weight": (151936, 896),
        "llm.model.model.norm.weight": (896,),
        "llm.model.lm_head.weight": (151936, 896),
        "llm_embedding.weight": (2, 896),
        "speech_embedding.weight": (6564, 896),
        "llm_decoder.weight": (6564, 896),
        "llm_decoder.bias": (6564,),
        **{f"llm.model.model.layers.{i}.{n}": s for i in range(24) for n, s in layer.items()},
    }
    inner = model.llm.model
    assert inner.lm_head.weight is inner.model.embed_tokens.weight
    assert inner.config.rope_parameters["rope_theta"] == 1e6 and inner.config.rms_norm_eps == 1e-6


def test_ints_has_the_names_and_shapes_of_phi_3_5_with_the_audio_vocabulary():
    rows = 32_066 + 16_384
    with torch.device("meta"):
        model = causal_lm({"model_type": "phi3", "vocab_size": rows})
    layer = {
        "self_attn.qkv_proj.weight": (9216, 3072), "self_attn.o_proj.weight": (3072, 3072),
        "mlp.gate_up_proj.weight": (16384, 3072), "mlp.down_proj.weight": (3072, 8192),
        "input_layernorm.weight": (3072,), "post_attention_layernorm.weight": (3072,),
    }  # fmt: skip
    assert rows == 48_450
    assert shapes(model) == {
        "model.embed_tokens.weight": (rows, 3072),
        "model.norm.weight": (3072,),
        "lm_head.weight": (rows, 3072),
        **{f"model.layers.{i}.{n}": s for i in range(32) for n, s in layer.items()},
    }


def test_the_published_ids(tmp_path: Path):
    text = text_folder(tmp_path, CHAT)
    config = ARConfig(tokens=6561, frontend_options={"tokenizer": text})
    cosyvoice2 = ar_upstream.CosyVoice2Frontend(config)
    assert cosyvoice2.ids == {"eos_target": 6561, "pad": 6563, "sos": 6564, "task": 6565}
    assert (cosyvoice2.offset, cosyvoice2.first) == (0, 6566)
    ints = ar_upstream.IntsFrontend(replace(config, tokens=16_384))
    assert ints.ids == {"pad": 32000, "bos_target": 32064, "eos_target": 32065}
    assert ints.offset == 32066


def test_every_id_of_cosyvoice2_is_looked_up_in_its_own_table(cosyvoice2: ARAdapter):
    model = cosyvoice2.model
    found = model.embed(torch.tensor([[0, 1002, 1003, 1004, 1005, 1010]]))[0]
    text = model.llm.model.model.embed_tokens.weight
    wanted = [
        model.speech_embedding.weight[0], model.speech_embedding.weight[1002],
        model.llm_embedding.weight[0], model.llm_embedding.weight[1], text[0], text[5],
    ]  # fmt: skip
    assert torch.equal(found, torch.stack(wanted))


def test_cosyvoice2_s_sequence_by_hand(cosyvoice2: ARAdapter):
    prompt = make_prompt("x", "abcd abcd.")
    bpe, first = cosyvoice2.frontend.tokenizer, 1000 + 3 + 2
    spoken = [first + i for part in ("ab.", "abcd abcd.") for i in bpe(part)["input_ids"]]
    prefix, positions = cosyvoice2.prefix(prompt, torch.tensor([7, 8, 9]))
    assert prefix.tolist() == [1003, *spoken, 1004, 7, 8, 9]
    assert positions.tolist() == list(range(len(prefix)))
    alone = [first + i for i in bpe("abcd abcd.")["input_ids"]]
    assert cosyvoice2.prefix(prompt, torch.tensor([]).long())[0].tolist() == [1003, *alone, 1004]
    row = cosyvoice2.sequence(prefix, positions, torch.tensor([5, 6]))
    assert row["input_ids"].tolist() == [*prefix.tolist(), 5, 6]
    # Upstream's labels are shifted already: the last token before the target predicts its first.
    assert row["labels"].tolist() == [-100] * (len(prefix) - 1) + [5, 6, 1000]


def test_ints_sequence_by_hand(ints: ARAdapter):
    prompt = make_prompt("x", "abcd abcd.")
    bpe, start = ints.frontend.tokenizer, ints.ids["bos_target"]
    chat = (
        "<|system|>\nYou are a powerful AI assistant for speech understanding and generation.<|end|>\n"
        "<|user|>\nPlease speak the following text out loud: ab. abcd abcd.<|end|>\n<|assistant|>"
    )
    wanted = bpe(chat + "<|start_of_audio|><|audio_7|><|audio_0|>")["input_ids"]
    prefix, _ = ints.prefix(prompt, torch.tensor([7, 0]))
    assert prefix.tolist() == wanted
    assert wanted[-3:] == [start, start + 2 + 7, start + 2]
    head, before, target, tail = (
        bpe.decode(part) for part in ints.frontend.text(prompt, heard=True)
    )
    assert head.endswith(INSTRUCTION.rstrip()) and tail.endswith("<|start_of_audio|>")
    assert (before.strip(), target.strip()) == ("ab.", "abcd abcd.")
    alone = chat.replace("ab. abcd abcd.", "abcd abcd.") + "<|start_of_audio|>"
    assert ints.prefix(prompt, torch.tensor([]).long())[0].tolist() == bpe(alone)["input_ids"]
    row = ints.sequence(*ints.prefix(prompt, torch.tensor([7])), torch.tensor([5]))
    assert row["labels"][-2:].tolist() == [start + 2 + 5, start + 1]
    chinese = replace(prompt, prompt_text="你好", target_text="你好")
    assert "loud: 你好你好<|end|>" in bpe.decode(ints.prefix(chinese, torch.tensor([7]))[0])


def test_audio_marks_out_of_place_are_named(tmp_path: Path, tokenizer):
    made = settings("ints", tmp_path)
    made["frontend_options"]["start_of_audio"] += 1
    with pytest.raises(ValueError, match=r"<\|start_of_audio\|> is \d+ in the tokenizer"):
        ARAdapter(ARConfig(**made, model=SIZES), tokenizer)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ar_upstream.text_tokenizer("nowhere")


def test_text_at_the_speaking_rate_ends_where_speech_begins(cosyvoice2: ARAdapter):
    adapter = ARAdapter(
        replace(cosyvoice2.config, text_positions="rate"), cosyvoice2.tokenizer, cosyvoice2.model
    )
    _, positions = adapter.prefix(make_prompt("x", "abcd abcd."), torch.arange(20))
    before = len(adapter.frontend.tokenizer("ab.")["input_ids"])
    rate = 20 / before
    assert positions[:3].tolist() == pytest.approx([0, 0.5 * rate, 1.5 * rate])
    assert positions[-21:].tolist() == list(range(21))


def greedy(adapter: ARAdapter, prompt, steps: int) -> list[int]:
    """The likeliest codes, one forward pass of the whole row each, without a cache."""
    ids, _ = adapter.prefix(prompt, adapter.encode(prompt.reference_speech))
    end, offset, codes = adapter.ids["eos_target"], adapter.frontend.offset, []
    for _ in range(steps):
        positions = torch.arange(len(ids), dtype=torch.float32)
        logits = adapter.model(
            input_ids=ids[None], position_ids=positions[None], attention_mask=torch.ones(1, len(ids))
        ).logits[0, -1]  # fmt: skip
        allowed = torch.cat([logits[offset : offset + 1000], logits[end : end + 1]])
        code = int(allowed.argmax())
        if code == 1000:
            break
        codes.append(code)
        ids = torch.cat([ids, torch.tensor([offset + code])])
    return codes


@torch.no_grad()
def test_generation_is_the_argmax_of_the_forward_pass_step_by_step(tiny: ARAdapter, prompts: list):
    together = tiny.generate(prompts, GREEDY, [0, 1, 2])
    steps = int(0.4 * 31.25)
    for prompt, (tokens, _) in zip(prompts, together, strict=True):
        assert tokens.tolist() == greedy(tiny, prompt, steps)
        assert tokens.min() >= 0 and tokens.max() < 1000


def test_only_codes_and_the_end_are_sampled(tiny: ARAdapter):
    offset, end = tiny.frontend.offset, tiny.ids["eos_target"]
    columns = tiny.model(input_ids=torch.tensor([[offset]])).logits.shape[-1]
    logits = torch.full((2, columns), 50.0)
    logits[0, offset + 3], logits[1, end] = 60.0, 60.0
    others = [i for i in range(columns) if not (offset <= i < offset + 1000 or i == end)]
    logits[:, others] = 90.0  # such as the two ids after the end, which stop upstream too
    assert others
    settings = GREEDY | {"top_k": 20}
    assert tiny.sample(logits, torch.zeros(2), settings).tolist() == [offset + 3, end]


@torch.no_grad()
def test_score_is_the_sum_over_target_and_end_in_either_layout(tiny: ARAdapter, prompts: list):
    target = torch.tensor([3, 999, 0, 41])
    prefix, positions = tiny.prefix(prompts[0], tiny.encode(prompts[0].reference_speech))
    row = tiny.sequence(prefix, positions, target)
    inputs = {k: row[k][None] for k in ("input_ids", "position_ids")}
    logps = tiny.model(**inputs).logits[0].log_softmax(-1)
    wanted = [*(target + tiny.frontend.offset).tolist(), tiny.ids["eos_target"]]
    by_hand = sum(logps[len(prefix) - 1 + i, column].item() for i, column in enumerate(wanted))
    found = tiny.score(tiny.model, tiny.batch([Example(prompts[0], target)])).item()
    assert found == pytest.approx(by_hand, abs=1e-3)


def as_params(checkpoint: Path, published: dict[str, object], sizes: dict[str, object]) -> Params:
    """Parameters whose model `tiny` is a published checkpoint."""
    model = Model(
        label="Tiny",
        adapter="intp.adapters.ar:ARAdapter",
        checkpoint=str(checkpoint),
        config=sizes,
        published=published,
    )
    params = load_params("paper")
    return replace(params, models=params.models | {"tiny": model})


@pytest.fixture
def no_tokenizer(monkeypatch, tmp_path: Path) -> None:
    """A checkout without the mini tokenizer's checkpoint."""
    monkeypatch.setattr(intp.models, "TOKENIZER", tmp_path / "absent.safetensors")


def test_a_published_state_dict_loads_by_configuration_and_strictly(
    cosyvoice2: ARAdapter, tmp_path: Path, no_tokenizer
):
    path = tmp_path / "llm.pt"
    published = settings("cosyvoice2", tmp_path / "text")
    weights = cosyvoice2.model.state_dict()
    torch.save(weights | {"epoch": 3, "step": 1000}, path)
    loaded = load_adapter("tiny", as_params(path, published, SIZES))
    assert shapes(loaded.model) == shapes(cosyvoice2.model)
    assert all(torch.equal(v, weights[k]) for k, v in loaded.model.state_dict().items())
    with pytest.raises(ValueError, match="mini tokenizer"):
        loaded.encode(np.zeros(16000, dtype=np.float32))
    faults = {
        "odd.weight": weights | {"odd.weight": torch.zeros(1)},
        "llm_decoder.bias": {k: v for k, v in weights.items() if k != "llm_decoder.bias"},
        "llm_embedding.weight": weights | {"llm_embedding.weight": torch.zeros(3, 32)},
    }
    for key, tensors in faults.items():
        torch.save(tensors, path)
        with pytest.raises(RuntimeError, match=key):
            load_adapter("tiny", as_params(path, published, SIZES))


def test_a_published_folder_loads_with_the_sizes_it_states(
    ints: ARAdapter, prompts: list, tokenizer, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(intp.models, "load_tokenizer", lambda: tokenizer)
    monkeypatch.setattr(intp.models, "TOKENIZER", Path(__file__))
    rows = ints.frontend.offset + 1000
    rope = {"type": "longrope", "short_factor": [1.5] * 4, "long_factor": [2.0] * 4}
    config = Phi3Config(
        **SIZES, vocab_size=rows, pad_token_id=0, rope_scaling=rope, dtype="bfloat16",
        max_position_embeddings=8192, original_max_position_embeddings=4096,
    )  # fmt: skip
    Phi3ForCausalLM(config).to(torch.bfloat16).save_pretrained(
        tmp_path / "model", max_shard_size="100KB"
    )
    assert len(list((tmp_path / "model").glob("model*.safetensors"))) > 1
    params = as_params(tmp_path / "model", settings("ints", tmp_path / "text"), {})
    loaded = load_adapter("tiny", params)
    theirs = Phi3ForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    assert {w.dtype for w in loaded.model.parameters()} == {torch.float32}
    batch = loaded.batch([Example(prompts[0], torch.arange(9))])
    assert torch.equal(loaded.score(loaded.model, batch), loaded.score(theirs, batch))
    assert loaded.model.model.rotary_emb.inv_freq[0].item() == pytest.approx(1 / 1.5)
    # What is saved since is in our own format, and read as such.
    loaded.save(tmp_path / "aligned.safetensors")
    aligned = load_adapter("tiny", params, tmp_path / "aligned.safetensors")
    assert aligned.config == loaded.config
    next((tmp_path / "model").glob("model-00001*")).unlink()
    with pytest.raises(RuntimeError, match="Missing key"):
        load_adapter("tiny", params)


def test_missing_checkpoints_say_where_published_ones_come_from(tmp_path: Path, no_tokenizer):
    with pytest.raises(FileNotFoundError, match=r"docs/adapters\.md"):
        load_adapter("tiny", as_params(tmp_path / "absent.pt", {}, {}))


def test_checkpoints_from_before_front_ends_load(adapter: ARAdapter, tmp_path: Path):
    old = {k: getattr(adapter.config, k) for k in ("phonemes", "separator", "model")}
    made = ARConfig(**old, tokens=1000, text_positions="rate", tokens_per_phoneme=1.75)
    assert made == adapter.config
    assert isinstance(adapter.speech, TokenizerSpeech)


def test_tied_embeddings_are_trained_kept_and_saved(cosyvoice2: ARAdapter, prompts, tmp_path: Path):
    pairs = [
        Pair(p.id, Example(p, torch.arange(6)), Example(p, torch.arange(20, 29))) for p in prompts
    ]
    recipe = Recipe(beta=0.1, lr=1e-3, batch_pairs=1, warmup_steps=1, evaluate_every=2)
    errors = iter([0.5, 0.4, 0.3])
    before = cosyvoice2.model.llm.model.model.embed_tokens.weight.clone()
    train(cosyvoice2, pairs, recipe, tmp_path / "work", evaluate=lambda: next(errors))
    inner = cosyvoice2.model.llm.model
    assert inner.lm_head.weight is inner.model.embed_tokens.weight
    assert not torch.equal(inner.model.embed_tokens.weight, before)
    cosyvoice2.save(tmp_path / "x.safetensors")
    loaded = ARAdapter.load(tmp_path / "x.safetensors", cosyvoice2.tokenizer)
    assert loaded.model.llm.model.lm_head.weight is loaded.model.llm.model.model.embed_tokens.weight


def put_modules(monkeypatch, modules: dict[str, dict[str, object]]) -> None:
    """Modules that look like upstream's, for as long as the test runs."""
    for name, content in modules.items():
        for i in range(name.count(".") + 1):
            parent = ".".join(name.split(".")[: i + 1])
            if parent not in sys.modules:
                monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        vars(sys.modules[name]).update(content)


@pytest.fixture
def fresh():
    """Upstream's models are kept for a process; no test's fake may outlive it."""
    for kept in (ar_upstream.cosyvoice, ar_upstream.ints):
        kept.cache_clear()
    yield
    for kept in (ar_upstream.cosyvoice, ar_upstream.ints):
        kept.cache_clear()


def fake_cosyvoice(weights: str) -> SimpleNamespace:
    """Upstream's names and shapes: 640 samples a token, 960 samples at 24 kHz back, noise as speech."""

    def zero_shot(text: str, prompt_text: str, path: str, rate: int, speaker: str) -> dict:
        samples, found = soundfile.read(path, dtype="float32")
        assert (text, prompt_text, rate, found, speaker) == ("", "", 24000, 16000, "")
        count = len(samples) // 640
        return {
            "flow_prompt_speech_token": torch.full((1, count), 7, dtype=torch.int32),
            "prompt_speech_feat": torch.zeros(1, 2 * count, 80),
            "flow_embedding": torch.zeros(1, 192),
            "text": torch.zeros(1, 0),
        }

    def tts(source_speech_token, flow_prompt_speech_token, prompt_speech_feat, flow_embedding):
        assert prompt_speech_feat.shape[1] == 2 * flow_prompt_speech_token.shape[1]
        yield {"tts_speech": torch.rand(1, 960 * source_speech_token.shape[1]) - 0.5}

    return SimpleNamespace(
        sample_rate=24000,
        frontend=SimpleNamespace(frontend_zero_shot=zero_shot),
        model=SimpleNamespace(tts=tts),
    )


def test_cosyvoice2_s_speech_is_upstream_s(monkeypatch, fresh):
    put_modules(monkeypatch, {"cosyvoice.cli.cosyvoice": {"CosyVoice2": fake_cosyvoice}})
    speech = CosyVoice2Speech(ARConfig(speech_options={"weights": "folder"}))
    reference = make_prompt("x").reference_speech
    assert speech.encode(reference).tolist() == [7] * 25
    tokens = torch.arange(10)
    first, again, other = (speech.decode(tokens, reference, seed) for seed in (3, 3, 4))
    assert len(first) == 10 * 640 and first.dtype == np.float32
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_ints_speech_is_upstream_s(monkeypatch, fresh):
    def make(llm: str, config: object, device: str, build_llm: bool) -> SimpleNamespace:
        assert (Path(llm).name, config, device, build_llm) == ("text", "ints.json", "cpu", False)
        return SimpleNamespace(
            audio_tokenizer=lambda samples: torch.full((1, len(samples) // 1280), 9),
            code2mel=lambda codes, prompt: torch.rand(
                1, 4 * codes.shape[1] - len(prompt) // 480, 128
            ),
            mel2audio=lambda mel: mel[0, :, :1].repeat(1, 480).flatten().numpy(),
        )

    put_modules(
        monkeypatch,
        {
            "models.tts.ints.ints": {"Ints": make},
            "utils.util": {"load_config": lambda path: Path(path).name},
        },
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    speech = IntsSpeech(ARConfig(speech_options={"amphion": "clone", "tokenizer": "text"}))
    reference = make_prompt("x").reference_speech
    assert speech.encode(reference).tolist() == [9] * 12
    first, again, other = (speech.decode(torch.arange(10), reference, seed) for seed in (3, 3, 4))
    assert len(first) == (4 * 22 - 50) * 320
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_missing_packages_say_what_to_install(monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "cosyvoice", None)
    monkeypatch.setitem(sys.modules, "models", None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    reference = make_prompt("x").reference_speech
    with pytest.raises(MissingUpstream, match="FunAudioLLM/CosyVoice"):
        CosyVoice2Speech(ARConfig(speech_options={"weights": "folder"})).encode(reference)
    options = {"amphion": "clone", "tokenizer": "text"}
    with pytest.raises(MissingUpstream, match="pip install dualcodec"):
        IntsSpeech(ARConfig(speech_options=options)).encode(reference)
