"""The scheduler against exact laws, whole trajectories, and diffusers' own schedulers."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lpips_sat import LpipsSatError
from sr_models.processes import PROCESSES, i2sb
from sr_models.scheduler import FROM_NOISE, HEADS, MODES, PINNED, BridgeScheduler
from sr_models.solvers import DPMSolver

VALUES = json.loads(
    (Path(__file__).parents[1] / "reference_values" / "sr_processes.json").read_text()
)
Y, MEAN, STD = 0.3, 0.5, 0.2  # the LR pixel, and the law of x0 given it
COSINE = {"schedule": "cosine"}
STEPS = {"resshift": 15, "regression": 1}
NODES = {  # entries of the reference values: process, steps, parameters
    "sr3_cosine_T1000": ("sr3", 1000, COSINE),
    "sr3_linear_T2000": ("sr3", 2000, {}),
    "resshift_T15_k2_p0.3_min0.04": ("resshift", 15, {}),
    "resshift_T4_k2_p0.3_min0.2": ("resshift", 4, {"min_noise_level": 0.2}),
    "i2sb_N1000_betamax0.3": ("i2sb", 1000, {}),
    "unidb_T100_lam30_eps0.005_ginv1e-7": ("unidb", 100, {}),
    "flow_T1000": ("flow", 1000, {}),
}
TRAINED = [(name, head) for name in PROCESSES for head in HEADS if name != "regression"]


def images(values, like=None):
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


class Gaussian:
    """The exact denoiser E[x0 | x_t, y] of x0 ~ N(MEAN, STD^2), as the network of a scheduler."""

    def __init__(self, scheduler, tables=None):
        self.scheduler, self.tables = scheduler, tables or scheduler.tables

    def x0(self, x, t):
        a, b, c = (float(table[t]) for table in self.tables[:3])
        gain = a * STD**2 / (a**2 * STD**2 + c**2) if a or c else 0.0
        return MEAN + gain * (x - a * MEAN - b * Y)

    def __call__(self, x, t):
        a, b, c = (float(table[t]) for table in self.tables[:3])
        x0, y = self.x0(x, t), torch.full_like(x, Y)
        noise = (x - a * x0 - b * y) / c if c else torch.zeros_like(x)
        return self.scheduler.target(x0, y, noise, x, t)


def follow(scheduler, *, denoise=None, scale=None, want="prev_sample"):
    """Exact mean and std of the result, and the path with the fixed noises, in one run.

    Every step is affine, so its effect on 0, on 1 and on unit noise tells all of it. scale(t)
    multiplies the fresh noise; want: what the last step returns.
    """
    start = scheduler.prior(images([Y] * 3), noise=images([0.0, 1.0, 0.8]))[:, 0, 0, 0].tolist()
    mean, variance, path = start[0], (start[1] - start[0]) ** 2, [start[2]]
    denoise, y = denoise or Gaussian(scheduler), images([Y] * 4)
    for k, t in enumerate(scheduler.timesteps.tolist()):
        x = images([0.0, 1.0, 0.0, path[-1]])
        noise = images([0.0, 0.0, 1.0, math.cos(1 + 2 * k)]) * (scale(t) if scale else 1.0)
        done = scheduler.step(denoise(x, t), t, x, y, noise=noise)
        moved = getattr(done, want if t == scheduler.timesteps[-1] else "prev_sample")
        shift, one, fresh, here = moved[:, 0, 0, 0].tolist()
        mean = (one - shift) * mean + shift
        variance = (one - shift) ** 2 * variance + (fresh - shift) ** 2
        path.append(here)
    return mean, math.sqrt(variance), path


def check(scheduler, entry, **options):
    """Hold a scheduler to a reference entry."""
    mean, std, path = follow(scheduler, **options)
    assert mean == pytest.approx(entry["final_mean"], abs=1e-10)
    assert std == pytest.approx(entry["final_std"], abs=1e-10)
    assert len(path) == entry["n_steps"] + 1
    for k, value in entry["trajectory"].items():
        assert path[int(k)] == pytest.approx(value, abs=1e-10), k


def make(process, steps, params=None, *, n=None, timesteps=None, **options):
    scheduler = BridgeScheduler(process, steps, params, **options)
    scheduler.set_timesteps(n, timesteps=timesteps)
    return scheduler


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("cosine_T1000_ddim_trailing_N10", ("sr3", 1000, COSINE, {"n": 10, "mode": "ode"})),
        ("cosine_T1000_ddpm_all1000_fixed_small", ("sr3", 1000, COSINE, {"n": 1000})),
        ("cosine_T1000_ddpm_trailing_N10_fixed_small", ("sr3", 1000, COSINE, {"n": 10})),
        (
            "linear_T2000_ddpm_all2000_fixed_large",
            ("sr3", 2000, {}, {"n": 2000, "variance_type": "fixed_large"}),
        ),
        ("linear_T2000_ddim_trailing_N20", ("sr3", 2000, {}, {"n": 20, "mode": "ode"})),
        (
            "cosine_T1000_ddpm_linspaceint_N10 (SupResDiffGAN-repo respacing)",
            ("sr3", 1000, COSINE, {"timesteps": [1 + 111 * k for k in range(9, -1, -1)]}),
        ),
    ],
)
def test_sr3_recovers_the_law(name, scheduler):
    process, steps, params, options = scheduler
    # a_T = 5e-5 turns the last digit of an epsilon into 1e-12 of x0: the x0 head has no such step
    check(
        make(process, steps, params, prediction_type="sample", **options),
        VALUES["sr3"]["gaussian_recovery"][name],
    )


@pytest.mark.parametrize(
    ("name", "steps", "n", "mode"),
    [
        ("ddpm_N4", 1000, 4, "sde"),
        ("ddim_N4", 1000, 4, "ode"),
        ("ddpm_N10", 1000, 10, "sde"),
        ("ddim_N50", 1000, 50, "ode"),
    ],
)
def test_supresdiffgan_recovers_the_law_with_redefined_tables(name, steps, n, mode):
    scheduler = make("supresdiffgan", steps, COSINE, n=n, mode=mode, redefine=True)
    check(scheduler, VALUES["supresdiffgan"]["gaussian_recovery"][name])
    with pytest.raises(LpipsSatError, match="make another for training"):
        scheduler.training_timesteps(3)


@pytest.mark.parametrize("name", [n for n in VALUES["resshift"]["gaussian_recovery"] if "__" in n])
def test_resshift_recovers_the_law(name):
    entry = VALUES["resshift"]["gaussian_recovery"][name]
    steps, level = entry["n_steps"], 0.2 if "min0.2" in name else 0.04
    mode = "mean" if name.endswith("posterior_mean_only") else "sde"
    scheduler = make("resshift", steps, {"min_noise_level": level}, n=steps, mode=mode)
    options = {}
    if "exp(1.5*logvar)" in name:  # a public code's noise: variance^1.5 where the root belongs

        def cubed(t):
            return scheduler._fresh(t, t - 1) ** 2

        options["scale"] = cubed
    check(scheduler, entry, **options)


def official_i2sb(beta_max):
    """The marginals of I2SB's code at its indexes, put at nodes: the table of its denoiser."""
    spread = i2sb(1000, beta_max=beta_max).spread
    forward, backward = spread[1:] ** 2, spread[-1] ** 2 - spread[:-1] ** 2
    total = forward + backward
    columns = backward / total, forward / total, np.sqrt(forward * backward / total)
    return [np.concatenate([[np.nan], column]) for column in columns]


