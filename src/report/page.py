"""One report of a scale, read from disk: `python -m report.page [SCALE]` writes reports/<scale>/.

index.html has Table 4's summary, the claims ledger and the way to every page: one an executed
notebook, with its players, and one that asks whether the judge was learned. No network is needed.
"""

import base64
import html
import io
import re
import sys
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from matplotlib import mathtext
from nbconvert import HTMLExporter

from intp.params import ParamsError, load_params
from intp.paths import reports, results
from report.beside import write_text
from report.guards import COLUMNS
from report.verdicts import VERDICTS

# Code spans come first, so that what looks like TeX in them stays as it is.
MATH = re.compile(r"`[^`]*`|\$\$(.+?)\$\$|(?<![\\$\w])\$([^$\n]+?)\$(?!\w)", re.DOTALL)
OUTSIDE = {r"\lVert": r"\Vert ", r"\rVert": r"\Vert "}  # not in matplotlib's TeX
FOLDED = """{% extends "basic/index.html.j2" %}
{% block input %}<details><summary>code</summary>{{ super() }}</details>{% endblock input %}"""
CLASSES = dict(zip(VERDICTS, ("reproduced", "refuted", "undecided"), strict=True))


class ReportError(FileNotFoundError):
    """There is nothing to report: no executed notebook."""


def equation(tex: str, shown: bool) -> str:
    """TeX as an image within HTML, drawn by matplotlib; as code where that cannot read it."""
    words = re.sub(r"\\tag\{(\d+)\}", r"\\qquad (\1)", " ".join(tex.split()))
    for ours, theirs in OUTSIDE.items():
        words = words.replace(ours, theirs)
    drawn = io.BytesIO()
    try:
        mathtext.math_to_image(f"${words}$", drawn, format="svg", dpi=72)
    except ValueError:
        return f"<code>{html.escape(tex.strip())}</code>"
    data = base64.b64encode(drawn.getvalue()).decode()
    image = f'<img class="math" alt="{html.escape(tex)}" src="data:image/svg+xml;base64,{data}">'
    return f'<p class="equation">{image}</p>' if shown else image


def notebook_page(path: Path) -> tuple[str, str]:
    """Title and HTML body of an executed notebook; its code can be unfolded."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = MATH.sub(_drawn, cell.source)
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.raw_template = FOLDED
    body, _ = exporter.from_notebook_node(notebook)
    first = next((c.source for c in notebook.cells if c.cell_type == "markdown"), path.stem)
    return first.splitlines()[0].lstrip("# ").strip(), body


def _drawn(found: re.Match[str]) -> str:
    tex = found[1] or found[2]
    return equation(tex, shown=bool(found[1])) if tex else found[0]


def guards_page(table: pd.DataFrame) -> str:
    """Each aligned model's changes as a table, guard by set; what rings is marked."""
    parts = ["<h1>Did it learn speech or the judge?</h1>", "<p>After minus before, paired by item, with its "
             "interval; <span class='alarm'>alarm</span>: beyond its rule and clear of zero; "
             "<span class='beyond'>beyond</span>: chance would explain it. The rules are "
             "<code>claims.guards</code> of the parameters.</p>"]  # fmt: skip
    for row, rows in table.groupby("row", sort=False):
        rung = int((rows["alarm"] == "alarm").sum())
        names = (
            rows["guard"]
            + " ("
            + rows["unit"]
            + "), before: "
            + rows["before"].map("{:.2f}".format)
        )
        shown = rows.assign(
            name=names.where(rows["set"] == "avg"), text=[_moved(r) for r in rows.itertuples()]
        )
        shown["name"] = shown.groupby("guard")["name"].transform("last")
        wide = shown.pivot(index="name", columns="set", values="text")
        wide = wide.reindex(index=shown["name"].unique(), columns=rows["set"].unique()).fillna("")
        parts.append(f"<h2>{html.escape(str(row))}: {rung} of {len(rows)} ring</h2>")
        parts.append(wide.rename_axis(index=None, columns=None).to_html(escape=False, border=0))
    return "\n".join(parts)


def _moved(row) -> str:
    text = f"{row.change:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
    return f"<span class='{row.alarm}'>{text} {row.alarm}</span>" if row.alarm else text


def index_page(scale: str, claims: pd.DataFrame | None, pages: list[tuple[str, str]]) -> str:
    """What was found, and where to read on."""
    parts = [f"<h1>INTP, reproduced: {scale}</h1>", "<ul>"]
    link = '<li><a href="{0}.html">{0}</a>: {1}</li>'
    parts += [link.format(name, html.escape(title)) for name, title in pages]
    parts.append("</ul>")
    if claims is None:
        return "\n".join([*parts, "<p>No claims ledger yet: run the stage paper_tables.</p>"])
    counts = claims["verdict"].value_counts()
    said = [f"<b class='{CLASSES[v]}'>{counts.get(v, 0)} {v}</b>" for v in VERDICTS]
    parts.append(f"<h2>The paper's {len(claims)} claims</h2><p>{', '.join(said)}</p>")
    told = claims.assign(
        claim=claims["claim"].map(html.escape),
        verdict=[f"<span class='{CLASSES[v]}'>{v}</span>" for v in claims["verdict"]],
        comparison=claims["comparison"].map(html.escape),
        here=[f"{a} [{b}, {c}]" if a else "" for a, b, c in zip(
            claims["here"], claims["low"], claims["high"], strict=True)],
    ).drop(columns=["low", "high"])  # fmt: skip
    told = told.rename(columns={"paper_supports": "the paper supports it"})
    return "\n".join([*parts, told.to_html(escape=False, index=False, border=0)])


def build(scale: str, folder: Path, found: Path) -> Path:
    """Write the report of the executed notebooks in `folder` and the results in `found`; returns
    index.html. Raises ReportError where there is no executed notebook."""
    notebooks = sorted(folder.glob("*.ipynb"))
    if not notebooks:
        raise ReportError(f"{folder}: no executed notebook; run `make repro SCALE={scale}` first")
    made = {path.stem: notebook_page(path) for path in notebooks}
    if (found / "guards.csv").is_file():
        table = pd.read_csv(found / "guards.csv", keep_default_na=False)[COLUMNS]
        made["speech_or_judge"] = ("Did it learn speech or the judge?", guards_page(table))
    ledger = found / "claims.csv"
    claims = pd.read_csv(ledger, dtype=str, keep_default_na=False) if ledger.is_file() else None
    titles = [(name, title) for name, (title, _) in made.items()]
    made["index"] = (f"INTP, reproduced: {scale}", index_page(scale, claims, titles))
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent))
    template = environment.get_template("page.html.j2")
    links = [("index", "Report"), *((name, name) for name, _ in titles)]
    for name, (title, body) in made.items():
        page = template.render(title=html.escape(title), pages=links, body=body)
        write_text(page, folder / f"{name}.html")
    return folder / "index.html"


def main() -> int:
    """Write the report of a scale (the one in force by default) and say where it is."""
    try:
        scale = load_params(sys.argv[1] if len(sys.argv) > 1 else None).scale
        print(build(scale, reports(scale), results(scale)))
    except (ParamsError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
