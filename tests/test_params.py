"""Parameters are checked before anything runs, and a fault names file, name and expectation."""

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest
from ruamel.yaml import YAML

from intp.adapters.ar import ARConfig
from intp.adapters.flow_matching import FlowMatchingConfig
from intp.adapters.masked import MaskedConfig
from intp.params import SCALES, ParamsError, load_params, read_params
from intp.paths import PARAMS, ROOT


def faulty(overrides: dict[str, object]) -> str:
    with pytest.raises(ParamsError) as error:
        load_params("mini", overrides)
    return str(error.value)


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_loads(scale: str):
    assert load_params(scale).scale == scale


def test_the_file_in_force_equals_its_scale_byte_for_byte():
    in_force = load_params().scale
    assert (ROOT / "params.yaml").read_bytes() == (PARAMS / f"{in_force}.yaml").read_bytes()


def test_paper_scale_holds_the_paper_s_judges():
    judges = load_params("paper").judges
    assert (judges.recogniser, judges.recogniser_zh) == ("whisper-large-v3", "paraformer-zh")
    assert (judges.similarity, judges.quality) == ("wavlm-tdnn", "utmos")


APPENDIX_D = {  # beta, learning rate; for all: 4,000 steps of warm-up, one epoch
    "ars": (0.1, 5e-6), "f5": (1000, 8e-6), "maskgct": (10, 5e-6), "cosyvoice2": (0.1, 5e-6),
    "ints": (0.1, 5e-6),
}  # fmt: skip


def test_paper_scale_aligns_as_appendix_d_says():
    params = load_params("paper")
    assert {name: (d.beta, d.lr) for name, d in params.dpo.items()} == APPENDIX_D
    assert {(d.warmup_steps, d.epochs) for d in params.dpo.values()} == {(4000, 1)}
    assert params.models.keys() == params.sampling.keys() == APPENDIX_D.keys()


def test_paper_scale_samples_as_a_3_1_says():
    params = load_params("paper")
    ars = params.sampling["ars"].mining
    assert [s["temperature"] for s in ars] == [0.4, 0.6, 0.8, 1.0, 1.2]
    assert {(s["top_k"], s["top_p"]) for s in ars} == {(20, 1.0)}
    assert params.sampling["ints"].mining == ars  # C.2: the pipeline of A.3.1
    for name in ("f5", "maskgct"):
        rows = params.sampling[name].mining
        assert [s["duration_factor"] for s in rows] == [0.8, 0.9, 1.0, 1.1, 1.2]
        assert len({frozenset((s | {"duration_factor": 1.0}).items()) for s in rows}) == 1
    assert (params.mining.threshold, params.mining.measure) == (6.0, "wer")


def test_paper_scale_names_settings_that_its_adapters_have():
    configs = {"ARAdapter": ARConfig, "MaskedAdapter": MaskedConfig}
    configs["FlowMatchingAdapter"] = FlowMatchingConfig
    for name, model in load_params("paper").models.items():
        assert (model.published is None) == (name == "ars"), name
        published = {k: v for k, v in (model.published or {}).items() if k != "vocabulary"}
        config = configs[model.adapter.partition(":")[2]](**published, model=model.config)
        for part in ("frontend", "speech"):
            assert callable(resolve_name(getattr(config, part, model.adapter))), name


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("dpo.ars.beta", "1e-4", 'dpo.ars.beta: expected a valid number, found "1e-4"'),
        ("dpo.ars.beta", True, "dpo.ars.beta: expected a valid number, found true"),
        ("dpo.ars.beta", -1, "dpo.ars.beta: expected greater than 0, found -1"),
        ("dpo.ars.beta", float("nan"), "dpo.ars.beta: expected a finite number"),
        ("dpo.ars.pairs", "no", 'dpo.ars.pairs: expected a valid integer, found "no"'),
        ("seed", 1.5, "seed: expected a valid integer, found 1.5"),
        ("seed", True, "seed: expected a valid integer, found true"),
        ("seed", -1, "seed: expected greater than or equal to 0, found -1"),
        ("scale", "huge", "scale: expected 'smoke', 'mini', 'study' or 'paper'"),
        ("judges", 3, "judges: expected an object, found 3"),
        ("mining.measure", "cer", "mining.measure: expected 'error' or 'wer'"),
        ("prompts.words", [14, 6], "prompts.words: expected the smaller number first"),
        ("prompts.words", [6], "prompts.words: List should have at least 2 items"),
        ("runs.ints", ["sft"], "iterative.model: no intp in runs.ints"),
        ("runs", {"ints": ["intp"], "mine": ["intp"]}, "runs.mine: not among the models of dpo"),
        (
            "sampling",
            {"f5": {"mining": [{}, {}], "evaluation": {}}},
            "not among the models of sampling",
        ),
        ("iterative.text_types", [], "iterative.text_types: List should have at least 1 item"),
        ("claims.guards.sim", [1.0, -0.02], "guards.sim: expected the smaller number first"),
        ("claims.guards", {"loudness": [0, 1]}, "loudness"),
        ("claims.margins", {"SIM": -0.02}, "SIM: expected greater than or equal to 0"),
        ("claims.measure", "CER", "claims.measure: expected 'WER', 'error' or 'clamped error'"),
        (
            "models",
            {},
            "sampling: ['ars', 'cosyvoice2', 'f5', 'ints', 'maskgct'] not among the models []",
        ),
    ],
)
def test_a_fault_names_file_field_and_expectation(name: str, value: object, expected: str):
    message = faulty({name: value})
    assert message.startswith("params/mini.yaml: ")
    assert expected in message


