from collections.abc import Callable
from functools import partial
from math import nan
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchmetrics.functional.image import dists as torchmetrics_dists
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from lpips_sat import metrics as torchmetrics_classes
from lpips_sat.composites import NetworkInput
from lpips_sat.errors import MetricInputError, WeightsError
from lpips_sat.perceptual import DISTS, LPIPS, NetworkMetric
from lpips_sat.suites import Settings, build

MAKE = {"alex": partial(LPIPS, "alex"), "vgg": partial(LPIPS, "vgg"), "dists": DISTS}
NETWORKS = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}
every_metric = pytest.mark.parametrize("name", MAKE)


def random_features(net: str) -> dict[str, Tensor]:
    """Random convolutions, scaled so that features neither die nor explode."""
    generator = torch.Generator().manual_seed(1)
    with torch.device("meta"):
        shapes = NETWORKS[net]().features.state_dict()
    state = {}
    for name, empty in shapes.items():
        gain = (2 / empty[0].numel()) ** 0.5 if empty.ndim == 4 else 0.1
        state[f"features.{name}"] = gain * torch.randn(empty.shape, generator=generator)
    return state


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Fake checkpoints of torchvision's layout, without heads."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {net: folder / f"{net}.safetensors" for net in NETWORKS}
    for net, path in paths.items():
        save_file(random_features(net), path)
    return {**paths, "dists": paths["vgg"]}


@pytest.fixture(scope="module")
def metrics(checkpoints) -> dict[str, NetworkMetric]:
    return {
        name: make(weights=checkpoints[name], radiometry="display") for name, make in MAKE.items()
    }


def pair(n: int = 2, size: tuple[int, int] = (45, 67)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(n, 3, 9, 12, generator=generator)
    ref = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    noise = torch.randn(ref.shape, generator=generator)
    strength = torch.linspace(0.02, 0.1, n).view(n, 1, 1, 1)
    return (ref.roll(1, dims=3) + strength * noise).clamp(0, 1), ref


def features(net: str) -> nn.Sequential:
    """torchvision's own layers with our fake convolutions."""
    with torch.device("meta"):
        layers = NETWORKS[net]().features
    state = {name.removeprefix("features."): x for name, x in random_features(net).items()}
    layers.load_state_dict(state, assign=True)
    return layers


def oracle(name: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor, Tensor], Tensor]:
    """torchmetrics' own network around them, with the heads that it carries."""
    if name == "dists":
        vgg16 = SimpleNamespace(features=features("vgg"))
        monkeypatch.setattr(torchmetrics_dists, "vgg16", lambda weights: vgg16)
        return torchmetrics_dists.DISTSNetwork()
    monkeypatch.setattr(
        torchmetrics_lpips, "_get_tv_model_features", lambda net, pretrained: features(name)
    )
    network = torchmetrics_lpips._LPIPS(net=name, pnet_rand=True)
    return lambda pred, ref: network(2 * pred - 1, 2 * ref - 1).flatten()


@every_metric
def test_whole_images_score_as_torchmetrics_scores_them(name, metrics, monkeypatch):
    pred, ref = pair()
    expected = oracle(name, monkeypatch)(pred, ref)
    score = metrics[name](pred, ref)
    assert score.dtype == torch.float64
    assert (score > 1e-3).all()
    torch.testing.assert_close(score, expected.double(), rtol=1e-4, atol=1e-6)


@every_metric
def test_identical_images_score_zero_with_finite_gradients(name, metrics):
    ref = pair(3)[1]
    ref[1], ref[2] = 0.0, 0.3  # black, and flat
    pred = ref.clone().requires_grad_()
    scores = metrics[name](pred, ref)
    scores.sum().backward()
    assert scores.abs().max() < 1e-9
    assert pred.grad.isfinite().all()


@every_metric
def test_it_is_a_loss_whose_descent_lowers_it(name, metrics):
    pred, ref = pair(1)
    pred.requires_grad_()
    before = metrics[name](pred, ref)
    before.sum().backward()
    step = pred.grad / pred.grad.abs().max()
    after = metrics[name]((pred - 0.01 * step).detach(), ref)
    assert after.item() < before.item()


@every_metric
def test_a_score_does_not_depend_on_the_rest_of_the_batch(name, metrics):
    pred, ref = pair()
    alone = torch.cat([metrics[name](pred[[i]], ref[[i]]) for i in range(2)])
    torch.testing.assert_close(metrics[name](pred, ref), alone, rtol=1e-5, atol=1e-8)


