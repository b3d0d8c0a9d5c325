"""A set on its way: prompts, answers and pairs, checked one by one, their audio into shards."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from intp.audio import SAMPLE_RATE, mono, resample
from intp.corpus import Utterance, write_shard
from intp.speech import SHARD
from readers.rows import ReadError, Row, called, digest, read_bytes
from texts.normalise import LANGUAGES
from texts.phonemes import HAN, LATIN, phonemise
from texts.phonemes import LANGUAGES as PHONEMISED

SLACK = 0.5  # seconds by which a row may misjudge its recording; more, and something is cut off


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` if the block ends well and is gone if it does not.

    Raises ReadError if `out` is there already: nobody's files are overwritten.
    """
    if out.exists():
        raise ReadError(f"{out}: exists already; remove it or choose another --out")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def language(text: str, declared: str | None = None) -> str:
    """The language a text is read in: as declared, by script where nothing is, mixed where both are.

    Raises ValueError for a language that error rates have no rule for.
    """
    if declared and declared not in LANGUAGES:
        raise ValueError(f"unknown language {declared!r}; known are {', '.join(LANGUAGES)}")
    if HAN.search(text) and LATIN.search(text) and (declared or "en") in PHONEMISED:
        return "mixed"
    return declared or ("zh" if HAN.search(text) else "en")


def phonemes(text: str, lang: str) -> str:
    """Kokoro's symbols; empty in languages that only models with a front end of their own read."""
    if lang in PHONEMISED:
        return phonemise(text, lang)
    if not any(c.isalnum() for c in text):
        raise ValueError(f"empty text: nothing to say in {text!r} ({lang})")
    return ""


def fit(name: str) -> str:
    """`name` if a file can be called so; else ValueError."""
    if not name.strip() or "/" in name or "\0" in name or name.startswith("."):
        raise ValueError(f"id: {name!r} cannot name a file")
    return name


@dataclass(frozen=True)
class Rules:
    """What a reader is asked for. Limits are in seconds: of references, of the recordings whose
    transcripts are target texts (A.1: 12; 5 to 22), and of answers (what Whisper hears at once)."""

    split: str = "mining"
    seed: int = 0
    reference_seconds: tuple[float, float] = (0.0, 12.0)
    target_seconds: tuple[float, float] = (5.0, 22.0)
    answer_seconds: tuple[float, float] = (0.0, 30.0)
    per_direction: int | None = None
    directions: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()


