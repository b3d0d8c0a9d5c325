"""Languages that neither pretraining nor INTP has seen (Appendix E.2): prompts, toplines, Table 10."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from intp.corpus import read_audio, read_manifest
from intp.evaluate import judge
from intp.params import Params
from intp.paths import DATA, ROOT
from intp.prompts import PROMPT_COLUMNS
from report.tables import difference_cells, measure_cells, models_note, with_clamped
from texts.normalise import count_errors
from texts.unseen import phonemise_unseen, readings

LANGUAGES = {"ja": "Japanese", "ko": "Korean", "de": "German", "fr": "French"}
REFERENCES = "data/evaluation/references"
# Kana by sound: one script, the particles as they are said, no length.
SOUNDS = {c: c - 0x60 for c in range(ord("ァ"), ord("ヷ"))} | str.maketrans(
    "はへをハヘヲ", "わえおわえお", "ー"
)


def unseen_prompts(params: Params) -> pd.DataFrame:
    """The first `unseen.sentences` of each language, columns as all prompts have; `set` is the
    language's name in Table 10.

    References are recordings of the evaluation's voices, English and Chinese in turn, the same ones
    in every language: the paper's speakers of the language itself our corpus does not have.
    Raises ValueError if a language has fewer sentences or there are fewer references than that.
    """
    sentences = pd.read_json(DATA / "unseen.jsonl", lines=True)
    count, known = params.unseen.sentences, read_manifest(ROOT / REFERENCES)
    spoken = {lang: [r for r in known if r.lang == lang] for lang in ("en", "zh")}
    turns = [r for couple in zip(*spoken.values(), strict=False) for r in couple]
    least = min(len(turns), sentences["lang"].value_counts().reindex(list(LANGUAGES)).min())
    if count > least:
        raise ValueError(f"unseen.sentences: at most {least} a language, {count} asked for")
    rows = []
    for lang, name in LANGUAGES.items():
        texts = sentences[sentences["lang"] == lang].head(count)
        for text, reference in zip(texts.itertuples(), turns, strict=False):
            rows.append({
                "id": text.id, "split": "evaluation", "text_type": "unseen", "base": text.id,
                "set": name, "direction": f"{reference.lang}2{lang}",
                "target_text": text.text, "target_lang": lang,
                "target_phonemes": phonemise_unseen(readings().get(text.id, text.text), lang),
                "prompt_text": reference.text, "prompt_lang": reference.lang,
                "prompt_phonemes": reference.phonemes, "reference": reference.id,
                "reference_corpus": REFERENCES, "voice": reference.voice_name,
                "topic": "", "level": 0, "note": "",
            })  # fmt: skip
    return pd.DataFrame(rows, columns=PROMPT_COLUMNS)


def judge_unseen(
    audio: Mapping[str, np.ndarray],
    prompts: pd.DataFrame,
    params: Params,
    progress: str | None = None,
    quality: bool = True,
) -> pd.DataFrame:
    """`judge`, but a Japanese transcript may spell in kana what its sentence spells in kanji: `error`
    counts against the sentence or against its reading, whichever is nearer. WER stays the paper's.
    """
    scores = judge(dict(audio), prompts, params, progress, quality)
    for i, row in scores[scores["target_lang"] == "ja"].iterrows():
        texts = [text.translate(SOUNDS) for text in (readings()[row["id"]], row["transcript"])]
        found = count_errors(*texts, "ja", "error")
        if found.rate < row["error"]:
            scores.loc[i, "error"] = found.rate
            scores.loc[i, "error_edits"] = found.edits
            scores.loc[i, "error_length"] = found.length
    return scores


def topline(prompts: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Transcripts and errors of `unseen.recordings`, where a sentence has one; empty if none has.
    Nobody imitated a voice there, so there is no SIM."""
    folder = params.unseen.recordings
    audio = dict(read_audio(ROOT / folder, set(prompts["id"]))) if folder else {}
    rows = prompts[prompts["id"].isin(audio)]
    return rows if rows.empty else judge_unseen(audio, rows, params, "recordings", False)


def undecided(recorded: pd.DataFrame, params: Params) -> dict[str, str]:
    """Languages that decide nothing, by name, and why: what the judge makes of real recordings (as
    `topline` gives them) is unknown, or wrong too often."""
    ceiling = params.claims.ceiling
    errors = {}
    if len(recorded):
        errors = with_clamped(recorded, params).groupby("set")["clamped"].mean()
    found = {}
    for name in LANGUAGES.values():
        if name not in errors:
            found[name] = "no recordings, so no topline"
        elif errors[name] > ceiling:
            found[name] = f"topline error {errors[name]:.1f} % is above {ceiling:g} %"
    return found


def table_10(scores: dict[str, pd.DataFrame], recorded: pd.DataFrame, params: Params) -> list[dict]:
    """Table 10 from scores by row ("ARS", "ARS w/ INTP", …): every measure of every language, in the
    aligned row also after minus before, and a row of recordings where there are any.

    `note` says which language is undecided, and why. English and Chinese references alternate, and
    are no strata of the interval: half of so few sentences has none to speak of.
    """
    scores = {row: frame.assign(direction="any") for row, frame in scores.items()}
    cells = []
    for row, frame in (scores if recorded.empty else {"recording": recorded} | scores).items():
        for name, rows in frame.groupby("set", sort=False):
            cells += measure_cells(row, name, rows, params)
        base = row.partition(" w/ ")[0]
        if base != row:
            cells += difference_cells(row, scores[base], frame, params)
    reasons = undecided(recorded, params)
    for cell in cells:
        language = cell["column"].partition(" ")[0]
        why = reasons.get(language) or (language == "all" and ", ".join(reasons))
        parts = (models_note(params), f"undecided: {why}" if why else "")
        cell["note"] = "; ".join(filter(None, parts))
    return cells