@every_metric
@pytest.mark.parametrize("junk", [nan, 1e9])
def test_what_lies_under_the_mask_changes_nothing(name, metrics, junk):
    pred, ref = pair()
    valid = torch.rand(2, 1, 45, 67, generator=torch.Generator().manual_seed(3)) > 0.1
    valid[0, :, 5:20, 10:40] = False
    clean = metrics[name](pred, ref, valid)
    dirty_pred = pred.masked_fill(~valid, junk).requires_grad_()
    dirty = metrics[name](dirty_pred, ref.masked_fill(~valid, junk), valid)
    dirty.sum().backward()
    assert torch.equal(dirty, clean)
    assert (clean != metrics[name](pred, ref)).all()
    assert dirty_pred.grad.isfinite().all()
    assert (dirty_pred.grad[~valid.expand_as(pred)] == 0).all()


@every_metric
def test_a_mask_that_is_all_true_changes_nothing(name, metrics):
    pred, ref = pair()
    valid = torch.ones(2, 1, 45, 67, dtype=torch.bool)
    assert torch.equal(metrics[name](pred, ref, valid), metrics[name](pred, ref))


@every_metric
def test_an_image_without_a_valid_pixel_has_no_score(name, metrics):
    valid = torch.ones(2, 1, 45, 67, dtype=torch.bool)
    valid[1] = False
    assert metrics[name](*pair(), valid).isnan().tolist() == [False, True]


# Strips: long enough for a tile with its halo to end inside, cheap enough for VGG16.
@pytest.mark.parametrize(
    ("name", "size", "tile"),
    [("alex", (277, 341), 96), ("vgg", (37, 309), 96), ("dists", (309, 37), 96)],
)
def test_sums_of_tiles_with_a_halo_are_the_sums_of_the_whole(name, size, tile, metrics):
    metric = metrics[name]
    pred, ref = pair(1, size)
    valid = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(4)) > 0.02
    valid[..., 20:35, 20:60] = False
    total: Tensor | int = 0
    with torch.inference_mode():
        whole = metric.sums(pred, ref, valid=valid)
        for top in range(0, size[0], tile):
            for left in range(0, size[1], tile):
                core = torch.zeros_like(valid)
                core[..., top : top + tile, left : left + tile] = True
                rows = slice(max(top - metric.halo, 0), top + tile + metric.halo)
                columns = slice(max(left - metric.halo, 0), left + tile + metric.halo)
                at = (..., rows, columns)
                total = total + metric.sums(pred[at], ref[at], valid=valid[at], core=core[at])
    assert metric.halo % metric.align == 0
    torch.testing.assert_close(total, whole, rtol=1e-5, atol=1e-7)


def test_named_bands_are_shown_as_lpips_sat_shows_them(metrics, checkpoints):
    pred, ref = (0.27 * x[:, [0, 1, 2, 0]] for x in pair())
    bands = ("B02", "B03", "B04", "B08")
    metric = LPIPS(weights=checkpoints["alex"], bands=bands)
    shown = NetworkInput(bands, "reflectance")
    torch.testing.assert_close(metric(pred, ref), metrics["alex"](shown(pred), shown(ref)))
    infrared = LPIPS(weights=checkpoints["alex"], bands=bands, composite=("B08", "B04", "B03"))
    assert infrared.settings["composite"] == ["B08", "B04", "B03"]
    assert (infrared(pred, ref) != metric(pred, ref)).all()


def test_heads_in_the_file_replace_those_of_torchmetrics(tmp_path, metrics):
    state = random_features("alex")
    for layer, width in enumerate((64, 192, 384, 256, 256)):
        state[f"lin{layer}.model.1.weight"] = torch.ones(1, width, 1, 1)
    torch.save(state, tmp_path / "own.pth")
    own = LPIPS(weights=tmp_path / "own.pth", radiometry="display")
    pred, ref = pair()
    assert (own(pred, ref) > 2 * metrics["alex"](pred, ref)).all()
    assert own.settings["lpips_alex_weights"] == "own.pth"


def test_making_a_metric_draws_no_random_number_and_stays_in_evaluation_mode(checkpoints):
    before = torch.get_rng_state()
    metric = LPIPS(weights=checkpoints["alex"])
    assert torch.equal(torch.get_rng_state(), before)
    assert not metric.train().training
    assert not any(p.requires_grad for p in metric.parameters())


