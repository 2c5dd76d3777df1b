from __future__ import annotations

import csv
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.optim.lr_scheduler import ConstantLR, MultiStepLR, StepLR

from lpips_sat import LpipsSatError
from lpips_sat.errors import OutputExistsError
from sr_models.pipeline import SRPipeline
from sr_models.profiles import load_profile, models
from sr_models.training import Batches, Trainer, scale_of, train, validate

HERE = Path(__file__).parent


def run(profile, pairs, out, **options):
    return train(profile, pairs, out, bands=("B08",), device="cpu", **options)


def weights(folder):
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def column(out, name, table="log.csv"):
    with (out / table).open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("size", ["small", "paper"])
@pytest.mark.parametrize("model", models())
def test_every_model_trains_in_both_profiles(model, size, tiny, toy, tmp_path):
    seen = []
    done = run(
        tiny(model, size, steps=4), toy, tmp_path, report=lambda step, logs: seen.append(step)
    )
    assert seen == [0, 1, 2, 3]
    pipeline = SRPipeline.from_pretrained(done)
    assert pipeline.scheduler.config.process == model
    assert all(torch.isfinite(w).all() for w in weights(done).values())
    losses = np.array(column(tmp_path, "loss"))
    assert np.isfinite(losses[::2]).all()
    assert np.isnan(losses[1::2]).all() == (model == "supresdiffgan")


def test_it_learns(tiny, toy, tmp_path):
    profile = tiny("regression", steps=60, learning_rate=3e-3, batch=8)
    run(profile, toy, tmp_path, validation=toy)
    losses = column(tmp_path, "loss")
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    psnr, bicubic = (column(tmp_path, n, "validation.csv")[-1] for n in ("psnr", "bicubic"))
    want = F.interpolate(toy.lr, scale_factor=2.0, mode="bicubic")
    errors = (want - toy.hr).square().mean((1, 2, 3))
    assert bicubic == pytest.approx(float((10 * torch.log10(0.36 / errors)).mean()), abs=1e-3)
    assert psnr > bicubic


