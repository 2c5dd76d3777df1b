"""The scheduler recovers exact laws: whole trajectories against values of the papers' formulas."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lpips_sat import LpipsSatError
from sr_models.processes import i2sb
from sr_models.scheduler import BridgeScheduler
from sr_models.solvers import DPMSolver

from .conftest import NODES

VALUES = json.loads(
    (Path(__file__).parents[1] / "reference_values" / "sr_processes.json").read_text()
)
Y, MEAN, STD = 0.3, 0.5, 0.2  # the LR pixel, and the law of x0 given it
COSINE = {"schedule": "cosine"}
# DPM-Solver of diffusers converts tensors in a way that NumPy 2 warns of
NUMPY_2 = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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


@NUMPY_2
@pytest.mark.parametrize(("steps", "std"), [(10, 0.150), (20, 0.184)])
def test_dpm_solver_takes_the_place_of_the_steps(steps, std):
    bridge = BridgeScheduler("sr3", 1000, COSINE, prediction_type="sample")
    solver, net = DPMSolver(bridge, steps), Gaussian(bridge)
    x, y = images([0.0, 1.0]), images([Y, Y])
    for t in solver.timesteps.tolist():
        x = solver.step(net(x, t), t, x, y).prev_sample
    assert x[0].item() == pytest.approx(MEAN, abs=2e-3)  # the image of the mean of the prior
    assert (x[1] - x[0]).item() == pytest.approx(std, abs=1e-3)


@pytest.mark.parametrize("process", ["flow", "i2sb", "regression"])
def test_dpm_solver_is_for_the_weights_of_ddpm(process):
    bridge = BridgeScheduler(process, 1 if process == "regression" else 10)
    with pytest.raises(LpipsSatError, match=rf"\(sr3, supresdiffgan\), not for {process}"):
        DPMSolver(bridge, 1)


@NUMPY_2
@pytest.mark.parametrize("steps", [0, 11])
def test_dpm_solver_takes_no_more_steps_than_the_chain_has(steps):
    bridge = BridgeScheduler("sr3", 10, COSINE)
    DPMSolver(bridge, 10)
    with pytest.raises(LpipsSatError, match=f"expected 1 to 10 sampling steps, got {steps}"):
        DPMSolver(bridge, steps)
