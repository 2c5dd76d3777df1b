"""Checkpoints with random weights in torchgeo's layout stand for the published ones."""

import hashlib
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from lpips_sat import LPIPSSat
from lpips_sat.backbones import ssl4eo
from lpips_sat.composites import BandInput
from lpips_sat.errors import MetricInputError, WeightsError

L1C = tuple(ssl4eo.MEAN_REFLECTANCE)
L2A = tuple(band for band in L1C if band != "B10")
ALL, RGB = "ssl4eo-s12-resnet18-moco", "ssl4eo-s12-resnet18-moco-rgb"


def random_state(network: str, bands: int) -> dict[str, torch.Tensor]:
    """What torchgeo publishes: timm's whole network without the classifier's weights."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = timm.create_model(network, in_chans=bands)
        state = model.state_dict()
        for name, value in state.items():
            if name.endswith("running_mean"):  # untrained statistics would hide a missing eval()
                value.uniform_(-0.1, 0.1)
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {}
    for name in (ALL, RGB):
        paths[name] = folder / f"{name}.pth"
        torch.save(random_state("resnet18", len(ssl4eo.PUBLISHED[name].bands)), paths[name])
    return paths


def load(name: str, path: Path | str, **options: object) -> LPIPSSat:
    return LPIPSSat(name, backbone_config={"checkpoint": path}, **options)


def images(bands: int, seed: int = 0, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ref = 0.3 * torch.rand(2, bands, side, side, generator=generator)
    return (ref + 0.03 * torch.randn(ref.shape, generator=generator)).clamp(min=0), ref


# -- what the network computes ----------------------------------------------------------------


def by_hand(x: torch.Tensor, y: torch.Tensor, path: Path) -> torch.Tensor:
    """LPIPS with weights of 1 on timm's whole network, stage by stage."""
    model = timm.create_model("resnet18", in_chans=x.shape[1])
    model.load_state_dict(torch.load(path, weights_only=True), strict=False)
    model.eval()

    def stages(image: torch.Tensor) -> list[torch.Tensor]:
        found = [model.act1(model.bn1(model.conv1(image)))]
        image = model.maxpool(found[0])
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            found.append(image := stage(image))
        return [f / (f.square().sum(1, keepdim=True) + 1e-8).sqrt() for f in found]

    with torch.no_grad():
        pairs = zip(stages(x), stages(y), strict=True)
        return sum((a - b).square().sum(1).mean((1, 2)) for a, b in pairs)


def test_thirteen_bands_are_scored_as_reflectance_in_the_order_of_the_checkpoint(files):
    pred, ref = images(13)
    expected = by_hand(pred, ref, files[ALL])
    metric = load(ALL, files[ALL], bands=L1C)
    torch.testing.assert_close(metric(pred, ref), expected, rtol=1e-4, atol=0)
    order = [L1C.index(band) for band in reversed(L1C)]
    turned = load(ALL, files[ALL], bands=[L1C[i] for i in order])
    torch.testing.assert_close(turned(pred[:, order], ref[:, order]), expected, rtol=1e-4, atol=0)


def test_the_colour_network_takes_red_green_blue_reflectance(files):
    pred, ref = images(4)
    metric = load(RGB, files[RGB], bands=("blue", "green", "red", "nir"))
    expected = by_hand(pred[:, [2, 1, 0]], ref[:, [2, 1, 0]], files[RGB])
    torch.testing.assert_close(metric(pred, ref), expected, rtol=1e-4, atol=0)


def test_level_2a_without_the_cirrus_band_is_scored_with_its_mean_in_its_place(files):
    pred, ref = images(12)
    metric = load(ALL, files[ALL], bands=L2A)
    assert metric.to_input.filled == ("B10",)
    at = L1C.index("B10")
    filled = [
        torch.cat([x[:, :at], torch.full_like(x[:, :1], 0.0022), x[:, at:]], dim=1)
        for x in (pred, ref)
    ]
    expected = load(ALL, files[ALL], bands=L1C)(*filled)
    torch.testing.assert_close(metric(pred, ref), expected, rtol=1e-6, atol=0)


def test_a_picture_is_taken_for_reflectance_over_white_and_other_bands_for_their_mean(files):
    look = load(ALL, files[ALL], radiometry="display").to_input
    seen = look(torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1)).flatten()
    expected = list(ssl4eo.MEAN_REFLECTANCE.values())
    expected[1:4] = [0.25 * 0.275, 0.5 * 0.275, 0.275]  # B02, B03, B04
    torch.testing.assert_close(seen, torch.tensor(expected))
    assert "B10 = 0.0022" in look.about


