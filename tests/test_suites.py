"""The registry of metrics, its suites, and metrics of other packages."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torchvision.models import AlexNet_Weights, VGG16_Weights, alexnet, vgg16

import lpips_sat
from lpips_sat.errors import PluginError, UnknownMetricError, WeightsError
from lpips_sat.lpips import LPIPSSat
from lpips_sat.suites import METRICS, SUITES, Settings, build, left_out, members, plugins

RGB = ("B04", "B03", "B02")
EVERYTHING = Settings(RGB, factor=4, lr_factor=4, gsd=2.5)


@pytest.fixture(autouse=True)
def imagenet(monkeypatch):
    """Networks of zeros in place of torchvision's downloads."""

    def empty(weights, **given):
        with torch.device("meta"):
            network = {"AlexNet_Weights": alexnet, "VGG16_Weights": vgg16}[type(weights).__name__]
            shapes = network().features.state_dict(prefix="features.")
        return {name: torch.zeros(x.shape) for name, x in shapes.items()}

    for weights in (AlexNet_Weights, VGG16_Weights):
        monkeypatch.setattr(weights, "get_state_dict", empty)


def names(metrics):
    return [metric.name for metric in metrics]


@pytest.mark.parametrize("name", METRICS)
def test_what_a_metric_is_said_to_be_is_what_is_built(name):
    (metric,) = build([name], EVERYTHING)
    assert metric.name.lower() == name
    about = METRICS[name].about
    direction = {True: "higher is better", False: "lower is better", None: "best at 0"}
    assert about.endswith(direction[metric.higher_is_better])
    assert metric.unit in about


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_listed_in_the_help_and_explained_where_it_is_made(run, name):
    assert name in run("score", "--help").stdout
    row = lpips_sat.suite.__doc__.split(f"``{name}``")[1].split("``")[0]
    assert set(SUITES[name]) <= set(row.split())


def test_a_suite_is_built_for_the_bands_and_settings_given():
    metrics = lpips_sat.suite("default", bands=RGB, factor=4, data_range=0.5)
    assert names(metrics) == ["LPIPS-Sat", "MAE", "RMSE", "PSNR", "SSIM", "SAM", "ERGAS"]
    assert metrics[3].settings == {"data_range": 0.5}
    assert metrics[6].settings == {"ratio": 0.25}
    display = lpips_sat.suite("perceptual", bands=RGB, radiometry="display")[0]
    assert display.to_input.kind == "display"


def test_what_does_not_apply_is_left_out_with_its_reason(monkeypatch):
    nir = Settings(("B08",))
    assert names(lpips_sat.suite(bands=["B08"])) == ["LPIPS-Sat", "MAE", "RMSE", "PSNR", "SSIM"]
    assert left_out("default", nir) == ["sam needs two bands or more", "ergas needs --factor"]
    monkeypatch.setitem(SUITES, "angles", ("sam",))
    with pytest.raises(UnknownMetricError, match="'angles': sam needs two bands or more"):
        members("angles", nir)


def test_names_that_do_not_exist_or_apply_are_errors_that_say_why():
    with pytest.raises(UnknownMetricError, match="'mine': choose from default, fidelity"):
        lpips_sat.suite("mine", bands=RGB)
    with pytest.raises(UnknownMetricError, match="'mea': choose from lpips-sat, mae"):
        build(["mae", "mea"], EVERYTHING)
    with pytest.raises(UnknownMetricError, match="'ergas': ergas needs --factor"):
        build(["ergas"], Settings(RGB))


def test_a_metric_is_built_once_and_in_the_order_asked_for():
    assert names(build(["SSIM", "mae", "ssim"], EVERYTHING)) == ["SSIM", "MAE"]


def test_weights_are_a_name_or_a_folder(tmp_path):
    (lin,) = build(["lpips-sat"], Settings(RGB, weights={"lpips-sat": "lin"}))
    assert lin.card["name"] == "lin"
    lin.save_pretrained(tmp_path / "mine")
    folder = {"lpips-sat": str(tmp_path / "mine")}
    (mine,) = build(["lpips-sat"], Settings(("B08", "B04", "B03"), weights=folder))
    assert mine.card["name"] == "lin"
    assert mine.to_input.composite == ("B08", "B04", "B03")
    assert not torch.equal(mine.heads[0], LPIPSSat().heads[0])


# --- on the command line


def scored(result):
    assert result.exit_code == 0, result.stderr
    return [item["name"] for item in json.loads(result.stdout)["scores"]]


@pytest.fixture
def pair(put, textured, tmp_path):
    """Two rasters of reflectance with three bands."""
    ref = textured(3, 48, 48).astype("float32")
    return put(tmp_path / "pred.tif", ref * 0.9, bands=RGB), put(tmp_path / "r.tif", ref, bands=RGB)


def test_a_suite_is_scored_and_says_what_it_left_out(run, pair):
    result = run("score", *pair, "--suite", "spectral", "--json")
    assert scored(result) == names(build(members("spectral", Settings(RGB)), Settings(RGB)))
    assert result.stderr == "left out of spectral: ergas needs --factor\n"


def test_metrics_beside_a_suite_are_added(run, pair):
    result = run("score", *pair, "--suite", "spectral", "--metrics", "mae", "--json", "--factor", 4)
    assert scored(result)[-1] == "MAE"
    assert "ERGAS" in scored(result)


