"""What holds for every process: a target and its inverse, one step, noise, nodes, the config."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lpips_sat import LpipsSatError
from sr_models.processes import PROCESSES, Process, flow
from sr_models.scheduler import HEADS, MODES, BridgeScheduler

VALUES = json.loads(
    (Path(__file__).parents[1] / "reference_values" / "sr_processes.json").read_text()
)
COSINE = {"schedule": "cosine"}
STEPS = {"resshift": 15, "regression": 1}
PAPERS = {  # what sampling starts from, and what the network predicts
    "sr3": ("noise", "epsilon"),
    "supresdiffgan": ("noise", "sample"),
    "resshift": ("y+noise", "sample"),
    "i2sb": ("y", "bridge"),
    "unidb": ("y", "epsilon"),
    "flow": ("noise", "velocity"),
    "regression": ("y", "sample"),
}
TRAINED = [(name, head) for name in PROCESSES for head in HEADS if name != "regression"]


def make(process, steps, params=None, *, n=None, timesteps=None, **options):
    scheduler = BridgeScheduler(process, steps, params, **options)
    scheduler.set_timesteps(n, timesteps=timesteps)
    return scheduler


@pytest.mark.parametrize(("process", "head"), TRAINED)
def test_pred_x0_inverts_target(process, head):
    scheduler = BridgeScheduler(process, STEPS.get(process, 100), prediction_type=head)
    generator = torch.Generator().manual_seed(0)
    t = scheduler.training_timesteps(64, generator)
    x0, y, noise = torch.randn(3, 64, 2, 3, 4, generator=generator, dtype=torch.float64)
    x_t = scheduler.add_noise(x0, y, noise, t)
    target = scheduler.target(x0, y, noise, x_t, t)
    back = scheduler.pred_x0(target, x_t, y, t)
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("process", "head"), [("flow", "epsilon"), ("i2sb", "velocity")])
def test_where_the_head_is_blind_the_estimate_is_y(process, head):
    scheduler = BridgeScheduler(process, 100, prediction_type=head)
    x, y, output = torch.randn(3, 2, 1, 3, 3)
    assert 100 not in scheduler.training_timesteps(5000)
    assert torch.equal(scheduler.pred_x0(output, x, y, 100), y)
    assert torch.equal(scheduler.pred_x0(output, x, y, torch.tensor([100, 50]))[0], y[0])


@pytest.mark.parametrize(("process", "mode"), [(p, m) for p in PROCESSES for m in MODES])
def test_a_step_of_length_zero_is_the_identity(process, mode):
    steps = STEPS.get(process, 100)
    scheduler = BridgeScheduler(process, steps, mode=mode, prediction_type="sample")
    x, y = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    for node in {1, (steps + 1) // 2, steps}:
        if scheduler.tables.c[node] < 1e-12:
            x = y  # where nothing is left of the noise, x_t can only be y
        done = scheduler.step(torch.randn_like(x), node, x, y, prev_timestep=node)
        torch.testing.assert_close(done.prev_sample, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", PROCESSES)
def test_an_image_does_not_depend_on_its_batch(process):
    scheduler = make(process, STEPS.get(process, 100), n=1 if process == "regression" else 3)
    x, y, output, noise = torch.randn(4, 5, 2, 6, 6)
    t = scheduler.training_timesteps(5).tolist()
    together = scheduler.add_noise(x, y, noise, torch.tensor(t))
    apart = [scheduler.add_noise(*(v[i : i + 1] for v in (x, y, noise)), t[i]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(apart))
    node = int(scheduler.timesteps[-1])
    steps = scheduler.step(output, node, x, y, noise=noise).prev_sample
    for i in range(5):
        one = scheduler.step(
            *(output[i : i + 1], node, x[i : i + 1], y[i : i + 1]), noise=noise[i : i + 1]
        )
        torch.testing.assert_close(one.prev_sample, steps[i : i + 1], rtol=0, atol=0)


@pytest.mark.parametrize("process", PROCESSES)
def test_prior_and_head_are_those_of_the_paper(process):
    scheduler = BridgeScheduler(process, STEPS.get(process, 100))
    y, noise = torch.randn(2, 3, 1, 4, 4)
    prior, head = PAPERS[process]
    want = {"noise": noise, "y": y, "y+noise": y + 1.98 * noise}[prior]
    torch.testing.assert_close(scheduler.prior(y, noise=noise), want)
    assert scheduler.head == head


def test_a_process_of_your_own_needs_its_entry_and_nothing_else(monkeypatch):
    monkeypatch.setitem(PROCESSES, "mine", Process(flow, prior="noise", predicts="velocity"))
    y, noise = torch.randn(2, 3, 1, 4, 4)

    def sampled(process):
        scheduler = make(process, 20, n=4, mode="ode")
        x = scheduler.prior(y, noise=noise)
        for t in scheduler.timesteps:
            x = scheduler.step(torch.tanh(x), t, x, y).prev_sample
        return x

    assert torch.equal(sampled("mine"), sampled("flow"))


def test_the_generator_decides_the_noise():
    scheduler = make("resshift", 15, n=5)
    y = torch.zeros(1, 1, 8, 8)

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        x = scheduler.prior(y, generator)
        return scheduler.step(y, scheduler.timesteps[0], x, y, generator).prev_sample

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_training_nodes_cover_the_chain_and_nothing_else():
    for process in PROCESSES:
        steps = STEPS.get(process, 20)
        scheduler = BridgeScheduler(process, steps)
        # UniDB never trains its epsilon at T, where x_T = y tells nothing of x0
        last = steps - 1 if process == "unidb" else steps
        drawn = scheduler.training_timesteps(2000, torch.Generator().manual_seed(0))
        assert drawn.dtype == torch.long
        assert set(drawn.tolist()) == set(range(1, last + 1)), process


def test_the_noise_level_of_sr3_is_uniform_between_its_nodes():
    scheduler = BridgeScheduler(
        "sr3", 4, {"start": 0.2, "end": 0.5}, continuous=True, time_input="level"
    )
    t = scheduler.training_timesteps(40_000, torch.Generator().manual_seed(0))
    level = scheduler.model_time(t, t).double().numpy() / 1000
    edges = scheduler.tables.a[::-1].tolist()
    for low, high in pairwise(edges):
        inside = level[(level > low) & (level < high)]
        assert len(inside) == pytest.approx(10_000, rel=0.05)
        assert inside.mean() == pytest.approx((low + high) / 2, abs=0.01 * (high - low))
    x = scheduler.add_noise(torch.zeros(len(t), 1), torch.zeros(1), torch.ones(len(t), 1), t)
    np.testing.assert_allclose(x[:, 0].numpy() ** 2 + level**2, 1, atol=1e-6)


def test_time_and_input_of_the_network():
    x, y = torch.full((2, 1, 2, 2), 3.0), torch.ones(2, 1, 2, 2)
    t = torch.tensor([4, 15])

    def ask(**options):
        return BridgeScheduler("resshift", 15, **options)

    assert ask().model_time(t, x).tolist() == pytest.approx([4000 / 15, 1000])
    assert ask().model_time(15, x).tolist() == [1000, 1000]
    scaled = ask(model_input="unit").scale_model_input(x, y, t)
    table = VALUES["resshift"]["schedules"]["conference_T15_k2_p0.3_min0.04"]
    for rule, key in (("unit", "input_scale_latent"), ("pixel", "input_scale_pixel")):
        scaled = ask(model_input=rule).scale_model_input(x, y, t)[:, 0, 0, 0]
        assert (3 / scaled).tolist() == pytest.approx([table[key][3], table[key][14]])
    assert torch.equal(ask(model_input="residual").scale_model_input(x, y, t), x - y)
    power = BridgeScheduler("supresdiffgan", 1000, COSINE, time_input="power")
    assert power.model_time(500, x)[0].item() == pytest.approx(493.843590440638)


def test_the_estimate_is_clamped_where_asked():
    x, y = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    output = torch.tensor([[[[-3.0, -0.5], [0.5, 3.0]]]])
    free = BridgeScheduler("flow", 10, prediction_type="sample")
    bound = BridgeScheduler("flow", 10, prediction_type="sample", clip_sample=True)
    assert torch.equal(free.pred_x0(output, x, y, 5), output)
    assert torch.equal(bound.pred_x0(output, x, y, 5), output.clamp(-1, 1))


# -- configuration ----------------------------------------------------------------------------


def test_the_config_is_saved_and_loaded(tmp_path):
    scheduler = BridgeScheduler(
        "unidb", 50, {"lam": 60 / 255}, mode="ode", prediction_type="sample"
    )
    scheduler.save_pretrained(tmp_path)
    loaded = BridgeScheduler.from_pretrained(tmp_path)
    shown = [{k: v for k, v in s.config.items() if k[0] != "_"} for s in (loaded, scheduler)]
    assert shown[0] == shown[1]
    np.testing.assert_array_equal(loaded.tables.c, scheduler.tables.c)
    changed = BridgeScheduler.from_config(scheduler.config, mode="mean")
    assert (changed.config.mode, changed.config.process) == ("mean", "unidb")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction_type": "noise"}, "prediction_type must be one of sample, epsilon"),
        ({"mode": "ddim"}, "mode must be one of sde, mean, ode, got 'ddim'"),
        ({"time_input": "index"}, "time_input must be one of"),
        ({"model_input": "latent"}, "model_input must be one of"),
        ({"continuous": True}, "resshift with the head sample has integer nodes only"),
        ({"solver": "euler"}, "solver euler is UniDB's"),
    ],
)
def test_a_wrong_option_is_one_clear_line(options, message):
    with pytest.raises(LpipsSatError, match=message):
        BridgeScheduler("resshift", 15, **options)


@pytest.mark.parametrize(
    "steps", [{"num_inference_steps": 0}, {"num_inference_steps": 16}, {"timesteps": [3, 3]}, {}]
)
def test_steps_that_cannot_be_are_refused(steps):
    with pytest.raises(LpipsSatError, match="expected"):
        BridgeScheduler("resshift", 15).set_timesteps(**steps)


def test_unidb_euler_walks_every_node():
    with pytest.raises(LpipsSatError, match="walks all 100 nodes"):
        make("unidb", 100, {"variance": "reference"}, n=10, solver="euler")
