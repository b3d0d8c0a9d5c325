"""One row of any set, under our names, and the recordings it names."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, InstanceOf, ValidationError, model_validator

from intp.audio import AudioError

PROMPT = ("prompt", "prompt_text", "target_text")
PAIR = (*PROMPT, "chosen", "rejected")
CORPUS = ("audio", "text")


class ReadError(ValueError):
    """What is wrong with a source, each fault with file, line and field."""


@dataclass(frozen=True)
class Span:
    """A recording in a file: all of it, or `size` bytes from `start` (a member of a tar)."""

    path: Path
    start: int = 0
    size: int = -1

    def read(self) -> bytes:
        """The encoded bytes; raises AudioError if there is no such file."""
        if not self.path.is_file():
            raise AudioError(f"{self.path}: no such audio file")
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


Audio = InstanceOf[Span] | InstanceOf[bytes]


class Row(BaseModel):
    """What a source says of a prompt, a pair or a recording; None where it says nothing.

    The names are the tables' own (docs/intp-schema.md), but that `prompt`, `chosen` and `rejected`
    are recordings here, whose ids are `prompt_id`, `chosen_id` and `rejected_id`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True
    )

    prompt: Audio | None = None
    chosen: Audio | None = None
    rejected: Audio | None = None
    audio: Audio | None = None
    id: str | None = None
    set: str | None = None
    text_type: str | None = None
    prompt_text: str | None = None
    prompt_lang: str | None = None
    target_text: str | None = None
    target_lang: str | None = None
    language_setting: str | None = None
    perturbed_text: str | None = None
    text: str | None = None
    lang: str | None = None
    seconds: float | None = None
    voice: str | None = None
    topic: str | None = None
    pair: str | None = None
    kind: Literal["intra", "inter", "perturbed"] | None = None
    rule: str | None = None
    judge: str | None = None
    normaliser: str | None = None
    gap: float | None = None
    prompt_id: str | None = None
    chosen_id: str | None = None
    rejected_id: str | None = None
    chosen_model: str | None = None
    rejected_model: str | None = None
    chosen_error: float | None = None
    rejected_error: float | None = None
    chosen_transcript: str | None = None
    rejected_transcript: str | None = None
    chosen_sampling: str | None = None
    rejected_sampling: str | None = None
    chosen_seed: int | None = None
    rejected_seed: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _empty_says_nothing(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value not in (None, "")}


def checked(values: dict[str, Any]) -> Row:
    """A row of values; raises ValueError naming the field at fault, and ReadError for columns that mean
    nothing here: better than to leave them unread unasked."""
    form = next((form for form in (PAIR, PROMPT, CORPUS) if values.keys() >= set(form)), None)
    if form is None:
        raise ReadError(
            f"columns {sorted(values)} are neither pairs {PAIR}, prompts {PROMPT} nor recordings "
            f"{CORPUS}; --columns ours=theirs renames"
        )
    strange = sorted(values.keys() - Row.model_fields.keys())
    if strange:
        raise ReadError(
            f"columns {strange} mean nothing here; rename them (--columns ours=theirs) or leave them "
            f"unread (--ignore); known are {', '.join(sorted(Row.model_fields))}"
        )
    try:
        row = Row.model_validate(values)
    except ValidationError as error:
        faults = [(fault["loc"][0], fault["msg"], fault["input"]) for fault in error.errors()]
        raise ValueError("; ".join(f"{n}: {m}, found {v!r}" for n, m, v in faults)) from error
    if lacking := [name for name in form if getattr(row, name) in (None, "")]:
        raise ValueError(f"{', '.join(lacking)}: empty")
    return row


def called(row: Row, field: str) -> str:
    """The field and, where there is one, the file that it names."""
    audio = getattr(row, field)
    return f"{field}: {audio.path}" if isinstance(audio, Span) else field


def read_bytes(row: Row, field: str) -> bytes:
    """The encoded bytes of the recording in a row's `field`; raises AudioError naming the field."""
    audio = getattr(row, field)
    try:
        return audio.read() if isinstance(audio, Span) else audio
    except AudioError as error:
        raise AudioError(f"{field}: {error}") from error


def digest(data: bytes) -> str:
    """A name for bytes."""
    return hashlib.sha256(data).hexdigest()[:12]