def test_tiles_with_a_halo_add_up_to_the_whole(files):
    metric = load(RGB, files[RGB])
    pred, ref = images(3, side=384)
    pred, ref = pred[:1], ref[:1]
    cut = 96  # a multiple of align; the tile on its right needs the halo
    assert cut % metric.align == 0
    core = torch.zeros(1, 1, 384, 384, dtype=torch.bool)
    core[..., :cut, :cut] = True
    side = -(-(cut + metric.halo) // metric.align) * metric.align
    assert side < 384
    part = (..., slice(0, side), slice(0, side))
    whole = metric.sums(pred, ref, core=core)
    torch.testing.assert_close(
        metric.sums(pred[part], ref[part], core=core[part]), whole, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_no_pixel_beyond_the_radius_reaches_a_position_and_one_at_the_radius_does(network):
    backbone = ssl4eo.Ssl4eoFeatures(f"ssl4eo-s12-{network}-moco-rgb", pretrained=False)
    backbone.eval().double()
    for parameter in backbone.parameters():
        parameter.data.abs_().clamp_(min=1e-3)  # nothing cancels, no ReLU closes
    stride, position = backbone.strides[-1], 9
    falling = torch.linspace(2, 1, stride * 20).double()  # maxima are pooled from the left
    x = falling.expand(1, 3, 32, -1).clone().requires_grad_()
    backbone(x)[-1][..., position].sum().backward()
    (seen,) = x.grad.abs().sum(dim=(0, 1, 2)).nonzero(as_tuple=True)
    assert stride * position - seen.min() == backbone.radius
    assert seen.max() - stride * position <= backbone.radius


def test_training_a_parent_does_not_move_batch_statistics(files):
    metric = load(RGB, files[RGB])
    before = {k: v.clone() for k, v in metric.state_dict().items()}
    torch.nn.Sequential(metric).train()
    metric(*images(3))
    assert all(torch.equal(v, before[k]) for k, v in metric.state_dict().items())


# -- files --------------------------------------------------------------------------------------


def test_safetensors_and_a_checkpoint_with_a_classifier_load_alike(files, tmp_path):
    state = torch.load(files[RGB], weights_only=True)
    save_file(state, tmp_path / "a.safetensors")
    torch.save({**state, "fc.weight": torch.zeros(9, 512)}, tmp_path / "b.pth")
    pred, ref = images(3)
    expected = load(RGB, files[RGB])(pred, ref)
    for name in ("a.safetensors", "b.pth"):
        assert torch.equal(load(RGB, tmp_path / name)(pred, ref), expected)


def test_the_card_names_the_checkpoint_and_its_licence(files):
    card = load(RGB, files[RGB]).card["backbone"]
    assert card["sha256"] == hashlib.sha256(files[RGB].read_bytes()).hexdigest()
    assert card["name"] == RGB
    assert "CC-BY-4.0" in card["licence"]


def test_every_published_file_ends_with_the_beginning_of_its_digest():
    for name, published in ssl4eo.PUBLISHED.items():
        assert len(published.digest) == 8
        assert set(published.digest) <= set("0123456789abcdef")
        assert name.startswith(f"ssl4eo-s12-{published.network}")
        assert len(published.revision) == 40


def test_nothing_is_downloaded_unless_asked_for(monkeypatch):
    monkeypatch.setattr(ssl4eo, "hf_hub_download", None)  # a call would be a TypeError
    with pytest.raises(WeightsError, match=r"are not part of this package: download .*moco-59bf"):
        LPIPSSat(ALL, bands=L1C)


def test_the_hub_gives_the_file_of_torchgeo_and_its_digest_is_checked(files, monkeypatch):
    asked = []

    def download(repository, file, *, revision):
        asked.append((repository, file, revision))
        return str(files[RGB])

    monkeypatch.setattr(ssl4eo, "hf_hub_download", download)
    with pytest.raises(WeightsError, match="damaged: its sha256 does not begin with e3a335e3"):
        load(RGB, "hub")
    digest = hashlib.sha256(files[RGB].read_bytes()).hexdigest()[:8]
    fake = ssl4eo._published("resnet18", "rgb", "moco", "0" * 40, digest)
    monkeypatch.setitem(ssl4eo.PUBLISHED, RGB, fake)
    assert load(RGB, "hub").card["backbone"]["sha256"].startswith(digest)
    assert asked[-1] == ("torchgeo/resnet18_sentinel2_rgb_moco", fake.file, "0" * 40)


def test_a_failed_download_says_how_to_do_without(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(ssl4eo, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=r"no route to host.*pass the file as checkpoint"):
        load(RGB, "hub")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: random_state("resnet18", 13), f"takes 13 bands, {RGB} takes 3: did you mean"),
        (lambda: random_state("resnet50", 3), "is not resnet18 in torchgeo's layout"),
        (lambda: {"epoch": torch.ones(1)}, "it holds 1 entries: epoch"),
        (lambda: {"state_dict": {}}, "must hold a state dict of named tensors"),
        (lambda: {"conv1.weight": Path("a class")}, "cannot read the weights"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_in_one_line(tmp_path, content, message):
    torch.save(content(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        load(RGB, tmp_path / "other.pth")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_damaged_is_refused(files, tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        load(RGB, tmp_path / "absent.pth")
    for name in ("short.pth", "short.safetensors"):
        (tmp_path / name).write_bytes(files[RGB].read_bytes()[:5000])
        with pytest.raises(WeightsError, match="cannot read the weights"):
            load(RGB, tmp_path / name)


# -- bands ----------------------------------------------------------------------------------------


def test_bands_that_are_missing_are_named(files):
    with pytest.raises(
        MetricInputError, match=r"of these B01, B05, .*B12 are not among .*B04, B03"
    ):
        load(ALL, files[ALL], bands=("B04", "B03", "B02"))
    with pytest.raises(MetricInputError, match="of these B02 are not among the bands named, B04"):
        load(RGB, files[RGB], bands=("B04", "B03", "B08"))


def test_a_picture_without_any_of_the_bands_is_refused():
    with pytest.raises(MetricInputError, match="are not among the bands named, pan"):
        BandInput(("pan",), "display", ssl4eo.MEAN_REFLECTANCE)


def test_a_composite_does_not_apply(files):
    with pytest.raises(MetricInputError, match="composite does not apply"):
        load(RGB, files[RGB], composite=("B04", "B03", "B02"))


def test_another_number_of_channels_is_refused(files):
    with pytest.raises(MetricInputError, match="expected 12 channels"):
        load(ALL, files[ALL], bands=L2A)(*images(13))


# -- calibration ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(release, tmp_path_factory):
    return release(tmp_path_factory.mktemp("judged") / "release", trials=30)


def test_one_command_calibrates_heads_and_both_of_its_outputs_are_the_metric(
    files, judged, run, tmp_path
):
    out, heads = tmp_path / "mine", tmp_path / "heads.safetensors"
    args = ["--judgements", judged, "--backbone", ALL, "--checkpoint", files[ALL], "--heads", heads]
    result = run("calibrate", *args, "--out", out)
    assert (result.exit_code, result.stderr) == (0, "")
    whole = LPIPSSat.from_pretrained(out)
    alone = load(ALL, files[ALL], bands=L1C, heads=heads)
    pred, ref = images(13)
    assert torch.equal(whole(pred, ref), alone(pred, ref))
    assert LPIPSSat.from_pretrained(out, bands=L2A).to_input.filled == ("B10",)
    assert any(not torch.equal(head, torch.ones_like(head)) for head in whole.heads)
    assert heads.stat().st_size < 100_000 < (out / "model.safetensors").stat().st_size
    card = json.loads((out / "config.json").read_text())["card"]
    assert alone.card["heads"] == card["heads"]
    assert "in calibration B01 = 0.1606" in card["input"]
    assert card["licence"].endswith("backbone: CC-BY-4.0 (SSL4EO-S12, zhu-xlab)")
    assert str(tmp_path) not in (out / "config.json").read_text()
    assert run("calibrate", *args, "--out", tmp_path / "new").exit_code == 1  # heads exist


def test_heads_of_another_backbone_or_checkpoint_are_refused(files, tmp_path):
    metric = load(RGB, files[RGB])
    metric.save_heads(tmp_path / "heads.safetensors")
    with pytest.raises(WeightsError, match=f"was fitted to {RGB} .*this is {ALL}"):
        load(ALL, files[ALL], bands=L1C, heads=tmp_path / "heads.safetensors")
    state = torch.load(files[RGB], weights_only=True)
    state["bn1.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=f"was fitted to {RGB}"):
        load(RGB, tmp_path / "other.pth", heads=tmp_path / "heads.safetensors")
    with pytest.raises(WeightsError, match="cannot read the heads"):
        load(RGB, files[RGB], heads=tmp_path / "other.pth")
    metric.heads[0][0] = -1
    metric.save_heads(tmp_path / "negative.safetensors")
    with pytest.raises(WeightsError, match="negative"):
        load(RGB, files[RGB], heads=tmp_path / "negative.safetensors")


def test_a_checkpoint_with_another_kind_of_backbone_or_with_tuning_is_refused(
    run, judged, tmp_path
):
    given = ["--judgements", judged, "--checkpoint", "x.pth", "--out", tmp_path / "out"]
    result = run("calibrate", *given, "--backbone", "pyramid")
    assert result.exit_code == 1
    assert "a checkpoint goes with one of ssl4eo-s12-resnet18-moco" in result.stderr
    tuned = run("calibrate", *given, "--backbone", RGB, "--tune", "a.toml", "--eurosat", "b.zip")
    assert tuned.exit_code == 2
    assert "leave out --tune" in tuned.stderr


def test_info_lists_the_backbones_with_their_bands(run):
    found = json.loads(run("info", "--json").stdout)["backbones"]
    assert found[RGB].startswith("takes B04, B03, B02; weights: a local file")
    assert set(ssl4eo.PUBLISHED) <= set(found)