def test_weights_of_a_metric_that_is_not_asked_for_are_refused():
    with pytest.raises(UnknownMetricError, match="weights of lpipssat, but the metrics are mae"):
        build(["mae"], Settings(RGB, weights={"lpipssat": "lin"}))


def test_a_network_without_weights_is_no_metric():
    with pytest.raises(WeightsError, match="the pyramid is untrained"):
        build(["lpips-sat"], Settings(RGB, weights={"lpips-sat": "pyramid"}))


def test_weights_are_chosen_by_name(run, pair):
    args = ("--metrics", "lpips-sat", "--json", "--weights", "lpips-sat=lin")
    result = run("score", *pair, *args)
    assert json.loads(result.stdout)["settings"]["weights"]["name"] == "lin"


# --- metrics of other packages


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package with metrics, as pip lays it out: a module and its dist-info."""

    def add(code: str, **points: str) -> None:
        site = tmp_path / "site"
        info = site / "worst_pixel-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: worst-pixel\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[lpips_sat.metrics]", *lines]))
        (site / "worst_pixel.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, "worst_pixel", raising=False)

    return add


GOOD = '''
    """A metric of another package."""
    from lpips_sat.errors import MetricInputError
    from lpips_sat.functional.mae import mae_sums
    from lpips_sat.tiled import Tiled

    def share_above(settings):
        """Share of the range that the mean error takes."""
        if settings.factor is None:
            raise MetricInputError("pass --factor")
        def from_sums(sums):
            return sums[:, :-1].mean(1) / sums[:, -1] / settings.data_range
        return Tiled("share", "", False, mae_sums, from_sums)

    ready = Tiled("ready", "input units", False, mae_sums, lambda sums: sums[:, 0] / sums[:, -1])
    number = 3
'''


def test_a_metric_of_an_installed_package_is_scored_by_its_name(run, pair, install):
    install(GOOD, share="worst_pixel:share_above", ready="worst_pixel:ready")
    args = ("--metrics", "mae,Share,ready", "--data-range", "0.5", "--factor", "2")
    result = run("score", *pair, "--json", *args)
    assert scored(result) == ["MAE", "share", "ready"]
    values = [item["value"] for item in json.loads(result.stdout)["scores"]]
    assert values[1] == pytest.approx(values[0] / 0.5)
    listed = json.loads(run("info", "--json").stdout)["metrics of other packages"]
    assert listed["ready"] == "ready (worst_pixel:ready)"
    assert listed["share"] == (
        "Share of the range that the mean error takes (worst_pixel:share_above)"
    )


def test_a_plugin_that_gives_another_shape_is_named(run, pair, install):
    install(GOOD.replace("sums[:, 0] / sums[:, -1]", "sums"), ready="worst_pixel:ready")
    result = run("score", *pair, "--metrics", "ready")
    assert result.exit_code == 1
    assert "ready: from_sums must give one number for each image, shape (1,), but" in result.stderr


def test_what_a_plugin_refuses_is_said_in_its_own_words(run, pair, install):
    install(GOOD, share="worst_pixel:share_above")
    result = run("score", *pair, "--metrics", "share")
    assert (result.exit_code, result.stderr) == (1, "Error: pass --factor\n")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("absent_module:metric", "cannot be loaded (ModuleNotFoundError: No module named"),
        ("worst_pixel:absent", "cannot be loaded (AttributeError"),
        ("worst_pixel:number", "cannot be built (TypeError: 'int' object is not callable"),
        ("builtins:repr", "is no metric: it has no name, unit, halo"),
    ],
)
def test_a_broken_plugin_is_one_clear_line_and_breaks_no_other(run, pair, install, target, message):
    install(GOOD, broken=target, ready="worst_pixel:ready")
    result = run("score", *pair, "--metrics", "mae,broken")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: metric 'broken': ")
    assert message in line
    assert line.endswith("update or uninstall worst-pixel")
    assert scored(run("score", *pair, "--metrics", "mae,ready", "--json")) == ["MAE", "ready"]
    assert run("info").exit_code == 0


def test_a_plugin_cannot_replace_a_metric_of_ours(install):
    install(GOOD, mae="worst_pixel:ready")
    assert build(["mae"], EVERYTHING)[0].name == "MAE"
    assert "has the name of a built-in metric" in plugins()["mae"]


def test_a_typo_lists_the_plugins_too(install):
    install(GOOD, ready="worst_pixel:ready")
    with pytest.raises(UnknownMetricError, match=r"ergas.*, ready$"):
        build(["raedy"], EVERYTHING)


def test_a_plugin_that_is_no_metric_is_a_plugin_error(install):
    install(GOOD, broken="builtins:repr")
    with pytest.raises(PluginError, match="is no metric"):
        build(["broken"], EVERYTHING)


def test_the_worked_example_of_the_docs_is_scored(run, pair, install):
    page = (Path(__file__).parent.parent / "docs" / "plugins.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    ((name, target),) = re.findall(r'^(\w+) = "within_tolerance:(\w+)"$', page, flags=re.MULTILINE)
    install(code, **{name: f"worst_pixel:{target}"})
    result = run("score", *pair, "--metrics", name, "--json", "--data-range", "1")
    assert scored(result) == ["misses"]
    with rasterio.open(pair[0]) as pred, rasterio.open(pair[1]) as ref:
        share = (np.abs(pred.read() - ref.read()) > 0.01).mean()
    assert 0.1 < share < 0.9
    assert json.loads(result.stdout)["scores"][0]["value"] == pytest.approx(share)
    assert "misses: Share of values off by more than 1 % of the range" in run("info").stdout