def test_small_images_and_unknown_networks_are_refused(metrics, checkpoints):
    with pytest.raises(MetricInputError, match=r"LPIPS-alex needs.*32 x 32 pixels, got 31 x 67"):
        metrics["alex"](*pair(size=(31, 67)))
    with pytest.raises(MetricInputError, match="one of alex, vgg, got 'squeeze'"):
        LPIPS("squeeze", weights=checkpoints["alex"])


def fetched(net: str, monkeypatch: pytest.MonkeyPatch, answer: object) -> dict[str, object]:
    """Let torchvision's download give `answer`; returns how it was asked."""
    asked: dict[str, object] = {}

    def get_state_dict(self: object, **kwargs: object) -> object:
        asked.update(kwargs)
        if isinstance(answer, Exception):
            raise answer
        return answer

    weights = {"alex": torchvision.models.AlexNet_Weights, "vgg": torchvision.models.VGG16_Weights}
    monkeypatch.setattr(weights[net], "get_state_dict", get_state_dict)
    return asked


def test_without_a_file_torchvisions_checkpoint_is_downloaded(monkeypatch, metrics):
    asked = fetched("alex", monkeypatch, random_features("alex"))
    metric = LPIPS(radiometry="display")
    pred, ref = pair()
    assert torch.equal(metric(pred, ref), metrics["alex"](pred, ref))
    assert asked["check_hash"] is True
    assert asked["weights_only"] is True
    assert metric.settings["lpips_alex_weights"] == "torchvision"


@every_metric
def test_offline_the_error_names_the_file_and_the_option(name, monkeypatch):
    fetched("alex" if name == "alex" else "vgg", monkeypatch, URLError("no route"))
    file = "alexnet-owt-7be5be79.pth" if name == "alex" else "vgg16-397923af.pth"
    with pytest.raises(WeightsError, match=rf"{file} .*no route.*weights=FILE.*--weights"):
        MAKE[name]()


def test_files_that_are_no_weights_are_refused(tmp_path):
    def load(state: object, file: str = "bad.pth") -> None:
        torch.save(state, tmp_path / file)
        LPIPS(weights=tmp_path / file)

    good = random_features("alex")
    with pytest.raises(WeightsError, match="does not exist"):
        LPIPS(weights=tmp_path / "missing.pth")
    with pytest.raises(WeightsError, match="cannot read"):
        load({"path": Path("x")})  # would have to be unpickled
    with pytest.raises(WeightsError, match="state dict of named tensors"):
        load({"epoch": 3})
    with pytest.raises(WeightsError, match=r"features.0.weight \(64, 3, 11, 11\) and 9 more of 10"):
        load({"conv1.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"must hold lin1.model.1.weight of shape.*got nothing"):
        load({**good, "lin0.model.1.weight": torch.ones(1, 64, 1, 1)})
    with pytest.raises(WeightsError, match="negative or non-finite"):
        load({**good, "lin0.model.1.weight": -torch.ones(1, 64, 1, 1)})
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(WeightsError, match="cannot read"):
        LPIPS(weights=tmp_path / "cut.safetensors")


@pytest.mark.parametrize(("name", "cls"), [("alex", "LPIPS"), ("dists", "DISTS")])
def test_the_torchmetrics_class_is_the_mean_over_images(name, cls, metrics, checkpoints):
    pred, ref = pair(3)
    made = getattr(torchmetrics_classes, cls)(weights=checkpoints[name], radiometry="display")
    made.update(pred[:1], ref[:1])
    made.update(pred[1:], ref[1:])
    torch.testing.assert_close(made.compute(), metrics[name](pred, ref).mean(), rtol=1e-5, atol=0)
    assert made.higher_is_better is False
    with pytest.raises(MetricInputError, match="32 x 32"):
        made.update(*pair(1, (31, 40)))


def test_suites_build_them_with_the_weights_named(checkpoints):
    weights = {"lpips-alex": str(checkpoints["alex"]), "dists": str(checkpoints["dists"])}
    settings = Settings(("B04", "B03", "B02"), weights=weights)
    built = build(["lpips-alex", "dists"], settings)
    assert [metric.name for metric in built] == ["LPIPS-alex", "DISTS"]