def test_unknown_and_missing_names_are_told_together():
    message = faulty({"statistics": {"resample": 200, "level": 0.95}})
    assert "statistics.resample: unknown name" in message
    assert "statistics.resamples: missing name" in message


@pytest.mark.parametrize("name", ["dpo.ars.betta", "dpo.arz.beta", "seed.x", "nothing"])
def test_an_override_of_an_unknown_name_is_an_error(name: str):
    assert f"override {name}: unknown name" in faulty({name: 1})


def test_an_override_reaches_dataclasses_and_free_settings():
    params = load_params("mini", {"dpo.ars.beta": 2, "sampling.ars.evaluation.temperature": 0.7})
    assert params.dpo["ars"].beta == 2.0
    assert params.sampling["ars"].evaluation["temperature"] == 0.7


def written(folder: Path, old: str, new: str) -> Path:
    text = (PARAMS / "mini.yaml").read_text("utf-8")
    assert text.count(old) == 1
    path = folder / "params.yaml"
    path.write_text(text.replace(old, new), "utf-8")
    return path


def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path):
    params = read_params(written(tmp_path, "beta: 1000.0", "beta: 1e-4"))
    assert params.dpo["f5"].beta == 1e-4
    params = read_params(written(tmp_path, "recogniser_zh: whisper-base", "recogniser_zh: no"))
    assert params.judges.recogniser_zh == "no"


@pytest.mark.parametrize("scale", SCALES)
def test_a_file_that_was_rewritten_says_the_same(scale: str, tmp_path: Path):
    """`dvc exp run -S` and `make dry-paper` write parameters anew, without needless quotes."""
    yaml = YAML()
    yaml.dump(yaml.load(PARAMS / f"{scale}.yaml"), tmp_path / "params.yaml")
    assert read_params(tmp_path / "params.yaml") == load_params(scale)


def test_bad_files_are_named(tmp_path: Path):
    with pytest.raises(ParamsError, match=r"absent.yaml: no such file"):
        read_params(tmp_path / "absent.yaml")
    with pytest.raises(ParamsError, match=r'(?s)params.yaml: not valid YAML.*duplicate key "seed"'):
        read_params(written(tmp_path, "seed: 0", "seed: 0\nseed: 1"))
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ParamsError, match=r"empty.yaml: expected an object"):
        read_params(tmp_path / "empty.yaml")


def test_all_scales_have_the_same_knobs():
    def names(value: object, prefix: str = "") -> set[str]:
        if not isinstance(value, dict):
            return {prefix}
        return set().union(*(names(v, f"{prefix}.{k}") for k, v in value.items()))

    # Scales differ in which models they have, and models in what they are told.
    free = re.compile(
        r"\.pretraining|\.listening|\.models\.\w+\.(config|published)|\.sampling\.\w+\.evaluation"
    )
    block = re.compile(r"^(\.models|\.sampling|\.dpo|\.runs)\.\w+")
    seen = [
        {
            block.sub(r"\1", n)
            for n in names(YAML(typ="safe").load(PARAMS / f"{s}.yaml"))
            if not free.match(n)
        }
        for s in SCALES
    ]
    assert all(s == seen[0] for s in seen)
