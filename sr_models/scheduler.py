"""One scheduler for all processes: noise an image, read the network's output, step back.

Given an estimate x0h, the step from node t to an earlier node s is, for every process,

    x_s = a_s x0h + b_s y + k (x_t - a_t x0h - b_t y) + d z

    sde   k = rho c_s^2 / c_t^2, d = c_s sqrt(1 - rho^2 c_s^2 / c_t^2): the posterior of the chain
    mean  the same k, d = 0
    ode   k = c_s / c_t, d = 0: DDIM, the probability-flow ODE, Euler for flow matching

with rho = rho_t / rho_s. Where x_t is y exactly (c_t = 0), x_s = a_s x0h + b_s y + [sde] c_s z; and
x_0 = x0h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from lpips_sat import LpipsSatError

from .processes import PROCESSES, Array, EulerTables, tables, unidb_euler

MODES = ("sde", "mean", "ode")
HEADS = ("sample", "epsilon", "velocity", "bridge")
TIMES = ("node", "level", "power")
INPUTS = ("as_is", "unit", "pixel", "residual")
SOLVERS = ("posterior", "euler")
VARIANCES = ("fixed_small", "fixed_large")
TIME_RANGE = 1000.0  # what the sinusoids of diffusers' networks are made for
EXACT = 1e-12  # a noise weight below this is none
BLIND = 1e-6  # an x0 weight below this is drowned in the rounding of float32


class BridgeStep(NamedTuple):
    """The image at the earlier node, and the estimate of the clean one that led there."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class BridgeScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A process with the way its network is asked and the way it is sampled; see the module.

    Args:
        process: a name in `processes.PROCESSES`.
        num_train_timesteps: T, the number of steps of the full chain.
        params: parameters of the process, see its function.
        prediction_type: what the network predicts: "sample" (x0), "epsilon" (the noise),
            "velocity" (noise - x0) or "bridge" ((x_t - x0) / spread_t); None is the paper's.
        mode: "sde", "mean" or "ode", see the module.
        solver: "posterior" (above), or "euler", UniDB's own reverse Euler step.
        variance_type: of the sde's noise, with the names of diffusers: "fixed_small" is d above,
            "fixed_large" the variance of the forward chain from s to t.
        continuous: train between the nodes as well (SR3's continuous noise level).
        redefine: sample N steps with the process's own N-step tables (SupResDiffGAN), not with N
            of the T nodes.
        last_node: where sampling ends; 1 = at I2SB's index 0, without noise.
        time_input: what the network gets as time: "node" (1000 t / T), "level" (1000 a_t, SR3) or
            "power" (1000 a_t^2, SupResDiffGAN).
        model_input: how it gets x_t: "as_is", "unit" (x_t / sqrt(1 + c_t^2), ResShift in a latent
            space), "pixel" (x_t / (1 + 3 c_t), ResShift on pixels) or "residual" (x_t - y, UniDB).
        clip_sample: clamp the estimate of x0.
        clip_sample_range: to +-range.
    """

    order = 1

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        process: str = "resshift",
        num_train_timesteps: int = 15,
        params: dict[str, Any] | None = None,
        prediction_type: str | None = None,
        mode: str = "sde",
        solver: str = "posterior",
        variance_type: str = "fixed_small",
        continuous: bool = False,
        redefine: bool = False,
        last_node: int = 0,
        time_input: str = "node",
        model_input: str = "as_is",
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
    ) -> None:
        # diffusers takes positional arguments for defaults, which `from_config` then loses
        self.register_to_config(_use_default_values=[])
        self.params = dict(params or {})
        self.tables = tables(process, num_train_timesteps, self.params)
        self.head = PROCESSES[process].predicts if prediction_type is None else prediction_type
        for name, value, known in (
            ("prediction_type", self.head, HEADS),
            ("mode", mode, MODES),
            ("solver", solver, SOLVERS),
            ("variance_type", variance_type, VARIANCES),
            ("time_input", time_input, TIMES),
            ("model_input", model_input, INPUTS),
        ):
            if value not in known:
                raise LpipsSatError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if continuous and (self.tables.c_of_a is None or self.head == "bridge"):
            raise LpipsSatError(
                f"{process} with the head {self.head} has integer nodes only: leave continuous out"
            )
        self.euler: EulerTables | None = None
        if solver == "euler":
            if process != "unidb" or mode == "ode" or self.head != "epsilon":
                raise LpipsSatError(
                    "solver euler is UniDB's: it needs process unidb, prediction_type epsilon and "
                    f"mode sde or mean, got {process}, {self.head}, {mode}"
                )
            self.euler = unidb_euler(num_train_timesteps, **self.params)
        self.nodes = num_train_timesteps
        self.grid = np.arange(num_train_timesteps, -1, -1)
        self.timesteps = torch.from_numpy(self.grid[:-1].copy())

    # -- training -----------------------------------------------------------------------------

    def training_timesteps(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n nodes uniformly from 1..T, long (n,); float and between nodes if `continuous`.

        T is left out where no estimate of x0 would follow from the head, such as the noise in a
        prior without x0.
        """
        if self.nodes != self.config.num_train_timesteps:
            raise LpipsSatError(
                "set_timesteps has put other tables into this scheduler: make another for training"
            )
        a, c = float(self.tables.a[-1]), float(self.tables.c[-1])
        blind = {"epsilon": a, "velocity": a + c}.get(self.head, 1.0) < BLIND
        nodes = torch.randint(1, self.nodes + (not blind), (n,), generator=generator)
        return nodes - torch.rand(n, generator=generator) if self.config.continuous else nodes

    def add_noise(self, x0: Tensor, y: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """x_t = a_t x0 + b_t y + c_t noise, for images (N, ...); t: one node, or one per image."""
        a, b, c = self._weights(t, x0)
        return a * x0 + b * y + c * noise

    def target(self, x0: Tensor, y: Tensor, noise: Tensor, x_t: Tensor, t: int | Tensor) -> Tensor:
        """What the network should predict from x_t."""
        if self.head == "sample":
            return x0
        if self.head == "epsilon":
            return noise
        if self.head == "velocity":
            return noise - x0
        return (x_t - x0) / self._at(self.tables.spread, t, x0)

    def euler_target(self, x0: Tensor, y: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """UniDB's objective: the noise whose Euler step hits the posterior mean, and its weight.

        |weight (output - target)| is the distance between the two means (UniDB, eq. 20).
        """
        if self.euler is None:
            raise LpipsSatError("euler_target needs solver euler")
        a, b, _ = self._weights(t, x0)
        a_s, b_s, _ = self._weights(t - 1, x0)
        k = self._at(np.vectorize(lambda node: self._keep(node, node - 1))(_numpy(t)), None, x0)
        x, y_weight, weight, _ = (self._at(table, t, x0) for table in self.euler)
        mean = a_s * x0 + b_s * y + k * (x_t - a * x0 - b * y)
        return (x * x_t + y_weight * y - mean) / weight, weight

    # -- what the network gets and gives ---------------------------------------------------------

    def scale_model_input(self, x_t: Tensor, y: Tensor, t: int | Tensor) -> Tensor:
        """x_t as the network wants to see it, see `model_input`."""
        rule = self.config.model_input
        if rule == "as_is":
            return x_t
        if rule == "residual":
            return x_t - y
        c = self._weights(t, x_t)[2]
        return x_t / (1 + c**2) ** 0.5 if rule == "unit" else x_t / (1 + 3 * c)

    def model_time(self, t: int | Tensor, like: Tensor) -> Tensor:
        """The network's time (N,), in [0, 1000], see `time_input`; like: images (N, ...)."""
        rule = self.config.time_input
        if rule == "node":
            time = _numpy(t) / self.nodes
        else:
            level = self._exact_weights(_numpy(t))[0]
            time = level if rule == "level" else level**2
        wide = np.broadcast_to(TIME_RANGE * time, (len(like),)).astype(np.float32)
        return torch.from_numpy(wide.copy()).to(like.device)

    def pred_x0(self, output: Tensor, x_t: Tensor, y: Tensor, t: int | Tensor) -> Tensor:
        """The estimate of x0 in the network's output: the inverse of `target`, then the clamp.

        It is y where the head says nothing of x0 (see `training_timesteps`).
        """
        if self.head == "sample":
            x0 = output
        elif self.head == "bridge":
            x0 = x_t - self._at(self.tables.spread, t, x_t) * output
        else:
            a, b, c = self._weights(t, x_t)
            share = torch.as_tensor(a if self.head == "epsilon" else a + c)
            x0 = torch.where(share < BLIND, y, (x_t - b * y - c * output) / share)
        limit = self.config.clip_sample_range
        return x0.clamp(-limit, limit) if self.config.clip_sample else x0

    # -- sampling -------------------------------------------------------------------------------

    def prior(
        self, y: Tensor, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """x_T: y itself (I2SB, UniDB), y + c_T noise (ResShift), or noise alone."""
        prior = PROCESSES[self.config.process].prior
        if prior == "y":
            return y
        z = _noise(y, generator, noise)
        return z if prior == "noise" else y + float(self.tables.c[-1]) * z

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Choose the nodes at which the network is asked: as many as steps, first T.

        They are round(linspace(T, last_node, steps + 1)) without the last one, or `timesteps`,
        given in descending order.
        """
        if timesteps is None:
            self._check_steps(num_inference_steps)
            assert num_inference_steps is not None
            if self.config.redefine:
                self.nodes = num_inference_steps
                self.tables = tables(self.config.process, self.nodes, self.params)
            spaced = np.linspace(self.nodes - self.config.last_node, 0, num_inference_steps + 1)
            nodes = np.rint(spaced).astype(np.int64) + self.config.last_node
        else:
            nodes = np.asarray([*timesteps, self.config.last_node])
        if (np.diff(nodes) >= 0).any() or nodes[0] > self.nodes or nodes[-1] < 0:
            raise LpipsSatError(
                f"expected nodes that fall from at most {self.nodes} to at least "
                f"{self.config.last_node + 1}, got {nodes[:-1].tolist()}"
            )
        self.grid = nodes
        self.timesteps = torch.from_numpy(nodes[:-1].copy()).to(device or "cpu")

    def _check_steps(self, steps: int | None) -> None:
        most = self.nodes - self.config.last_node
        if self.euler is not None and steps != most:
            raise LpipsSatError(f"UniDB's Euler sampler walks all {most} nodes, got {steps} steps")
        if steps is None or steps < 1 or (steps > most and not self.config.redefine):
            allowed = "1 sampling step" if most == 1 else f"1 to {most} sampling steps"
            raise LpipsSatError(f"expected {allowed}, got {steps}")

    def step(
        self,
        output: Tensor,
        t: int | Tensor,
        x_t: Tensor,
        y: Tensor,
        generator: torch.Generator | None = None,
        *,
        prev_timestep: int | None = None,
        noise: Tensor | None = None,
    ) -> BridgeStep:
        """One step back, from node t to the next of the grid, or to `prev_timestep`.

        output, x_t, y: (N, C, H, W); noise: the fresh noise, else drawn with `generator`.
        """
        node = int(t)
        prev = self.previous(node) if prev_timestep is None else prev_timestep
        x0 = self.pred_x0(output, x_t, y, node)
        if self.euler is not None:
            x, y_weight, weight, fresh = (float(table[node]) for table in self.euler)
            mean = x * x_t + y_weight * y - weight * output
        elif prev == 0:
            return BridgeStep(x0, x0)
        else:
            a, b, _ = self._weights(node, x_t)
            a_s, b_s, _ = self._weights(prev, x_t)
            mean = a_s * x0 + b_s * y + self._keep(node, prev) * (x_t - a * x0 - b * y)
            fresh = 0.0 if prev == self.config.last_node else self._fresh(node, prev)
        if self.config.mode == "sde" and fresh > 0:
            mean = mean + fresh * _noise(x_t, generator, noise)
        return BridgeStep(mean, x0)

    def previous(self, node: int) -> int:
        """The node that follows `node` on the sampling grid."""
        return int(self.grid[self.grid < node].max(initial=self.config.last_node))

    def _keep(self, t: int, s: int) -> float:
        """The k of the step: the share of the deviation from the mean that stays."""
        c = self.tables.c
        if c[t] < EXACT:
            return 0.0
        if self.config.mode == "ode":
            return float(c[s] / c[t])
        return self._rho(t, s) * float(c[s] / c[t]) ** 2

    def _fresh(self, t: int, s: int) -> float:
        """The d of the step: the standard deviation of the fresh noise."""
        c = self.tables.c
        if c[t] < EXACT:
            return float(c[s])
        forward = max(float(c[t] ** 2 - (self._rho(t, s) * c[s]) ** 2), 0.0) ** 0.5
        return forward if self.config.variance_type == "fixed_large" else forward * c[s] / c[t]

    def _rho(self, t: int, s: int) -> float:
        return 1.0 if s == t else float(self.tables.rho[t] / self.tables.rho[s])

    # -- tables at nodes --------------------------------------------------------------------------

    def _weights(self, t: int | Tensor, like: Tensor) -> tuple[Any, Any, Any]:
        """a, b, c at t, as numbers or as tensors (N, 1, ...) that multiply `like`."""
        a, b, c = (self._at(values, None, like) for values in self._exact_weights(_numpy(t)))
        return a, b, c

    def _exact_weights(self, t: Any) -> tuple[Array, Array, Array]:
        """a, b, c at t in float64; between nodes a and b are linear and c follows from a."""
        tables = self.tables
        if np.issubdtype(t.dtype, np.integer):
            return tables.a[t], tables.b[t], tables.c[t]
        if tables.c_of_a is None:
            raise LpipsSatError(f"{self.config.process} is defined at integer nodes only")
        nodes = np.arange(len(tables.a))
        a = np.interp(t, nodes, tables.a)
        return a, np.interp(t, nodes, tables.b), tables.c_of_a(a)

    @staticmethod
    def _at(values: Any, t: int | Tensor | None, like: Tensor) -> Any:
        picked = np.asarray(values if t is None else values[_numpy(t)], dtype=np.float64)
        if picked.ndim == 0:
            return float(picked)
        tensor = torch.from_numpy(picked).to(like.dtype).to(like.device)
        return tensor.view(-1, *[1] * (like.ndim - 1))


def _numpy(t: int | Tensor) -> Any:
    return t.detach().cpu().numpy() if isinstance(t, Tensor) else np.asarray(t)


def _noise(like: Tensor, generator: torch.Generator | None, noise: Tensor | None) -> Tensor:
    if noise is not None:
        return noise
    drawn: Tensor = randn_tensor(
        like.shape, generator=generator, device=like.device, dtype=like.dtype
    )
    return drawn
