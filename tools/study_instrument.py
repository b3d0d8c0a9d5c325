"""What judge and tokenizer do to recordings of the development set; evaluation is not touched.

`python -m tools.study_instrument` needs the development items and their references spoken (Kokoro,
kept in .work/recordings): `python tools/build_data.py references`, then `python tools/build_data.py
recordings --parts development`. Writes results/development/instrument.csv: the error of recordings,
of Griffin-Lim alone, of the tokenizer, and of code-switched recordings by the language the
recogniser was told: each text's matrix language (as the judge does), all Chinese, all English.
"""

import numpy as np
import pandas as pd
import soundfile
import torch

from intp.audio import griffin_lim, log_mel
from intp.files import whole
from intp.models import load_tokenizer
from intp.params import load_params
from intp.paths import ROOT
from judges import build_recogniser
from texts.normalise import count_errors, matrix_language
from tools.record import cached, item_utterances, reference_utterances

OUT = ROOT / "results" / "development" / "instrument.csv"


def main() -> None:
    """Measure, print and write."""
    used = ("regular", "code-switching")
    rows = [r for r in item_utterances("development") if any(name in r.id for name in used)]
    voices = {r.voice_name: r for r in reference_utterances("development")}
    missing = [r.id for r in (*rows, *voices.values()) if not cached(r).is_file()]
    if missing:
        raise SystemExit(
            f".work/recordings: {len(missing)} development recordings are missing, the first "
            f"{missing[0]}; run `python tools/build_data.py references`, then "
            "`python tools/build_data.py recordings --parts development`"
        )
    tokenizer, recogniser = load_tokenizer(), build_recogniser(load_params().judges)
    read = {r.id: soundfile.read(cached(r), dtype="float32")[0] for r in rows}
    regular = [r for r in rows if "regular" in r.id]
    mixed = [r for r in rows if "code-switching" in r.id]
    made = []

    def measure(name: str, some: list, clips: list[np.ndarray], told: list[str]) -> None:
        heard = recogniser.transcribe(clips, told, name)
        for row, text in zip(some, heard, strict=True):
            lang = "mixed" if row in mixed else row.lang
            rate = count_errors(row.text, text, lang, "error").rate
            made.append({"condition": name, "language": lang, "error": min(rate, 100.0)})

    told = [r.lang for r in regular]
    mels = [log_mel(read[r.id]) for r in regular]
    measure("recording", regular, [read[r.id] for r in regular], told)
    measure("Griffin-Lim", regular, [griffin_lim(mel) for mel in mels], told)
    with torch.inference_mode():
        timbres = [log_mel(soundfile.read(cached(voices[r.voice_name]))[0]) for r in regular]
        tokens = [tokenizer.tokens(mel) for mel in mels]
        through = [
            griffin_lim(tokenizer.speech(t, timbre))
            for t, timbre in zip(tokens, timbres, strict=True)
        ]
    measure("through the tokenizer", regular, through, told)
    matrix = [f"mixed-{matrix_language(r.text)}" for r in mixed]
    for name, languages in (
        ("told the matrix language", matrix),
        ("told Chinese", ["mixed-zh"] * len(mixed)),
        ("told English", ["mixed-en"] * len(mixed)),
    ):
        measure(name, mixed, [read[r.id] for r in mixed], languages)
    table = pd.DataFrame(made).groupby(["condition", "language"], sort=False)["error"]
    table = table.agg(["size", "mean"]).round(2).reset_index()
    table = table.rename(columns={"size": "n", "mean": "error"})
    with whole(OUT) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
