"""Every knob of an experiment, read from one YAML file a scale and checked before anything runs.

YAML is read by the parser DVC uses (YAML 1.2), so that a stage's parameters and ours agree:
`1e-4` is a number, `off` and `no` are text, and a name written twice is an error.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML, YAMLError

from intp.paths import PARAMS, ROOT

Scale = Literal["smoke", "mini", "study", "paper"]
SCALES: tuple[str, ...] = get_args(Scale)


def _ascending(pair: list[float]) -> list[float]:
    if pair[0] > pair[1]:
        raise ValueError("expected the smaller number first")
    return pair


Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
TWO = (Field(min_length=2, max_length=2), AfterValidator(_ascending))
Range = Annotated[list[Positive], *TWO]
CountRange = Annotated[list[Count], *TWO]
Free = dict[str, Any]
Guard = Literal["second_error", "sim", "quality", "rate", "seconds", "pause_share", "f0_spread",
                "repeated", "missing"]  # fmt: skip

STRICT: Any = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
checked = dataclass(frozen=True, kw_only=True, config=STRICT)
FAULTS = {"unexpected_keyword_argument": "unknown name", "missing": "missing name"}


class ParamsError(ValueError):
    """A parameter that is unknown, missing, of the wrong type or out of range; names the file."""


@checked
class Prompts:
    """How many prompts a text type and direction (en2en, zh2zh, zh2en, en2zh), and of which length.

    `backend` writes the text types (docs/transforms.md), `llm` by `language_model` at `endpoint`; a
    perturbation must change what every one of `readers` ("module:function") hears.
    """

    backend: Literal["rules", "llm"]
    endpoint: str
    language_model: str
    readers: list[Text]
    mining: Count
    development: Count
    evaluation: Count
    reference_seconds: Range
    words: CountRange
    characters: CountRange


@checked
class Judges:
    """Who transcribes, who compares voices, who rates quality, and how they are fed.

    `mixed` is the checkpoint of the ear that judges code-switched speech by phonemes; null: the
    recogniser. `second` is asked beside them, and never in mining (judges.second).
    """

    recogniser: Text
    recogniser_zh: Text
    mixed: Text | None
    second: Literal["whisper-tiny.en + recogniser-zh", "none"]
    context_seconds: Annotated[float, Field(gt=0, le=30)]
    batch_size: Count
    similarity: Text
    quality: Text


@checked
class Model:
    """One system: its name in tables, which adapter reads which checkpoint, its sizes (`config`).

    With `published`, the adapter's other settings, the checkpoint is in its upstream's layout.
    """

    label: Text
    adapter: Text
    checkpoint: Text
    config: Free
    published: Free | None = None


@checked
class Sampling:
    """One set of sampling settings for each candidate in mining, one for evaluation."""

    mining: Annotated[list[Free], Field(min_length=2)]
    evaluation: Free


@checked
class Mining:
    """Which two answers to a prompt become a pair (A.3).

    `models` are mined; others with speech only take part in the arena (Table 2). `noise_pairs` many
    pairs are judged again with noise, to see how often their order flips.
    """

    models: list[Text]
    threshold: NotNegative
    threshold_unit: Literal["percentage points"]
    measure: Literal["error", "wer"]
    clamp: Positive
    chosen_at_most: NotNegative | None
    perturbed_threshold: NotNegative
    noise_pairs: Count


@checked
class DPO:
    """Alignment of one model (Appendix D)."""

    beta: Positive
    lr: Rate
    warmup_steps: Whole
    epochs: Count
    batch_pairs: Count
    pairs: Count | None
    weight_decay: NotNegative
    clip: Positive


@checked
class Variant:
    """One run: which of the mined pairs it learns from (None: whatever there is), and how.

    `loss` is a kind of `intp.losses.preference_loss`, or your own function as "module:function".
    `positives`: of the pairs of these text types, only those whose chosen answer all of them share
    (Table 5's group 3). Runs with the same `group` learn from equally many pairs if `equal_pairs`.
    """

    method: Literal["dpo", "sft"] = "dpo"
    loss: Text = "sigmoid"
    shuffled: bool = False
    text_types: list[Text] | None = None
    directions: list[Text] | None = None
    models: list[Text] | None = None
    of: Literal["one model", "two models"] | None = None
    positives: list[Text] | None = None
    group: Text | None = None


@checked
class Iterative:
    """The second round (5.3, C.2): whose v1 speaks again, and the text types of its prompts."""

    model: Text
    text_types: Annotated[list[Text], Field(min_length=1)]


@checked
class Unseen:
    """How many sentences an unseen language (E.2), and the folder of their `recordings`, if any."""

    sentences: Count
    recordings: Text | None


@checked
class Statistics:
    """Bootstrap resamples and the level of every interval."""

    resamples: Annotated[int, Field(ge=100)]
    level: Rate


@checked
class Listening:
    """Sizes of the listening test; the defaults are the paper's (3.4, A.4, F.3)."""

    reading_pairs: Count = 300
    preference_pairs: Count = 1000
    listeners: Count = 20
    ratings: Count = 3


@checked
class Claims:
    """The rule of the claims ledger: the `measure` that stands for the paper's WER, how far apart
    is still comparable, the worst topline (per cent) of a language that decides anything, and by
    how much alignment may move what it was not asked to (`guards`: least and greatest change)."""

    measure: Literal["WER", "error", "clamped error"]
    margins: dict[str, NotNegative]
    ceiling: Positive
    guards: dict[Guard, Annotated[list[float], *TWO]]


@checked
class Pretraining:
    """One frozen stage; `budget` is a batch's size, `weights` the loss terms."""

    steps: Count
    lr: Rate
    warmup: Count
    budget: Count
    save_every: Count
    weights: dict[str, NotNegative]
    optimizer: Literal["adamw", "muon"] = "adamw"


@checked
class Params:
    """All of it. A new knob is a new field here and a line in every file under params/."""

    scale: Scale
    seed: Whole
    prompts: Prompts
    judges: Judges
    models: dict[str, Model]
    sampling: dict[str, Sampling]
    mining: Mining
    dpo: dict[str, DPO]
    equal_pairs: bool
    variants: dict[str, Variant]
    runs: dict[str, list[Text]]
    iterative: Iterative
    unseen: Unseen
    statistics: Statistics
    listening: Listening
    claims: Claims
    pretraining: dict[str, Pretraining]

    @model_validator(mode="after")
    def _known_models(self) -> "Params":
        for block in ("sampling", "dpo"):
            if unknown := sorted(getattr(self, block).keys() - self.models.keys()):
                raise ValueError(f"{block}: {unknown} not among the models {sorted(self.models)}")
        for model, names in self.runs.items():
            for block in ("dpo", "sampling"):
                if model not in getattr(self, block):
                    known = sorted(getattr(self, block))
                    raise ValueError(f"runs.{model}: not among the models of {block} {known}")
            if unknown := sorted(set(names) - self.variants.keys()):
                raise ValueError(f"runs.{model}: {unknown} not among the variants")
        if "intp" not in self.runs.get(self.iterative.model, []):
            raise ValueError(f"iterative.model: no intp in runs.{self.iterative.model}")
        if unknown := sorted(set(self.mining.models) - self.sampling.keys()):
            raise ValueError(f"mining.models: {unknown} not in sampling {sorted(self.sampling)}")
        return self


def read_params(path: Path, overrides: Mapping[str, object] | None = None) -> Params:
    """Read and check one file; `overrides` replaces values by dotted name ("dpo.ars.beta").

    Raises ParamsError with every fault: file, dotted name, what is expected and what is there.
    """
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    try:
        values = YAML(typ="safe").load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(f"{name}: no such file") from error
    except YAMLError as error:
        raise ParamsError(f"{name}: not valid YAML: {error}") from error
    for dotted, value in (overrides or {}).items():
        *above, last = dotted.split(".")
        block: Any = values
        for key in above:
            block = block.get(key) if isinstance(block, dict) else None
        if not isinstance(block, dict) or last not in block:
            raise ParamsError(f"override {dotted}: unknown name; {name} has no such parameter")
        block[last] = value
    try:
        # As JSON, since in strict mode only JSON may turn a mapping into a dataclass.
        return TypeAdapter(Params).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ParamsError("\n".join(f"{name}: {line}" for line in _explain(error))) from error


def load_params(scale: str | None = None, overrides: Mapping[str, object] | None = None) -> Params:
    """The scale in force (params.yaml), or params/<scale>.yaml. Raises ParamsError."""
    params = read_params(PARAMS / f"{scale}.yaml" if scale else ROOT / "params.yaml", overrides)
    if scale not in (None, params.scale):
        raise ParamsError(f"params/{scale}.yaml: scale: expected {scale}, found {params.scale}")
    return params


def _explain(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        text = FAULTS.get(fault["type"])
        if text is None:
            found = json.dumps(fault["input"], default=str, ensure_ascii=False)
            text = fault["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
            text += f", found {found}" if len(found) < 60 else ""
        yield ": ".join(part for part in (".".join(map(str, fault["loc"])), text) if part)
