"""The page in a real browser; skipped where there is no Chromium."""

from __future__ import annotations

import io
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lpips_sat.calibration.annotate.export import export_study

from .conftest import Server

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH (chromium, chromium-browser, google-chrome)"
)
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 3,
    "is_mobile": True,
    "has_touch": True,
}
# What a side shows, as PNG bytes through a canvas; the page's own pixels, not the server's word.
PIXELS = """side => {
  const image = document.querySelector(`[data-side=${side}] img.own`);
  const canvas = document.createElement('canvas');
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
}"""


@pytest.fixture(scope="module")
def launch():
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium asks it of root
    opened = []
    with playwright.sync_playwright() as driver:

        def start(*flags):
            made = driver.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, *flags])
            opened.append(made)
            return made

        yield start
        for one in opened:
            one.close()


@pytest.fixture(scope="module")
def browser(launch):
    return launch()


@pytest.fixture
def enter(browser):
    """Open a rater's page and close the instructions; its errors fail the test."""
    contexts, problems = [], []

    def opened(server: Server, rater: int = 0, using=browser, **look):
        context = using.new_context(**(look or DESKTOP))
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: m.type == "error" and problems.append(m.text))
        page.goto(f"{server.base}/r/{server.store.raters()[rater].token}/")
        page.click("#intro .go")
        ready(page, 0)
        return page

    opened.problems = problems
    yield opened
    for context in contexts:
        context.close()
    expected = "Failed to load resource: net::ERR_"  # what a browser says of a stopped server
    assert [p for p in problems if not p.startswith(expected)] == []


def ready(page, done: int) -> None:
    """Wait until trial `done` (from 0) is there with its pictures, or the end."""
    page.wait_for_function(
        """done => document.getElementById('count').textContent.startsWith(`${done} /`)
        && (document.getElementById('trial').hidden
        || document.getElementById('trial').ariaBusy === 'false')""",
        arg=done,
    )


def answer(page, done: int, key: str, sure: str = "2") -> None:
    page.keyboard.press(key)
    page.keyboard.press(sure)
    ready(page, done + 1)


def shown(study):
    """Pixels -> (trial, side), from the files of the study."""
    files = (study.folder / "images").glob("*-[ab].png")
    return {
        np.asarray(Image.open(f).convert("RGB")).tobytes(): (int(f.stem[:6]), f.stem[-1].upper())
        for f in files
    }


def test_two_raters_a_reload_and_a_restart_leave_exactly_sixty_votes(make, serve, enter, tmp_path):
    study = make(30, raters=2)
    server, known = serve(study), shown(study)
    pages = [enter(server, 0), enter(server, 1)]
    wanted = [lambda trial: "AB"[trial % 2], lambda trial: "BA"[trial % 2]]
    swaps = set()
    for done in range(30):
        for rater, page in enumerate(pages):
            rgba = np.array(page.evaluate(PIXELS, "left"), np.uint8).reshape(-1, 4)
            trial, left = known[rgba[:, :3].tobytes()]
            key = "ArrowLeft" if wanted[rater](trial) == left else "ArrowRight"
            swaps.add(left)
            if (rater, done) == (1, 15):  # the server goes away with this vote on its way
                server.stop()
                page.keyboard.press(key)
                page.keyboard.press("3")
                page.wait_for_selector("#problem:not([hidden])")
                assert "No connection" in page.inner_text("#problem")
                server.start()
                ready(page, done + 1)
                assert page.is_hidden("#problem")
            else:
                answer(page, done, key, "123"[done % 3])
        if done == 12:
            pages[0].reload()
            ready(pages[0], 13)
    for page in pages:
        assert "Thank you" in page.inner_text("#done")
    assert swaps == {"A", "B"}
    export_study(study, tmp_path / "out")
    votes = pd.read_csv(tmp_path / "out" / "votes.csv")
    assert len(votes) == 60
    assert not votes.duplicated(["id", "rater"]).any()
    for row in votes.itertuples():
        assert row.choice == wanted[int(row.rater[1:])](row.id)


def test_a_vote_waits_in_the_browser_for_a_server_that_is_gone(make, serve, enter):
    server = serve(make(4))
    page = enter(server)
    server.stop()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("1")
    page.wait_for_selector("#problem:not([hidden])")
    server.start()
    page.reload()  # the vote was in flight: it is sent again by the new page
    ready(page, 1)
    assert [v["confidence"] for v in server.store.votes()] == [1]


