"""The page in a real browser: it works from disk, offline, on a phone, in the dark and on paper."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

SHOWN = ".case:not([hidden])"


@pytest.fixture
def opened(visit, page):
    """Open the page."""
    return lambda **options: visit(page, **options)


def test_one_plate_is_shown_at_a_time_and_all_its_pictures_zoom_together(opened):
    tab = opened(viewport={"width": 1280, "height": 900})
    first = tab.locator(SHOWN).get_attribute("id")
    tab.click("[data-step='1']")
    assert tab.locator(SHOWN).count() == 1
    assert tab.locator(SHOWN).get_attribute("id") != first
    tab.click("[data-zoom='2']")
    moved = tab.eval_on_selector_all(
        f"{SHOWN} .view img", "all => [...new Set(all.map(i => i.style.transform))]"
    )
    assert moved == ["scale(2) translate(-25%, -25%)"]
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_charts_follow_into_the_dark(opened, scheme):
    tab = opened(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    shot = tab.locator("#gap .chart img").first.screenshot()
    values = np.asarray(Image.open(io.BytesIO(shot)).convert("L"))
    ground, ink = np.median(values), values.min() if scheme == "light" else values.max()
    assert (ground < 64) == (scheme == "dark")
    assert abs(float(ink) - float(ground)) > 128


def test_links_of_the_head_lead_to_its_sections(opened):
    tab = opened(viewport={"width": 1280, "height": 900})
    targets = tab.eval_on_selector_all("nav a", "all => all.map(a => a.getAttribute('href'))")
    assert len(targets) == 11
    assert all(tab.locator(f"section{target}").count() == 1 for target in targets)


def test_paper_shows_every_plate_and_no_buttons(opened):
    tab = opened()
    tab.emulate_media(media="print")
    assert tab.locator(".case:visible").count() == tab.locator(".case").count() > 1
    assert not tab.locator(".tools").is_visible()
