"""Special cases of the scheduler are schedulers of diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from sr_models.scheduler import BridgeScheduler

COSINE = {"schedule": "cosine"}


def walk(ours, theirs, steps, *, head="sample"):
    """One path of both schedulers with one denoiser: x0h = 0.8 x_t + 0.1, the same noise."""
    ours.set_timesteps(steps)
    c = ours.tables.c
    x = y = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 1, 2, 2)
    theirs_x = x
    for t in ours.timesteps.tolist():
        output, other = 0.8 * x + 0.1, 0.8 * theirs_x + 0.1
        x = ours.step(output, t, x, y).prev_sample
        if head == "velocity":
            other = (theirs_x - other) / c[t]
        theirs_x = theirs.step(other, theirs.timesteps[ours.grid.tolist().index(t)], theirs_x)
        theirs_x = theirs_x.prev_sample
    torch.testing.assert_close(x, theirs_x.double(), rtol=0, atol=3e-5)


def test_ode_is_ddim():
    oracle = DDIMScheduler(
        1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    oracle.set_timesteps(10)
    walk(BridgeScheduler("sr3", 1000, COSINE, prediction_type="sample", mode="ode"), oracle, 10)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_ode_is_the_first_order_of_dpm_solver():
    oracle = DPMSolverMultistepScheduler(
        1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        timestep_spacing="trailing",
        solver_order=1,
    )
    oracle.set_timesteps(10)
    walk(BridgeScheduler("sr3", 1000, COSINE, prediction_type="sample", mode="ode"), oracle, 10)


def test_ode_of_the_flow_is_euler():
    oracle = FlowMatchEulerDiscreteScheduler(1000)
    oracle.set_timesteps(sigmas=np.linspace(1, 0.1, 10))
    flow = BridgeScheduler("flow", 1000, prediction_type="sample", mode="ode")
    walk(flow, oracle, 10, head="velocity")


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_sde_is_ddpm(variance):
    oracle = DDPMScheduler(
        1000,
        beta_schedule="linear",
        variance_type=variance,
        prediction_type="epsilon",
        timestep_spacing="trailing",
        clip_sample=True,
    )
    oracle.set_timesteps(20)
    params = {"start": 1e-4, "end": 2e-2}
    ours = BridgeScheduler("sr3", 1000, params, variance_type=variance, clip_sample=True)
    ours.set_timesteps(20)
    x, output = torch.randn(2, 3, 1, 8, 8, dtype=torch.float64)
    for t in ours.timesteps.tolist():
        generators = [torch.Generator().manual_seed(t) for _ in range(2)]
        theirs = oracle.step(output, t - 1, x, generator=generators[0])
        mine = ours.step(output, t, x, x, generators[1])
        torch.testing.assert_close(
            mine.pred_original_sample, theirs.pred_original_sample, rtol=0, atol=1e-5
        )
        if t > 50:  # with fewer steps than nodes, the oracle's last step adds noise to x0h
            torch.testing.assert_close(mine.prev_sample, theirs.prev_sample, rtol=0, atol=1e-5)
