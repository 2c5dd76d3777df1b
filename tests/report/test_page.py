"""The page in a real browser: it works from disk, offline, on a phone and in the dark."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lpips_sat.report import write_report


@pytest.fixture
def opened(visit, page):
    """Open the page."""
    return lambda **options: visit(page, **options)


def transforms(tab):
    """How the pictures of the case that is shown are moved, without repetition."""
    return tab.eval_on_selector_all(
        ".case:not([hidden]) .view img", "all => [...new Set(all.map(i => i.style.transform))]"
    )


def test_zoom_and_pan_move_all_panels_alike(opened):
    tab = opened(viewport={"width": 1280, "height": 900})
    tab.click("[data-zoom='2']")
    assert transforms(tab) == ["scale(2) translate(-25%, -25%)"]
    assert tab.text_content("output") == "2\N{MULTIPLICATION SIGN}"
    view = tab.locator(".case:not([hidden]) .view").first
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + box["width"] / 4, y)
    tab.mouse.up()
    (moved,) = transforms(tab)
    assert "translate(-12.5" in moved or "translate(-12.4" in moved or "translate(-12.6" in moved
    tab.keyboard.down("Control")
    tab.mouse.wheel(0, -200)
    tab.keyboard.up("Control")
    tab.wait_for_function("document.querySelector('output').textContent === '4\u00d7'")
    assert len(transforms(tab)) == 1
    view.focus()
    tab.keyboard.press("0")
    assert tab.text_content("output") == "1\N{MULTIPLICATION SIGN}"
    assert all("scale(1)" in t for t in transforms(tab))


def test_one_image_is_shown_at_a_time_and_links_lead_to_it(opened):
    tab = opened(viewport={"width": 1280, "height": 900})
    shown = ".case:not([hidden])"
    assert tab.locator(shown).count() == 1
    first = tab.locator(shown).get_attribute("id")
    tab.click("[data-step='1']")
    assert tab.locator(shown).get_attribute("id") != first
    target = tab.locator("#extremes a").last.get_attribute("href")
    tab.locator("#extremes a").last.click()
    tab.wait_for_function(f"!document.querySelector('{target}').hidden")
    assert f"#{tab.locator(shown).get_attribute('id')}" == target
    assert tab.input_value("select") == target[1:]
    assert tab.evaluate(
        "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(opened, scheme):
    tab = opened(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(int(v) for v in ground.removeprefix("rgb(").rstrip(")").split(",")) < 200
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [1100, 400])
def test_long_names_are_wrapped(visit, tables, tmp_path, width):
    smooth = tables["smooth"]
    table = smooth.table.copy()
    table["id"] = [f"S2A_MSIL2A_20230615T103631_N0509_{i}_" + 80 * "x" for i in table.index]
    names = [f"swinir_x4_finetuned_epoch_{epoch}_" + 60 * "a" for epoch in (120, 240)]
    lacking = replace(smooth, table=table.assign(valid_share=0.5))
    out = tmp_path / "long.html"
    write_report({names[0]: replace(smooth, table=table), names[1]: lacking}, out, cases=1)
    tab = visit(out, viewport={"width": width, "height": 900})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    wider = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML)"
    assert tab.eval_on_selector_all(".chart, .case, details, h1, nav", wider) == []
    if width == 1100:
        assert tab.eval_on_selector_all(".wide", wider) == []


def test_paper_shows_every_image_and_no_buttons(opened):
    tab = opened()
    tab.emulate_media(media="print")
    assert tab.locator(".case:visible").count() == tab.locator(".case").count() == 5
    assert not tab.locator(".tools").is_visible()
