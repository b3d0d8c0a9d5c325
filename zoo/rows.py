"""What every token and mel model is pretrained on: utterances of one voice, joined."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from intp.adapters.base import Draw, Prompt
from intp.corpus import Utterance

POOL = 4  # batches' worth of rows that one batch is picked from
Row = TypeVar("Row")


def chance(most: int) -> int:
    """A number below `most`, from torch's seeded stream."""
    return int(torch.randint(most, ()))


def near_one(most: float) -> float:
    """A factor within `most` of one."""
    return 1 + most * (2 * float(torch.rand(())) - 1)


def corrupt(ids: Tensor, low: int, high: int) -> Tensor:
    """Ids [B, T] with up to 30 % of those in [low, high) of each row replaced by others there."""
    share = 0.3 * torch.rand(len(ids), 1)
    replace = (ids >= low) & (ids < high) & (torch.rand(ids.shape) < share)
    return torch.where(replace, torch.randint(low, max(high, low + 1), ids.shape), ids)


def joined(indices: Sequence[Tensor], rows: Sequence[Utterance], gap: int = 1) -> Tensor:
    """Indices into each row's phonemes as indices into the phonemes of all, `gap` symbols apart."""
    starts = torch.tensor([0] + [len(row.phonemes) + gap for row in rows[:-1]]).cumsum(0)
    return torch.cat([i + start for i, start in zip(indices, starts, strict=True)])


def random_draw() -> Draw:
    """A draw of its own for one training row."""
    return Draw(chance(2**31), chance(2**31))


class Speakers:
    """Training utterances by language and by voice."""

    def __init__(self, rows: list[Utterance]):
        self.groups: dict[str, list[Utterance]] = {}
        self.languages: dict[str, list[Utterance]] = {}
        for row in rows:
            self.groups.setdefault(max(row.voice, key=row.voice.get), []).append(row)
            self.languages.setdefault(row.lang, []).append(row)

    def pick(self, count: int) -> list[Utterance]:
        """`count` utterances of one voice; languages in turn alike, whatever the corpus holds."""
        languages = list(self.languages.values())
        begin = languages[chance(len(languages))]
        first = begin[chance(len(begin))]
        group = self.groups[max(first.voice, key=first.voice.get)]
        return [first] + [group[chance(len(group))] for _ in range(count - 1)]

    def mate(self, row: Utterance) -> Utterance:
        """A fixed training utterance of the voice of `row`."""
        return self.groups[max(row.voice, key=row.voice.get)][0]


def like_lengths(draw: Callable[[], Row], length: Callable[[Row], int], budget: int) -> list[Row]:
    """Rows of like length worth `budget`: a stretch of a larger draw in order of length, so that
    little of their batch is padding."""
    pool = [draw()]
    while sum(map(length, pool)) < POOL * budget:
        pool.append(draw())
    pool.sort(key=length)
    size = max(1, len(pool) // POOL)
    start = chance(len(pool) - size + 1)
    return pool[start : start + size]


def as_prompt(reference: list[Utterance], target: list[Utterance]) -> Prompt:
    """The prompt whose reference speech says `reference` and whose answer says `target`. The speech
    itself stays out: tasks hold it as tokens or mel already."""
    texts = [" ".join(row.text for row in rows) for rows in (reference, target)]
    phonemes = [" ".join(row.phonemes for row in rows) for rows in (reference, target)]
    return Prompt(
        target[0].id, texts[1], phonemes[1], target[0].lang,
        texts[0], phonemes[0], target[0].lang, torch.empty(0).numpy(),
    )  # fmt: skip
