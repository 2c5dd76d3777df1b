"""DPM-Solver++ of diffusers behind the interface of `BridgeScheduler`.

Second order on the probability-flow ODE, and so fewer steps, for the processes with the weights of
DDPM: a_t^2 + c_t^2 = 1, without y. (What diffusers has for flow matching is `mode="ode"`.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from lpips_sat import LpipsSatError

from .scheduler import BridgeScheduler, BridgeStep


class DPMSolver:
    """A bridge that takes the steps of DPM-Solver++ 2M (Lu et al. 2022, arXiv 2211.01095)."""

    def __init__(self, bridge: BridgeScheduler, num_inference_steps: int) -> None:
        a, b, c = bridge.tables[:3]
        if b.any() or not np.allclose(a**2 + c**2, 1):
            raise LpipsSatError(
                "DPM-Solver++ is for processes with the weights of DDPM (sr3, supresdiffgan), not "
                f"for {bridge.config.process}"
            )
        if not 1 <= num_inference_steps <= bridge.nodes:
            raise LpipsSatError(
                f"expected 1 to {bridge.nodes} sampling steps, got {num_inference_steps}"
            )
        self.bridge = bridge
        self.solver: Any = DPMSolverMultistepScheduler(
            bridge.nodes,
            trained_betas=(1 - (a[1:] / a[:-1]) ** 2).tolist(),
            prediction_type="sample",
            timestep_spacing="trailing",
        )
        self.solver.set_timesteps(num_inference_steps)
        self.timesteps = self.solver.timesteps + 1  # diffusers' indexes begin at node 1

    def step(self, output: Tensor, t: int, x_t: Tensor, y: Tensor, **_: Any) -> BridgeStep:
        """One step, in the order of `timesteps`: the solver remembers the one before."""
        x0 = self.bridge.pred_x0(output, x_t, y, t)
        return BridgeStep(self.solver.step(x0, t - 1, x_t).prev_sample, x0)
