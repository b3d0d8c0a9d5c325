"""Figure 2: what listeners hear before and after alignment."""

import pandas as pd

from report.show import plt


def figure_2(cells: pd.DataFrame, kind: str) -> plt.Figure:
    """(a) reading accuracy of each row, (b) win, tie and lose of the aligned voice.

    `cells` as figure_02.csv has them; `kind` of listeners stands in both titles.
    """
    read = cells[cells["column"] == "reading accuracy"].iloc[::-1]
    voice = cells[cells["column"].str.startswith("similarity ")]
    voice = voice.pivot(index="row", columns="column", values="value")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.5 * len(read) + 1.4))
    spread = [read["value"] - read["low"], read["high"] - read["value"]]
    left.barh(read["row"], read["value"], xerr=spread, color="tab:blue", alpha=0.7)
    left.set(title=f"(a) reading accuracy, {kind} listeners", xlabel="% of answers", xlim=(0, 100))
    base = pd.Series(0.0, voice.index)
    for name in ("win", "tie", "lose"):
        right.barh(voice.index, voice[f"similarity {name}"], left=base, label=name)
        base += voice[f"similarity {name}"]
    right.set(
        title=f"(b) speaker similarity, {kind} listeners", xlabel="% of answers", xlim=(0, 100)
    )
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure
