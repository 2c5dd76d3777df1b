from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lpips_sat.backbones.runs import read_config
from lpips_sat.calibration.calibrate import load_backbone, mean_of, save
from lpips_sat.calibration.evaluate import to_batch
from lpips_sat.calibration.judgements import Judgements, read_judgements
from lpips_sat.calibration.material import TuneConfig, build_pool, gather
from lpips_sat.calibration.teacher import fit_teacher
from lpips_sat.calibration.tune import Student, _cropped, _turned, loss_of, polish, tune
from lpips_sat.errors import OutputExistsError, WeightsError
from lpips_sat.lpips import LPIPSSat

TINY = TuneConfig(
    seed=5, steps=6, trials=4, patches=3, copies=2, pool=10, warmup=2, checkpoint_every=2
)


@pytest.fixture(scope="module")
def trials(release, tmp_path_factory) -> Judgements:
    return read_judgements(release(tmp_path_factory.mktemp("tune") / "release", side=64))


def sample(rng: np.random.Generator) -> np.ndarray:
    """A patch of soft blocks, each with its own colour."""
    blocks = rng.uniform(0.2, 0.8, (8, 8, 3)).astype(np.float32)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def untrained() -> LPIPSSat:
    torch.manual_seed(2)
    return LPIPSSat("pyramid", radiometry="display", backbone_config={"widths": [4, 6], "depth": 1})


def tune_tiny(
    out: Path, trials: Judgements, config: TuneConfig = TINY, **kwargs: object
) -> LPIPSSat:
    return tune(config, untrained(), trials.split()[0], out, sample=sample, **kwargs)


def stop_at(step: int) -> Callable[[int, dict[str, float]], None]:
    def report(now: int, logs: dict[str, float]) -> None:
        if now == step:
            raise KeyboardInterrupt

    return report


@pytest.fixture(scope="module")
def tuned(trials, tmp_path_factory) -> LPIPSSat:
    return tune_tiny(tmp_path_factory.mktemp("whole") / "run", trials)


def test_the_pool_holds_known_kinds_with_an_opinion_and_ladders_of_the_others(trials):
    teacher = fit_teacher(trials)
    config = replace(TINY, pool=40, copies=2, ladder_share=0.5)
    pool = build_pool(config, teacher, trials.ref, sample)
    again = build_pool(config, teacher, trials.ref, sample)
    assert np.array_equal(pool.images, again.images)
    unknown = np.isnan(pool.disutility)
    assert 0 < unknown.mean() < 1
    assert (pool.kind[:, 0] == pool.kind[:, 1])[unknown.all(axis=1)].all()
    assert not np.array_equal(pool.images[:, 0], pool.images[:, 1])


def test_tuning_moves_backbone_and_heads_and_leaves_a_frozen_metric(tuned):
    before = untrained().state_dict()
    moved = {k for k, v in tuned.state_dict().items() if not torch.equal(v, before[k])}
    assert any(name.startswith("backbone.") for name in moved)
    assert {name for name in before if name.startswith("heads.")} <= moved
    assert all((head > 0).all() for head in tuned.heads)
    assert not any(p.requires_grad for p in tuned.parameters())
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(tuned(x, x), torch.zeros(2))