@pytest.mark.parametrize("nfe", [1, 2, 4, 10, 999])
def test_i2sb_recovers_the_law_as_its_code_does(nfe):
    scheduler = make("i2sb", 1000, n=nfe, last_node=1)
    grid = VALUES["i2sb"]["nfe_grids_N1000"].get(str(nfe))
    assert grid is None or scheduler.grid.tolist() == [index + 1 for index in reversed(grid)]
    denoise = Gaussian(scheduler, official_i2sb(0.3))
    entry = VALUES["i2sb"]["gaussian_recovery"][f"official_betamax0.3_sde_NFE{nfe}"]
    check(scheduler, entry, denoise=denoise)


def test_i2sb_without_noise():
    scheduler = make("i2sb", 1000, n=10, last_node=1, mode="mean")
    entry = VALUES["i2sb"]["gaussian_recovery"]["official_betamax0.3_mean(ot_ode step)_NFE10"]
    check(scheduler, entry, denoise=Gaussian(scheduler, official_i2sb(0.3)))


@pytest.mark.parametrize("nfe", [9, 99])
def test_i2sb_that_returns_its_last_estimate(nfe):
    indexes = np.linspace(0, 999, nfe + 1).astype(int)[:0:-1]
    scheduler = make("i2sb", 1000, {"beta_max": 20.0}, timesteps=indexes + 1, last_node=1)
    name = f"SupResDiffGANrepo_schedule_sde_NFE{nfe}_returns_x0hat"
    entry = VALUES["i2sb"]["gaussian_recovery"][name]
    check(
        scheduler,
        entry,
        denoise=Gaussian(scheduler, official_i2sb(20.0)),
        want="pred_original_sample",
    )