def test_keys_flip_zoom_move_undo_and_answer_without_confidence(make, serve, enter):
    server = serve(make(6))
    page = enter(server)
    first = page.locator("[data-side=left] img.own")
    page.keyboard.down("f")
    assert not first.is_visible()
    assert page.locator("[data-side=left] img.other").is_visible()
    assert page.inner_text("[data-side=left] .other") == "Reference"
    page.keyboard.up("f")
    assert first.is_visible()
    fitted = page.inner_text("#zoom")
    page.keyboard.press("+")
    assert page.inner_text("#zoom") != fitted
    before = first.bounding_box()
    page.keyboard.press("Shift+ArrowRight")
    boxes = [page.locator(f"[data-side={s}] img.own").bounding_box() for s in ("left", "ref")]
    views = [page.locator(f"[data-side={s}] .view").bounding_box() for s in ("left", "ref")]
    assert boxes[0]["x"] < before["x"]
    assert boxes[0]["x"] - views[0]["x"] == boxes[1]["x"] - views[1]["x"]  # all of them move
    page.keyboard.press("0")
    assert page.inner_text("#zoom") == fitted
    page.keyboard.press("1")  # no side is chosen yet
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#second", "aria-pressed") == "true"
    page.keyboard.press("Enter")
    ready(page, 1)
    answer(page, 1, "ArrowLeft", "3")
    page.keyboard.press("u")
    ready(page, 1)
    votes = server.store.votes()
    assert [(v["answer"], v["confidence"]) for v in votes] == [("right", None)]


@pytest.mark.parametrize("ratio", [1, 1.5, 3])
def test_every_image_pixel_is_a_square_of_whole_device_pixels(make, serve, enter, launch, ratio):
    # the browser's own scale: an emulated one rounds in CSS pixels, as no device does
    sharp = launch(f"--force-device-scale-factor={ratio}", "--window-size=700,800")
    page = enter(serve(make(2)), using=sharp, no_viewport=True)
    assert page.evaluate("devicePixelRatio") == ratio
    zoom = int(page.inner_text("#zoom")[:-1])
    assert zoom > 1
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot(scale="device"))).convert("RGB"))
    for side in ("left", "ref", "right"):
        rgba = np.array(page.evaluate(PIXELS, side), np.uint8).reshape(32, 32, 4)
        box = page.locator(f"[data-side={side}] .view").bounding_box()
        row, col = (round(box[k] * ratio) for k in "yx")
        part = picture[row : row + 32 * zoom, col : col + 32 * zoom]
        expected = rgba[:, :, :3].repeat(zoom, 0).repeat(zoom, 1)
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_the_screen(make, serve, enter, look):
    page = enter(serve(make(2)), **look)
    width, height = (look["viewport"][side] for side in ("width", "height"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight") <= height
    for name in ("#confidence", "#first", "#second", "#help"):
        box = page.locator(name).bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= width
        assert 0 <= box["y"] < box["y"] + box["height"] <= height


def test_a_phone_answers_by_touch(make, serve, enter):
    server = serve(make(2))
    page = enter(server, **PHONE)
    page.tap("#second")
    page.tap("#confidence button[value='1']")
    ready(page, 1)
    assert [(v["answer"], v["confidence"]) for v in server.store.votes()] == [("right", 1)]


def test_breaks_are_offered(make, serve, enter):
    page = enter(serve(make(5, break_every=2)))
    answer(page, 0, "ArrowLeft")
    answer(page, 1, "ArrowLeft")
    page.wait_for_selector("#pause[open]")
    assert "2 answered, 3 to go" in page.inner_text("#pause")
    page.keyboard.press("Enter")
    assert not page.is_visible("#pause")


def test_everything_can_be_reached_and_is_named(make, serve, enter):
    page = enter(serve(make(2)))
    page.keyboard.press("ArrowLeft")
    names = []
    page.evaluate("document.body.tabIndex = -1; document.body.focus()")
    for _ in range(11):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => { const e = document.activeElement, s = getComputedStyle(e);
            return [e.getAttribute('aria-label') || e.innerText.trim(), s.outlineStyle,
            parseFloat(s.outlineWidth)]; }"""
        )
        names.append(found[0].split("\n")[0])
        assert found[0]
        assert found[1] == "solid"
        assert found[2] >= 2
    assert {"Zoom in", "Zoom out"} <= set(names)
    assert any(name.startswith("A is closer") for name in names)
    assert any(name.startswith("Obvious") for name in names)
    assert page.evaluate("[...document.images].every(i => i.hasAttribute('alt'))")


def test_the_organisers_page_shows_raters_and_adds_one(make, serve, browser):
    server = serve(make(4))
    page = browser.new_page()
    page.goto(f"{server.base}/admin/{server.store.admin_token}/")
    page.wait_for_selector("#raters tr")
    page.fill("#name", "<b>Zoë</b>")
    page.click("#invite button")
    page.wait_for_selector("#raters tr:nth-child(3)")
    assert "<b>Zoë</b>" in page.inner_text("#raters")
    page.close()
