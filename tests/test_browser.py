"""The listening test in a real browser: headless Chromium driving JupyterLab.

Skipped where Chromium or Playwright (`pip install playwright`, no browser of its own) is missing.
Screenshots go to .work/screenshots/.
"""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from intp.paths import ROOT, WORK

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

SHOTS = WORK / "screenshots"
CELL = """
import sys
sys.path[:0] = {paths}
from pathlib import Path
from listening_parts import SIZES, pairs_of, prompts
from dataclasses import replace
from intp.paths import DATA
from listening.design import build_plan
from listening.stimuli import load_clips
from listening.widget import ListeningWidget

asked = prompts()
pairs = pairs_of(asked, ("ars",))
sizes = replace(SIZES, reading_pairs=2, preference_pairs=2, listeners=3)
plan = build_plan(pairs, asked, sizes, seed=0, similarity=True)
ListeningWidget(plan, lambda names: load_clips(names, {{}}, [DATA / "corpus"]), Path({folder!r}))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """A JupyterLab on one notebook that shows the test; yields the notebook's address."""
    paths = [str(ROOT / "src"), str(ROOT), str(ROOT / "tests")]
    cell = nbformat.v4.new_code_cell(CELL.format(paths=paths, folder=str(tmp_path / "answers")))
    kernel = {"display_name": "python3", "language": "python", "name": "python3"}
    book = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
    nbformat.write(book, tmp_path / "test.ipynb")
    port = free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=t", f"--notebook-dir={tmp_path}",
    ]  # fmt: skip
    kernels = tmp_path / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "python3", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(spec))
    news = tmp_path / "settings" / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True)
    (news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    env = os.environ | {
        "JUPYTER_PATH": str(tmp_path / "jupyter"), "OMP_NUM_THREADS": "1",
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
    }  # fmt: skip
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(
            command, env=env, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
        )
    for _ in range(120):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.5)
    yield f"http://127.0.0.1:{port}/lab/tree/test.ipynb?token=t"
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(20)


def opened(context: object, address: str) -> object:
    """A tab in which the notebook's cell has run anew and shows the sheet."""
    page = context.new_page()
    page.goto(address)
    page.locator(".jp-Notebook").wait_for(timeout=60_000)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for(timeout=90_000)
    page.locator(".jp-Cell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    return page


def fill(page: object, name: str) -> None:
    sheet = page.locator(".lt-sheet").last
    sheet.wait_for(timeout=120_000)
    for field, value in (
        ("listener", name), ("languages", "en"), ("hearing", "good"), ("device", "headphones"),
    ):  # fmt: skip
        sheet.locator(f"input[name={field}]").fill(value)
    sheet.locator("input[name=consent]").check()
    page.screenshot(path=SHOTS / "1-sheet.png")
    sheet.locator("button[type=submit]").click()


def hear(root: object) -> None:
    """Play every clip of the page to its end."""
    players = root.locator(".lt-play")
    for k in range(players.count()):
        players.nth(k).click()
        root.locator(f".lt-play >> nth={k}").and_(root.locator("[data-plays='1']")).wait_for(
            timeout=30_000
        )


def rows(folder: Path) -> list[dict[str, str]]:
    files = list((folder / "answers").glob("*/*.csv"))
    return list(csv.DictReader(files[0].read_text().splitlines())) if files else []


def judge(page: object, folder: Path, shot: str | None = None) -> None:
    """Answer the item that is shown, and wait until it is on disk and the next page is there."""
    root = page.locator(".lt-root").last
    before = len(rows(folder))
    submit, closed = root.locator("button[type=submit]"), root.locator("fieldset[disabled]")
    submit.wait_for()
    assert closed.count() == 1 and submit.is_disabled(), "nobody rates what was not heard"
    hear(root)
    root.locator("input[name=answer]").first.check()
    if shot:
        root.screenshot(path=SHOTS / shot)
    submit.click()
    deadline = time.monotonic() + 20
    while len(rows(folder)) == before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(rows(folder)) == before + 1


def test_a_listener_is_led_through_and_a_killed_tab_resumes(lab: str, tmp_path: Path):
    SHOTS.mkdir(parents=True, exist_ok=True)
    asked_for: list[str] = []
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        context = browser.new_context(viewport={"width": 1100, "height": 900})
        context.on("request", lambda request: asked_for.append(request.url))
        page = opened(context, lab)
        fill(page, "fox-7")
        root = page.locator(".lt-root").last
        root.get_by_text("I hear it well").wait_for(timeout=60_000)
        assert root.get_by_text("I hear it well").is_disabled()
        hear(root)
        page.screenshot(path=SHOTS / "2-volume.png")
        root.get_by_text("I hear it well").click()
        judge(page, tmp_path, "3-reading.png")
        root.locator(".lt-next").wait_for()
        page.screenshot(path=SHOTS / "4-training.png")
        root.locator(".lt-next").click()
        root.get_by_text("2 of ").wait_for()
        page.keyboard.press("Control+s")
        page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
        page.reload()  # a page that was reloaded asks for its sound again
        root.get_by_text("2 of ").wait_for(timeout=60_000)
        hear(root)
        page.close()  # no farewell

        page = opened(context, lab)
        fill(page, "fox-7")
        root = page.locator(".lt-root").last
        root.get_by_text("Welcome back: 1 answers are kept").wait_for(timeout=60_000)
        hear(root)
        root.get_by_text("I hear it well").click()
        root.get_by_text("2 of ").wait_for()
        total = int(root.locator(".lt-progress").inner_text().rpartition(" ")[2])
        for number in range(1, total):
            kind = root.locator("legend").inner_text()
            players = root.locator(".lt-play").count()
            shot = {2: "5-naturalness.png", 3: "6-similarity.png"}.get(players)
            judge(page, tmp_path, shot)
            if root.locator(".lt-next").count():
                root.locator(".lt-next").click()
            page.wait_for_function(
                "([n, all]) => { const t = [...document.querySelectorAll('.lt-root')].pop().innerText;"
                " return t.includes(`${n} of ${all}`) || t.includes('Thank you'); }",
                arg=[number + 2, total],
            )
            assert kind
        root.get_by_text(f"All {total} answers are kept").wait_for()
        page.screenshot(path=SHOTS / "7-done.png")
        seen = page.content()
        browser.close()
    kept = rows(tmp_path)
    assert [int(row["position"]) for row in kept] == list(range(total))
    assert {row["kind"] for row in kept} == {"human"}
    assert not [row["pair"] for row in kept if row["pair"] in seen], "the page knows no names"
    assert not [
        url for url in asked_for if not url.startswith(("http://127.0.0.1", "blob:", "data:"))
    ]