def test_unidb_with_its_own_euler_sampler():
    params = {"variance": "reference"}
    scheduler = make("unidb", 100, params, n=100, solver="euler", mode="mean")
    check(scheduler, VALUES["unidb"]["gaussian_recovery"]["reference_euler_mean_ode_T100"])
    noisy = make("unidb", 100, params, n=100, solver="euler")
    mean, std, _ = follow(noisy)
    assert mean == pytest.approx(0.497067123838719, abs=1e-10)  # noise does not move the mean
    assert std == pytest.approx(0.199, abs=5e-4)


@pytest.mark.parametrize("nfe", [100, 10, 5])
def test_unidb_with_the_exact_posterior(nfe):
    scheduler = make("unidb", 100, n=nfe, prediction_type="sample")
    entry = VALUES["unidb"]["gaussian_recovery"][f"generic_posterior_sde_NFE{nfe}"]
    check(scheduler, entry)


def test_unidb_posterior_of_its_code():
    scheduler = BridgeScheduler("unidb", 100, {"variance": "reference"})
    a, b, _ = scheduler.tables[:3]
    for node, entry in VALUES["unidb"]["posterior"]["at"].items():
        t = int(node)
        k = scheduler._keep(t, t - 1)
        got = [k, a[t - 1] - k * a[t], b[t - 1] - k * b[t], scheduler._fresh(t, t - 1)]
        want = [entry[key] for key in ("kx", "k0", "ky", "std")]
        assert got == pytest.approx(want, abs=1e-13), node


def test_unidb_objective_of_its_code():
    scheduler = BridgeScheduler("unidb", 100, {"variance": "reference"}, solver="euler")
    for node, entry in VALUES["unidb"]["training_target"]["at"].items():
        t = torch.tensor([int(node)] * 2)
        x0, y, noise = images([0.7, 0.1]), images([-0.2, 0.4]), images([0.5, -1.0])
        x_t = scheduler.add_noise(x0, y, noise, t)
        target, weight = scheduler.euler_target(x0, y, x_t, t)
        want = entry["coef_true_eps"] * noise + entry["coef_x0_minus_y"] * (x0 - y)
        torch.testing.assert_close(target, want, rtol=1e-10, atol=1e-10)
        assert weight[0].item() == pytest.approx(entry["loss_weight_W"], rel=1e-12)
        done = scheduler.step(target[:1], int(node), x_t[:1], y[:1], noise=images([0.0]))
        plain = BridgeScheduler(
            "unidb", 100, {"variance": "reference"}, prediction_type="sample", mode="mean"
        )
        exact = plain.step(x0[:1], int(node), x_t[:1], y[:1], prev_timestep=int(node) - 1)
        torch.testing.assert_close(done.prev_sample, exact.prev_sample, rtol=0, atol=1e-12)


