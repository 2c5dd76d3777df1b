import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lpips_sat.backbones import build_backbone
from lpips_sat.backbones.pretexts import PRETEXTS, Batch
from lpips_sat.backbones.pretrain import PretrainConfig, make_batch, pretrain
from lpips_sat.backbones.runs import read_config
from lpips_sat.errors import OutputExistsError, WeightsError

KINDS = ("darker", "noisier")
TINY = PretrainConfig(
    backbone_config={"widths": [4, 6], "depth": 1},
    seed=3,
    steps=6,
    references=3,
    copies=2,
    warmup=2,
    checkpoint_every=2,
)
FINGERPRINTED = 8  # patches drawn before the first step, to recognise the source
PARTS = ("kind", "severity", "readout", "identity")


def sample(rng: np.random.Generator) -> np.ndarray:
    """A patch of soft blocks, each with its own colour."""
    blocks = rng.uniform(0.2, 0.8, (4, 4, 3)).astype(np.float32)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def distort(patch: np.ndarray, kind: str, severity: float, rng: np.random.Generator) -> np.ndarray:
    if kind == "darker":
        return (patch * (1 - 0.8 * severity)).astype(np.float32)
    noise = rng.standard_normal(patch.shape)
    return np.clip(patch + 0.3 * severity * noise, 0, 1).astype(np.float32)


def run(out: Path, config: PretrainConfig = TINY, **kwargs: object) -> Path:
    given = {"kinds": KINDS, "sample": sample, "distort": distort, **kwargs}
    return pretrain(config, out, **given)


def stop_at(step: int) -> Callable[[int, dict[str, float]], None]:
    def report(now: int, logs: dict[str, float]) -> None:
        if now == step:
            raise KeyboardInterrupt

    return report


def losses(out: Path) -> np.ndarray:
    with (out / "log.csv").open() as file:
        return np.array([sum(float(row[p]) for p in PARTS) for row in csv.DictReader(file)])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    run(out)
    return out


def test_the_weights_are_those_of_the_backbone_and_have_moved(uninterrupted):
    torch.manual_seed(TINY.seed)
    backbone = build_backbone(TINY.backbone, TINY.backbone_config)
    untrained = {name: value.clone() for name, value in backbone.state_dict().items()}
    weights = load_file(uninterrupted / "backbone.safetensors")
    backbone.load_state_dict(weights)  # strict
    assert all(value.isfinite().all() for value in weights.values())
    assert not any(torch.equal(weights[name], untrained[name]) for name in untrained)


@pytest.mark.parametrize("step", [3, 4])
def test_a_run_resumed_after_an_interruption_equals_an_uninterrupted_one(
    tmp_path, uninterrupted, step
):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, report=stop_at(step))
    assert not (tmp_path / "backbone.safetensors").exists()
    seen = []
    run(tmp_path, report=lambda now, logs: seen.append(now))
    assert seen == list(range(step // 2 * 2, 6))  # from the last checkpoint on, not from 0
    for file in ("backbone.safetensors", "log.csv"):
        assert (tmp_path / file).read_bytes() == (uninterrupted / file).read_bytes()


def test_a_run_interrupted_before_its_first_checkpoint_begins_again(tmp_path, uninterrupted):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, report=stop_at(1))
    run(tmp_path)
    for file in ("backbone.safetensors", "log.csv"):
        assert (tmp_path / file).read_bytes() == (uninterrupted / file).read_bytes()


def test_a_finished_run_is_not_run_again(tmp_path):
    weights = run(tmp_path)
    content, seen = weights.read_bytes(), []
    assert run(tmp_path, report=lambda now, logs: seen.append(now)) == weights
    assert not seen
    assert weights.read_bytes() == content


def test_another_seed_gives_other_weights(tmp_path, uninterrupted):
    weights = run(tmp_path, replace(TINY, seed=4))
    assert weights.read_bytes() != (uninterrupted / "backbone.safetensors").read_bytes()


def test_another_config_in_the_same_folder_is_refused_and_changes_nothing(tmp_path):
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputExistsError, match="another config or from other data"):
        run(tmp_path, replace(TINY, steps=7))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_loss_goes_down_and_stays_where_it_is_without_a_learning_rate(tmp_path):
    config = replace(
        TINY, steps=40, references=6, learning_rate=1e-2, checkpoint_every=1000, weight_decay=0.0
    )

    def change(out: Path, config: PretrainConfig) -> float:
        run(out, config)
        of_step = losses(out)
        assert len(of_step) == 40
        return of_step[-8:].mean() - of_step[:8].mean()

    frozen = change(tmp_path / "frozen", replace(config, learning_rate=0.0))
    assert change(tmp_path / "trained", config) < min(0, frozen) - 0.5


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(
    tmp_path, uninterrupted
):
    calls = 0

    def breaks_at_step_5(rng: np.random.Generator) -> np.ndarray:
        nonlocal calls
        calls += 1
        return sample(rng) * (np.nan if calls > FINGERPRINTED + 5 * TINY.references else 1)

    with pytest.raises(WeightsError, match="the loss became nan at step 5; lower learning_rate"):
        run(tmp_path, sample=breaks_at_step_5)
    assert not (tmp_path / "backbone.safetensors").exists()
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4
    weights = run(tmp_path)
    assert weights.read_bytes() == (uninterrupted / "backbone.safetensors").read_bytes()


