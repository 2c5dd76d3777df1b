"""The pictures of docs/annotate.md: the rating page on a desktop and on a phone.

python benchmarks/screenshots.py   # needs the extras [annotate, sample], playwright and a Chromium

The scene is that of `lpips-sat sample` (contains modified Copernicus Sentinel data).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
STRETCH = ["--black", "0.03,0.05,0.08", "--white", "0.15,0.14,0.15"]
SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}


def shoot(browser: Browser, link: str, name: str) -> None:
    context = browser.new_context(**SCREENS[name])
    page = context.new_page()
    page.goto(link)
    page.click("#intro .go")
    for done in range(9):
        page.wait_for_selector(f"#trial[aria-busy=false] img[src*='image/{done}/']")
        page.keyboard.press("ArrowLeft")
        if done < 8:
            page.keyboard.press("2")
    page.screenshot(path=IMAGES / f"annotate-{name}.png")
    context.close()


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["lpips-sat", "sample", "sample"], cwd=folder, check=True)
        make = ["annotate", "make", "sample/rgbn/ref.tif", "--out", "study", "--trials", "40"]
        title = ["--title", "Fields and woods, 10 m", "--seed", "3"]
        subprocess.run(["lpips-sat", *make, *STRETCH, *title], cwd=folder, check=True)
        serve = ["lpips-sat", "annotate", "serve", "study", "--port", "0"]
        with subprocess.Popen(serve, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
            links = json.loads(server.stdout.readline())["raters"].values()
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=chromium, args=sandbox)
                for name, link in zip(SCREENS, links, strict=False):
                    shoot(browser, link, name)
            server.terminate()


if __name__ == "__main__":
    main()