@dataclass
class Reading:
    """A set on its way into `folder`; `corpus` is what prompts will call the folder of references.

    Every method that adds raises ValueError, naming the field, within `at`, which undoes the row.
    """

    name: str
    rules: Rules
    folder: Path
    corpus: str
    references: dict[str, Utterance] = field(default_factory=dict)
    spoken: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, dict] = field(default_factory=dict)
    answers: dict[str, dict] = field(default_factory=dict)
    pairs: dict[str, dict] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)
    kept: Counter = field(default_factory=Counter)
    waiting: defaultdict = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def at(self, where: str) -> Iterator[None]:
        """Keep the fault of one row with its place, so that one run finds them all; nothing else of a
        row at fault stays. Raises ReadError, with the place, for what ends the run."""
        tables = (self.references, self.spoken, self.prompts, self.answers, self.pairs)
        before, kept = [len(table) for table in tables], self.kept.copy()
        try:
            yield
        except ReadError as error:
            raise ReadError(f"{where}: {error}") from error
        except ValueError as error:
            self.faults.append((where, str(error)))
            for table, length in zip(tables, before, strict=True):
                while len(table) > length:
                    table.popitem()  # the last that came
            for part, rows in self.waiting.items():
                del rows[len(rows) - (self.kept[part] - kept[part]) :]
            self.kept = kept
        for part, rows in self.waiting.items():
            while len(rows) >= SHARD:
                self.flush(part)

    def keep(self, part: str, name: str, samples: np.ndarray) -> str:
        """Let samples wait for a shard under `part` and return its name."""
        number, self.kept[part] = self.kept[part] // SHARD, self.kept[part] + 1
        self.waiting[part].append((name, samples))
        return f"shard-{number:04d}.tar"

    def flush(self, part: str) -> None:
        """Write the first shard of what waits, if anything does."""
        rows = self.waiting[part]
        number = (self.kept[part] - len(rows)) // SHARD
        if shard := rows[:SHARD]:
            path = self.folder / part / f"shard-{number:04d}.tar"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_shard(path, iter(shard), SAMPLE_RATE, "flac")
            del rows[:SHARD]

    def hear(self, row: Row, name: str = "", lang: str | None = None) -> str:
        """Take a row's `prompt`, in `lang`, as a reference, once; `name` is by default made from its
        bytes."""
        data = b"" if name in self.references else read_bytes(row, "prompt")
        name = fit(name or f"ref-{digest(data)}")
        if name not in self.references:
            read_as = language(row.prompt_text, lang)
            said = phonemes(row.prompt_text, read_as)
            samples, seconds = _within(data, row, "prompt", self.rules.reference_seconds)
            if row.seconds and abs(seconds - row.seconds) > SLACK:
                raise ValueError(f"prompt: lasts {seconds:.2f} s, its row says {row.seconds:.2f}")
            self.references[name] = Utterance(
                id=name, lang=read_as, text=row.prompt_text, phonemes=said,
                voice={row.voice or name: 1.0}, speed=1.0, topic=row.topic or "", level=0,
                duration=round(seconds, 3), shard=self.keep("references", name, samples),
            )  # fmt: skip
            self.spoken[name] = lang or read_as
        if self.references[name].text != row.prompt_text:
            heard = self.references[name].text
            raise ValueError(f"prompt_text: elsewhere the same recording says {heard!r}")
        return name

    def ask(
        self, name: str, reference: str, text: str, lang: str | None = None, *,
        kind: str | None = None, group: str | None = None, base: str | None = None,
    ) -> None:  # fmt: skip
        """Add a prompt: `text`, in `lang`, to be said in the voice of `reference`."""
        read_as, heard = language(text, lang), self.references[reference]
        spoken, target = self.spoken[reference], lang or read_as
        alone = spoken == target and self.rules.split != "mining"
        made = {
            "id": fit(name), "split": self.rules.split, "base": base or name,
            "text_type": kind or "regular",
            "set": group or ("regular" if spoken == target else "cross-lingual"),
            "direction": target if alone else f"{spoken}2{target}", "target_text": text,
            "target_lang": read_as, "target_phonemes": phonemes(text, read_as),
            "prompt_text": heard.text, "prompt_lang": heard.lang, "prompt_phonemes": heard.phonemes,
            "reference": reference, "reference_corpus": self.corpus, "voice": heard.voice_name,
            "topic": heard.topic, "level": 0, "note": "",
        }  # fmt: skip
        if self.prompts.setdefault(name, made) != made:
            raise ValueError(f"id: {name!r} stands for two prompts")

    def answer(self, role: str, prompt: str, row: Row) -> dict:
        """Add a row's `chosen` or `rejected`; one recording may be part of several pairs."""
        data, model = read_bytes(row, role), fit(getattr(row, f"{role}_model") or self.name)
        name = fit(getattr(row, f"{role}_id") or f"{model}-{digest(data)}")
        same = {"id": name, "prompt": prompt, "model": model, "digest": digest(data)}
        known = self.answers.get(name)
        if known is None:
            samples, seconds = _within(data, row, role, self.rules.answer_seconds)
            shard = self.keep(f"speech/{model}", name, samples)
            known = self.answers[name] = same | {"seconds": seconds, "shard": shard}
        elif same.items() - known.items():
            raise ValueError(f"{role}: {name!r} is two recordings, or answers two prompts")
        return known


def _within(
    data: bytes, row: Row, role: str, limits: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """Samples [N] at 16 kHz and their length in seconds, which is within the limits."""
    name = called(row, role)
    samples, rate = mono(data, name)
    seconds = len(samples) / rate
    if not limits[0] <= seconds <= limits[1]:
        raise ValueError(
            f"{name}: lasts {seconds:.2f} s, allowed: {limits[0]:g} to {limits[1]:g} s"
        )
    return resample(samples, rate, SAMPLE_RATE), seconds