def test_a_resumed_run_equals_an_uninterrupted_one(tuned, trials, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tune_tiny(tmp_path / "run", trials, report=stop_at(3))
    resumed = tune_tiny(tmp_path / "run", trials)
    for name, value in tuned.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_networks_that_a_config_asks_for_are_the_teacher(trials):
    of_line, of_networks = (
        gather(replace(TINY, teacher_networks=count), trials.split()[0], sample) for count in (0, 1)
    )
    assert np.array_equal(of_line.pool.images, of_networks.pool.images)
    assert not np.allclose(of_line.disutility, of_networks.disutility)


def test_ladders_pull_the_steps_of_a_kind_apart(trials, tmp_path):
    same = {"ladders": 8, "ladder_pool": 8}  # every step climbs all of them
    config = replace(TINY, steps=30, **same, ladder_weight=100.0, ladder_margin=1.0, crop=48)
    tune_tiny(tmp_path / "run", trials, config)
    missing = pd.read_csv(tmp_path / "run" / "log.csv")["ladders"]
    assert missing.iloc[-5:].mean() < 0.9 * missing.iloc[:5].mean()


def test_polishing_moves_the_heads_alone_and_lowers_the_loss_on_everything(trials):
    config = replace(TINY, ladders=4, ladder_pool=12, polish=40)
    material = gather(config, trials.split()[0], sample)
    metric = untrained()
    student = Student(metric.backbone, sum(metric.channels))

    def loss():
        rows = material.everything()
        groups = [
            np.stack([material.sides(i) for i in rows.trials]),
            material.pool.images,
            material.ladders.images,
        ]
        seen = [student(torch.stack([to_batch(group) for group in of])) for of in groups]
        return float(loss_of(config, student, material, rows, seen)[0].detach())

    before = loss()
    polish(config, student, material, "cpu")
    assert loss() < 0.98 * before
    for name, value in untrained().backbone.state_dict().items():
        assert torch.equal(value, metric.backbone.state_dict()[name]), name


def test_every_step_of_a_ladder_counts_if_all_are_asked_for(trials):
    def flat(rng):
        return np.clip(0.5 + 0.01 * rng.standard_normal((64, 64, 3)), 0, 1)

    config = replace(TINY, ladders=4, ladder_pool=60, reference_share=0.0)
    config = replace(config, ladder_often={"jpeg": 400})
    some, every = (
        gather(replace(config, ladder_all=every), trials, flat).ladders for every in (False, True)
    )
    assert not some.rising.all()
    assert every.rising.all()
    assert np.array_equal(some.images, every.images)


def test_parts_and_orders_of_bands_are_those_of_the_whole_group():
    group = np.random.default_rng(0).integers(256, size=(3, 64, 64, 3), dtype=np.uint8)
    rng = np.random.default_rng(1)
    part = _cropped(group, 48, rng)
    assert part.shape == (3, 48, 48, 3)
    assert _cropped(group, 64, rng) is group
    copies = group[:1].repeat(3, axis=0)
    turned = _turned([copies] * 4, rng, permuted=1.0)
    assert turned.shape == (4, 3, 3, 64, 64)
    assert torch.equal(turned[:, 0], turned[:, 1])
    assert len({tuple(bands.mean((1, 2)).tolist()) for bands in turned[:, 0]}) > 1


def test_a_folder_begun_with_another_config_is_refused(trials, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tune_tiny(tmp_path / "run", trials, report=stop_at(0))
    with pytest.raises(OutputExistsError, match="another config"):
        tune_tiny(tmp_path / "run", trials, replace(TINY, seed=6))


def test_a_typo_in_the_config_is_an_error_that_lists_the_keys(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("step = 5\n")
    with pytest.raises(WeightsError, match=r"unknown keys step; known: .*steps"):
        read_config(TuneConfig, path)


def test_tuning_on_the_command_line_needs_clean_patches(run, tmp_path):
    given = ["--judgements", tmp_path, "--backbone", "pyramid", "--out", tmp_path / "new"]
    result = run("calibrate", *given, "--tune", tmp_path / "config.toml")
    assert result.exit_code == 2
    assert "--tune and --eurosat go together" in result.stderr


def test_tuning_a_tuned_metric_goes_on_from_its_heads(tuned, trials, tmp_path):
    save(tuned, tmp_path / "first")
    metric = load_backbone(str(tmp_path / "first"))
    before = torch.cat([*metric.heads])
    config = replace(TINY, steps=1, learning_rate=0.0, head_rate=0.0)
    again = tune(config, metric, trials.split()[0], tmp_path / "run", sample=sample)
    shares = torch.cat([*again.heads]) / before  # the same but for the scale, which anchor sets
    torch.testing.assert_close(shares, shares[0].expand_as(shares))
    assert again.card["tuning"]["steps"] == 1
    assert again.card["backbone"]["tuning"]["steps"] == TINY.steps


def test_a_run_that_asks_for_further_stages_tunes_them_too(trials, tmp_path):
    tuned = tune_tiny(tmp_path / "run", trials, replace(TINY, steps=1, widths=[4, 6, 5]))
    assert tuned.channels == [4, 4, 6, 6, 5, 5]
    assert tuned.config["backbone_config"]["widths"] == [4, 6, 5]


@pytest.mark.parametrize("heads_too", [False, True])
def test_the_mean_of_weights_starts_as_they_would_themselves(tuned, trials, tmp_path, heads_too):
    save(tuned, tmp_path / "first")

    def begin():
        return load_backbone(str(tmp_path / "first")) if heads_too else untrained()

    config = replace(TINY, steps=1, learning_rate=0.0, head_rate=0.0)
    one, mean = (
        tune(config, metric, trials.split()[0], tmp_path / name, sample=sample)
        for name, metric in (("one", begin()), ("mean", mean_of([begin(), begin()])))
    )
    for own, of_mean in zip(one.heads, mean.heads, strict=True):
        assert torch.equal(own, of_mean)


def test_a_mean_tells_where_its_parts_come_from_once(tuned, trials, tmp_path):
    save(tuned, tmp_path / "first")
    for seed in (1, 2):
        config = replace(TINY, seed=seed, steps=1)
        metric = load_backbone(str(tmp_path / "first"))
        again = tune(config, metric, trials.split()[0], tmp_path / f"{seed}.run", sample=sample)
        save(again, tmp_path / str(seed))
    parts = [load_backbone(str(tmp_path / str(seed))) for seed in (1, 2)]
    first, second = mean_of(parts).card["backbone"]["mean_of"]
    assert [part["tuning"]["seed"] for part in (first, second)] == [1, 2]
    assert first["backbone"]["tuning"]["seed"] == TINY.seed
    kept = {key for key in ("name", "sha256") if key in first["backbone"]}
    assert second["backbone"] == {key: first["backbone"][key] for key in kept}