@pytest.mark.parametrize("model", ["resshift", "supresdiffgan"])
def test_a_run_killed_at_any_time_ends_with_the_weights_of_the_uninterrupted_one(
    model, tiny, toy, tmp_path
):
    """The child is killed with SIGKILL between two checkpoints."""
    whole = weights(run(tiny(model, steps=9), toy, tmp_path / "whole"))
    script = f"""
        import importlib.util, os, signal, sys
        from pathlib import Path
        spec = importlib.util.spec_from_file_location("conftest", {str(HERE / "conftest.py")!r})
        shared = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(shared)
        from sr_models.training import train
        def kill(step, logs):
            if step == 4:
                os.kill(os.getpid(), signal.SIGKILL)
        profile = shared.tiny.__wrapped__()({model!r}, steps=9)
        out = Path({str(tmp_path / "killed")!r})
        train(profile, shared.ToyPairs(), out, bands=("B08",), device="cpu", report=kill)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "killed" / "state.pt", weights_only=True)["step"] == 3
    resumed = weights(run(tiny(model, steps=9), toy, tmp_path / "killed"))
    assert same(resumed, whole)
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "killed")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("options", "oracle"),
    [
        ({"rate_decay": 0.5, "rate_decay_at": [2, 5]}, lambda o: MultiStepLR(o, [2, 5], gamma=0.5)),
        ({"rate_decay": 0.99, "rate_decay_every": 3}, lambda o: StepLR(o, 3, gamma=0.99)),
        ({}, lambda o: ConstantLR(o, factor=1.0)),
    ],
)
def test_the_learning_rate_decays_as_torch_schedulers_do(options, oracle, tiny, toy):
    how = {"schedule": "constant", "warmup": 0, "learning_rate": 1e-3, **options}
    trainer = Trainer(tiny("flow", **how), ("B08",), ("B08",), 2, Accelerator(cpu=True))
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule, batch = oracle(theirs), {"lr": toy.lr[:2, :, :8, :8], "hr": toy.hr[:2, :, :16, :16]}
    for step in range(9):
        trainer.step(step, batch)
        rate = trainer.optimiser.param_groups[0]["lr"]
        assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        theirs.step()
        schedule.step()


def test_the_paper_profile_decays_as_the_public_code():
    unidb, i2sb = (load_profile(model, "paper").train for model in ("unidb", "i2sb"))
    assert (unidb.rate_decay, list(unidb.rate_decay_at)) == (
        0.5,
        [300_000, 500_000, 600_000, 700_000],
    )
    assert (i2sb.rate_decay, i2sb.rate_decay_every) == (0.99, 1000)


def test_the_seed_decides(tiny, toy, tmp_path):
    one, again, other = (
        weights(run(tiny("flow", seed=seed, steps=2), toy, tmp_path / str(i)))
        for i, seed in enumerate((5, 5, 6))
    )
    assert same(one, again)
    assert not same(one, other)


def test_a_loss_that_is_no_number_stops_with_the_last_good_state_kept(tiny, toy, tmp_path):
    profile = tiny("resshift", learning_rate=1e30, warmup=0, steps=20, checkpoint_every=20)
    with pytest.raises(LpipsSatError, match="no number at step") as caught:
        run(profile, toy, tmp_path)
    assert "\n" not in str(caught.value)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == len(column(tmp_path, "loss"))
    assert all(torch.isfinite(w).all() for w in state["parts"][0].values())
    assert not (tmp_path / "pipeline").exists()


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "GPU"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "CPU"),
    ],
)
def test_memory_that_runs_out_is_one_clear_line(error, where, tiny, toy, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(Trainer, "step", fail)
    with pytest.raises(LpipsSatError, match=f"out of memory on the {where} with batch 2") as caught:
        run(tiny("flow"), toy, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_perceptual_loss(tiny, toy, tmp_path):
    profile = tiny("regression", loss="lpips-sat", crop=32, steps=2)
    run(profile, toy, tmp_path)
    assert min(column(tmp_path, "loss")) > 0


def test_a_folder_of_another_run_is_refused(tiny, toy, tmp_path):
    run(tiny("flow", steps=1), toy, tmp_path)
    with pytest.raises(OutputExistsError, match="another config or from other data"):
        run(tiny("flow", steps=2), toy, tmp_path)


def test_a_run_that_has_ended_is_left_as_it_is(tiny, toy, tmp_path):
    first = weights(run(tiny("flow", steps=2), toy, tmp_path))
    assert same(weights(run(tiny("flow", steps=2), toy, tmp_path)), first)
    assert len(column(tmp_path, "loss")) == 2


def test_batches_are_a_function_of_seed_and_step(tiny, toy):
    config = tiny("flow", batch=5).train
    one, two = Batches(toy, config, 2), Batches(toy, config, 2)
    assert torch.equal(one[3]["hr"], two[3]["hr"])
    assert not torch.equal(one[3]["hr"], one[4]["hr"])
    assert not torch.equal(one[3]["hr"], Batches(toy, config, 2, rank=1)[3]["hr"])


def test_both_images_of_a_pair_are_cropped_and_turned_alike(tiny, toy):
    batch = Batches(toy, tiny("flow", batch=32).train, 2)[0]
    assert batch["hr"].shape == (32, 1, 16, 16)
    torch.testing.assert_close(F.avg_pool2d(batch["hr"], 2), batch["lr"])
    assert len({tuple(image[0, 0].tolist()) for image in batch["lr"]}) > 16


def test_the_degradation_may_differ_at_every_step(tiny, toy):
    class Drawn(type(toy)):
        epoch = -1

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __getitem__(self, index):
            item = super().__getitem__(index)
            return {**item, "lr": torch.full_like(item["lr"], self.epoch)}

    batches = Batches(Drawn(), tiny("flow").train, 2)
    assert batches[7]["lr"].unique().tolist() == [7]


def test_what_cannot_be_trained_on_is_one_clear_line(tiny, toy, tmp_path):
    assert scale_of(toy) == 2
    odd = [{"lr": torch.zeros(1, 8, 8), "hr": torch.zeros(1, 17, 16)}]
    with pytest.raises(LpipsSatError, match=r"expected hr \(C, s h, s w\)"):
        scale_of(odd)
    with pytest.raises(LpipsSatError, match="holds no pair"):
        scale_of([])
    with pytest.raises(LpipsSatError, match="a crop of 64 HR pixels does not fit"):
        run(tiny("flow", crop=64), toy, tmp_path)
    assert list(tmp_path.iterdir()) == []  # so that the corrected command may use the folder


def test_training_leaves_the_random_state_alone(tiny, toy, tmp_path):
    torch.manual_seed(1)
    want = torch.rand(3)
    torch.manual_seed(1)
    run(tiny("flow", steps=1), toy, tmp_path)
    assert torch.equal(torch.rand(3), want)


def test_the_validation_set_is_looked_at_more_densely_early_on(tiny, toy, tmp_path):
    run(tiny("regression", steps=18, looks=3), toy, tmp_path, validation=toy)
    assert column(tmp_path, "step", "validation.csv") == [1, 7, 17]  # after 2, 8 and 18 steps


def test_a_pair_without_any_error_has_no_share_in_the_mean(pipeline, toy):
    model = pipeline("regression", steps=1)
    empty = {"lr": torch.zeros(1, 24, 24), "hr": torch.zeros(1, 48, 48)}
    alone = [validate(model, [pair]) for pair in (toy[0], toy[1])]
    together = validate(model, [toy[0], empty, toy[1]])
    assert together == pytest.approx(np.mean(alone, axis=0))
    assert np.isnan(validate(model, [empty])).all()


def test_the_board_has_the_losses(tiny, toy, tmp_path):
    run(tiny("flow", steps=3), toy, tmp_path, validation=toy)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert len(events.Scalars("train/loss")) == 3
    assert [event.step for event in events.Scalars("validation/psnr")] == [2]


@pytest.mark.parametrize("rate", [1e-3, 1e30])
def test_no_writer_outlives_a_training(rate, tiny, toy, tmp_path):
    profile = tiny("resshift", learning_rate=rate, warmup=0, steps=20, checkpoint_every=20)
    with suppress(LpipsSatError):  # the higher rate diverges
        run(profile, toy, tmp_path)
    assert "_AsyncWriterThread" not in {type(thread).__name__ for thread in threading.enumerate()}
