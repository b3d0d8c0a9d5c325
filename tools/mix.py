"""Speech across languages, for the ear that judges it: never for a model to learn to speak from.

    python -m tools.mix [--count 2400] [--workers 2]

Training sentences, every third as it stands and the others code-switched by the rules, spoken by
training voices of either language. Resumable; writes data/corpus-mixed/, the manifest last.
"""

import argparse
from random import Random

from intp.corpus import Utterance, read_manifest
from intp.paths import DATA
from texts.glosses import read_lexicon
from texts.phonemes import phonemise
from texts.transforms import Refused, Rules
from tools.record import assemble, read_lines, record_all

FOLDER = DATA / "corpus-mixed"
SPEEDS = (0.9, 1.1)
KINDS = [  # text type, its language, the language of the voice
    ("code-switching", "en", "en"),
    ("code-switching", "zh", "zh"),
    ("regular", "en", "zh"),
    ("code-switching", "en", "zh"),
    ("code-switching", "zh", "en"),
    ("regular", "zh", "en"),
]


def voice(names: list[str], random: Random) -> dict[str, float]:
    """One training voice, or two in whole per cent."""
    if random.random() < 0.5:
        return {random.choice(names): 1.0}
    first, second = random.sample(names, 2)
    share = round(random.uniform(0.3, 0.7), 2)
    return {first: share, second: round(1 - share, 2)}


def plan(count: int, seed: int) -> list[Utterance]:
    """The utterances to speak, in an order whose prefixes are balanced over kinds."""
    random, sentences = Random(seed), DATA / "sentences.jsonl"
    trained = read_manifest(DATA / "corpus")
    voices = {
        lang: sorted({name for row in trained if row.lang == lang for name in row.voice})
        for lang in ("en", "zh")
    }
    rows = [row for row in read_lines(sentences) if row["part"] == "training"]
    random.shuffle(rows)
    rules, made = Rules(seed, read_lexicon(sentences)), []
    for row in rows:
        kind, lang, speaker = KINDS[len(made) % len(KINDS)]
        other = row["zh" if lang == "en" else "en"]
        try:
            said = rules.transform(row[lang], lang, kind, other)
        except Refused:
            continue
        utterance = Utterance(
            id=f"mixed-{row['id']}-{lang}", lang=said.lang, text=said.text,
            phonemes=phonemise(said.text, said.lang), voice=voice(voices[speaker], random),
            speed=round(random.uniform(*SPEEDS), 2), topic=row["topic"], level=row["level"],
            duration=0.0, shard="",
        )  # fmt: skip
        made.append(utterance)
        if len(made) == count:
            break
    return made


def main() -> None:
    """Speak what is planned, then put manifest and shards in place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    options = parser.parse_args()
    utterances = plan(options.count, options.seed)
    record_all(utterances, options.workers)
    rows = assemble(FOLDER, utterances)
    print(f"{FOLDER}: {len(rows)} utterances, {sum(row.duration for row in rows) / 3600:.2f} hours")


if __name__ == "__main__":
    main()