def test_a_batch_is_decided_by_seed_and_step_alone():
    def batch(config: PretrainConfig, step: int) -> torch.Tensor:
        made = make_batch(config, KINDS, sample, distort, step)
        return torch.cat([part.flatten() for part in vars(made).values()])

    assert torch.equal(batch(TINY, 5), batch(TINY, 5))
    assert not torch.equal(batch(TINY, 5), batch(TINY, 6))
    assert not torch.equal(batch(TINY, 5), batch(replace(TINY, seed=4), 5))


def test_a_batch_holds_the_copies_of_each_patch_side_by_side_with_kind_and_severity():
    asked = []

    def mark(patch: np.ndarray, kind: str, severity: float, rng: np.random.Generator) -> np.ndarray:
        asked.append((kind, severity))
        return patch + 1

    batch = make_batch(TINY, KINDS, sample, mark, 0)
    clean, copies = batch.clean, batch.copies
    assert clean.shape == (3, 3, 32, 32)
    assert clean.min() >= 0
    assert clean.max() <= 1
    assert torch.equal(copies, clean.repeat_interleave(2, dim=0) + 1)
    assert [KINDS[label] for label in batch.kinds] == [kind for kind, _ in asked]
    assert batch.severities.tolist() == pytest.approx([severity for _, severity in asked])


def test_every_copy_is_compared_with_the_patch_it_was_made_from():
    def keep(patch: np.ndarray, kind: str, severity: float, rng: np.random.Generator) -> np.ndarray:
        return patch

    backbone = build_backbone(TINY.backbone, TINY.backbone_config)
    pretext = PRETEXTS["degradations"](backbone, len(KINDS))
    seen = []
    pretext.trunk.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch = make_batch(TINY, KINDS, sample, keep, 0)
    pretext(backbone, batch)
    pretext(backbone, replace(batch, copies=batch.copies.roll(2, dims=0)))
    same, other = seen  # log distances: equal images give the smallest value there is
    torch.testing.assert_close(same, torch.full_like(same, float(np.log(1e-5) + 6)))
    assert (other > same).any(dim=1).all()


def test_a_view_keeps_the_patch_but_not_its_stretch():
    batch = make_batch(TINY, KINDS, sample, distort, 0)
    assert batch.view.shape == batch.clean.shape
    assert not torch.equal(batch.view, batch.clean)


@pytest.mark.parametrize("pretext", PRETEXTS)
def test_every_pretext_is_learned(tmp_path, pretext):
    config = replace(TINY, pretext=pretext, steps=40, references=6, learning_rate=1e-2)
    parts = []
    run(tmp_path, config, report=lambda step, logs: parts.append(logs))
    total = [sum(value for name, value in logs.items() if name != "accuracy") for logs in parts]
    first, last = np.mean(total[:8]), np.mean(total[-8:])
    assert last < first


def test_vicreg_counts_a_collapse_as_worst():
    backbone = build_backbone(TINY.backbone, TINY.backbone_config)
    batch = make_batch(TINY, KINDS, sample, distort, 0)
    pretext = PRETEXTS["vicreg"](backbone, len(KINDS))
    flat = Batch(**{**vars(batch), "clean": batch.clean * 0, "view": batch.view * 0})
    parts = {name: float(value.detach()) for name, value in pretext(backbone, flat)[1].items()}
    assert parts["variance"] == pytest.approx(2 * (1 - 0.01), abs=1e-4)  # std = sqrt(1e-4)
    assert parts["invariance"] == pytest.approx(0, abs=1e-12)  # rounding of the batch statistics


def test_an_unknown_pretext_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(WeightsError, match="unknown pretext 'byol'; choose from: degradations"):
        run(tmp_path, replace(TINY, pretext="byol"))
    assert not list(tmp_path.iterdir())


def test_a_config_is_read_from_toml(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("steps = 12\nseed = 7\n[backbone_config]\nwidths = [4, 8]\n")
    expected = PretrainConfig(steps=12, seed=7, backbone_config={"widths": [4, 8]})
    assert read_config(PretrainConfig, path) == expected


def test_an_unknown_key_is_refused_with_the_known_ones(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("stepz = 12\nsede = 1\n")
    with pytest.raises(WeightsError, match=r"unknown keys sede, stepz; known: pretext, .*steps"):
        read_config(PretrainConfig, path)


@pytest.mark.parametrize("text", ["steps = = 12", None])
def test_a_config_that_cannot_be_read_is_an_error_that_names_it(tmp_path, text):
    path = tmp_path / "config.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(WeightsError, match=r"cannot read the config .*config\.toml"):
        read_config(PretrainConfig, path)


def test_a_run_from_other_patches_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", report=stop_at(0))
    with pytest.raises(OutputExistsError, match="from other data"):
        run(tmp_path / "run", sample=lambda rng: sample(rng)[::-1])


def test_a_value_of_the_wrong_type_in_the_config_is_refused(tmp_path):
    path = tmp_path / "config.toml"
    for text, message in (
        ('steps = "many"', "steps must be int, got 'many'"),
        ("steps = true", "steps must be int, got True"),
        ("learning_rate = false", "learning_rate must be float, got False"),
        ("steps = 4.0", "steps must be int, got 4.0"),
    ):
        path.write_text(text)
        with pytest.raises(WeightsError, match=message):
            read_config(PretrainConfig, path)
    path.write_text("learning_rate = 1")
    assert read_config(PretrainConfig, path).learning_rate == 1
