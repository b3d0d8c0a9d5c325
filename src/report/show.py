"""What people would rather look at or listen to: players, marked transcripts, curves."""

import base64
import html
import io
from collections.abc import Iterable

import jiwer
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import soundfile
from IPython.display import HTML

from intp.audio import SAMPLE_RATE, log_mel
from texts.normalise import error_units

plt.rcParams.update({"figure.dpi": 90, "svg.hashsalt": "intp", "axes.spines.top": False})
plt.rcParams.update({"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3})


def audio_tag(samples: np.ndarray) -> str:
    """An HTML player with the samples embedded as Opus (about 3 kB a second)."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="OGG", subtype="OPUS")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/ogg;base64,{data}"></audio>'


def marked(reference: str, transcript: str, lang: str) -> str:
    """The transcript's units as HTML: substituted or inserted ones red, deleted ones struck out."""
    wanted, heard = error_units(reference, lang), error_units(transcript, lang)
    output = jiwer.process_words(" ".join(wanted), " ".join(heard))
    parts = []
    for chunk in output.alignments[0]:
        said = html.escape(" ".join(heard[chunk.hyp_start_idx : chunk.hyp_end_idx]))
        lost = html.escape(" ".join(wanted[chunk.ref_start_idx : chunk.ref_end_idx]))
        if chunk.type == "equal":
            parts.append(said)
        elif chunk.type == "delete":
            parts.append(f"<s>{lost}</s>")
        else:
            parts.append(f'<b style="color:#c00" title="{lost}">{said}</b>')
    return " ".join(parts)


def listen(rows: Iterable[dict[str, object]]) -> HTML:
    """A table of texts and players: arrays become players, everything else is shown as it is."""
    cells = [
        {k: audio_tag(v) if isinstance(v, np.ndarray) else v for k, v in row.items()}
        for row in rows
    ]
    return HTML(pd.DataFrame(cells).to_html(escape=False, index=False, border=0))


def spectrograms(sounds: dict[str, np.ndarray]) -> plt.Figure:
    """Log-mel spectrograms side by side, one a sound."""
    figure, axes = plt.subplots(1, len(sounds), figsize=(4 * len(sounds), 2.6), squeeze=False)
    for axis, (name, samples) in zip(axes[0], sounds.items(), strict=True):
        axis.imshow(log_mel(samples).T, origin="lower", aspect="auto", cmap="magma")
        axis.set(title=name, xlabel="frame", ylabel="mel band")
        axis.grid(False)
    figure.tight_layout()
    return figure


def curves(log: pd.DataFrame, columns: list[str], window: int = 5) -> plt.Figure:
    """Training curves by step: each value, and its running mean."""
    figure, axes = plt.subplots(1, len(columns), figsize=(3.4 * len(columns), 2.6), squeeze=False)
    for axis, column in zip(axes[0], columns, strict=True):
        axis.plot(log["step"], log[column], alpha=0.35)
        axis.plot(log["step"], log[column].rolling(window, min_periods=1).mean())
        axis.set(title=column, xlabel="step")
    figure.tight_layout()
    return figure