@pytest.mark.parametrize("nfe", [1, 4, 10, 50, 100])
def test_flow_recovers_the_law_with_euler(nfe):
    scheduler = make("flow", 1000, n=nfe, mode="ode")
    check(scheduler, VALUES["flow_matching"]["gaussian_recovery"][f"euler_uniform_N{nfe}"])


def test_flow_on_the_default_grid_of_diffusers():
    scheduler = make("flow", 1000, timesteps=[1000, 667, 334, 1], mode="ode")
    check(scheduler, VALUES["flow_matching"]["gaussian_recovery"]["euler_diffusersDefaultGrid_N4"])


@pytest.mark.parametrize("nfe", [1, 4, 25, 50, 100])
@pytest.mark.parametrize("rule", ["midpoint", "heun"])
def test_second_order_rules_are_compositions_of_steps(rule, nfe):
    """The slope after half a step, or the mean of the slopes at both ends, for the whole step."""
    scheduler = make("flow", 1000, n=nfe, mode="ode")
    net, grid, y = Gaussian(scheduler), scheduler.grid.tolist(), images([Y])
    x, states = images([0.8]), [0.8]
    for t, s in pairwise(grid):
        ahead = (t + s) // 2 if rule == "midpoint" else s
        slope = net(x, t)
        there = x + (ahead - t) / 1000 * slope
        if ahead > 0:
            moved = scheduler.step(slope, t, x, y, prev_timestep=ahead).prev_sample
            torch.testing.assert_close(moved, there, rtol=0, atol=1e-12)
            slope = net(there, ahead) if rule == "midpoint" else (slope + net(there, ahead)) / 2
        x = x + (s - t) / 1000 * slope
        states.append(x.item())
    entry = VALUES["flow_matching"]["gaussian_recovery"][f"{rule}_uniform_N{nfe}"]
    for k, value in entry["trajectory"].items():
        assert states[int(k)] == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize("entry", VALUES["proposed_node_interface"]["gaussian_recovery"])
def test_every_process_and_mode_recovers_the_law(entry):
    name, mode, nfe = entry.split("|")
    process, steps, params = NODES[name]
    scheduler = make(process, steps, params, n=int(nfe[1:]), mode=mode, prediction_type="sample")
    wanted = VALUES["proposed_node_interface"]["gaussian_recovery"][entry]
    assert scheduler.grid.tolist() == wanted["grid"]
    check(scheduler, wanted)


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
def test_the_prior_is_what_the_process_says(process):
    scheduler = BridgeScheduler(process, STEPS.get(process, 100))
    y, noise = torch.randn(2, 3, 1, 4, 4)
    got = scheduler.prior(y, noise=noise)
    want = noise if process in FROM_NOISE else y if process in PINNED else y + 1.98 * noise
    torch.testing.assert_close(got, want)


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


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("steps", "std"), [(10, 0.150), (20, 0.184)])
def test_dpm_solver_takes_the_place_of_the_steps(steps, std):
    bridge = BridgeScheduler("sr3", 1000, COSINE, prediction_type="sample")
    solver, net = DPMSolver(bridge, steps), Gaussian(bridge)
    x, y = images([0.0, 1.0]), images([Y, Y])
    for t in solver.timesteps.tolist():
        x = solver.step(net(x, t), t, x, y).prev_sample
    assert x[0].item() == pytest.approx(MEAN, abs=2e-3)  # the image of the mean of the prior
    assert (x[1] - x[0]).item() == pytest.approx(std, abs=1e-3)
    with pytest.raises(LpipsSatError, match="is for sr3 and supresdiffgan, not for flow"):
        DPMSolver(BridgeScheduler("flow", 10), 3)


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
