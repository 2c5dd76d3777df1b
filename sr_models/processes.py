"""The six diffusion processes as tables of one linear-Gaussian bridge.

At the integer nodes t = 0 (clean) ... T (prior), with the high-resolution image x0, the up-sampled
low-resolution image y and standard normal noise,

    x_t = a_t x0 + b_t y + c_t noise .

Everything that tells one model from another is in `PROCESSES`: these tables, computed in float64,
where its sampling starts and what its paper's network predicts. Nodes settle the off-by-ones of the
papers' code: index n of SR3, ResShift and I2SB (from 0) is node n + 1 here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lpips_sat import LpipsSatError

Array = npt.NDArray[np.float64]


class Tables(NamedTuple):
    """One process at its nodes; float64 arrays of length T + 1.

    a, b, c: the weights of x0, y and the noise. rho: the reverse step from t to s uses
    rho_t / rho_s, the factor by which the forward chain s -> t multiplies its deviation from the
    mean. spread: the standard deviation that the `bridge` target is divided by. c_of_a: noise
    weight between two nodes, for processes with a continuous time; None for the others.
    """

    a: Array
    b: Array
    c: Array
    rho: Array
    spread: Array
    c_of_a: Callable[[Array], Array] | None = None


class EulerTables(NamedTuple):
    """UniDB's reverse Euler step from node t: x x_t + y y - noise_hat eps_hat + fresh z."""

    x: Array
    y: Array
    noise_hat: Array
    fresh: Array


def betas(steps: int, *, schedule: str, start: float = 1e-4, end: float = 2e-2) -> Array:
    """Variances of the DDPM chain (steps,), float64.

    schedule: "linear", "scaled_linear" (linear in the root; Rombach et al. 2022) or "cosine"
    (Nichol and Dhariwal 2021, eq. 17, capped at 0.999), which takes neither start nor end.
    """
    if schedule == "linear":
        return np.linspace(start, end, steps, dtype=np.float64)
    if schedule == "scaled_linear":
        return np.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=np.float64) ** 2
    if schedule == "cosine":
        kept = _cosine(np.arange(steps + 1) / steps)
        return np.minimum(1 - kept[1:] / kept[:-1], 0.999)
    raise LpipsSatError(f"schedule must be linear, scaled_linear or cosine, got {schedule!r}")


def sr3(steps: int, *, schedule: str = "linear", start: float = 1e-6, end: float = 1e-2) -> Tables:
    """Variance-preserving diffusion of x0 alone; y is only seen by the network.

    Saharia et al. 2021, "Image super-resolution via iterative refinement", eq. 4; SupResDiffGAN
    (Kopec et al. 2025) runs the same with the cosine schedule. a_t^2 is their gamma_t.
    """
    beta = betas(steps, schedule=schedule, start=start, end=end)
    gamma = np.concatenate([[1.0], np.cumprod(1 - beta)])
    a, c = np.sqrt(gamma), np.sqrt(1 - gamma)
    return Tables(a, np.zeros_like(a), c, a, c, lambda level: np.sqrt(1 - level**2))


def resshift(
    steps: int,
    *,
    kappa: float = 2.0,
    power: float = 0.3,
    min_noise_level: float = 0.04,
    sqrt_eta_end: float = 0.99,
) -> Tables:
    """Shift the residual y - x0 in, with noise of variance kappa^2 eta_t.

    Yue et al. 2023, "ResShift", eq. 2 and 10. As in its code, `sqrt_eta_end` is sqrt(eta_T) and
    the first is min(min_noise_level / kappa, min_noise_level).
    """
    if steps < 2:
        raise LpipsSatError(f"ResShift's schedule needs at least 2 steps, got {steps}")
    first = min(min_noise_level / kappa, min_noise_level)
    growth = (np.arange(steps) / (steps - 1)) ** power
    root = np.concatenate([[0.0], first * (sqrt_eta_end / first) ** growth])
    eta, c = root**2, kappa * root
    return Tables(1 - eta, eta, c, np.ones_like(eta), c)


def i2sb(steps: int, *, beta_max: float = 0.3, beta_min: float = 1e-4) -> Tables:
    """Brownian bridge between x0 and y with a symmetric schedule.

    Liu et al. 2023, "I2SB: image-to-image Schroedinger bridge", eq. 11; `beta_max` / steps is the
    largest variance of a step. Its code counts one variance in both directions, so that neither
    end is exact; with a node at each end both are.
    """
    if steps % 2:
        raise LpipsSatError(f"I2SB's symmetric schedule needs an even number of steps, got {steps}")
    roots = np.linspace(math.sqrt(beta_min), math.sqrt(beta_max / steps), steps, dtype=np.float64)
    half = roots[: steps // 2] ** 2
    forward = np.concatenate([[0.0], np.cumsum(np.concatenate([half, half[::-1]]))])
    total = forward[-1]
    backward = total - forward
    a = backward / total
    return Tables(a, forward / total, np.sqrt(forward * backward / total), a, np.sqrt(forward))


def unidb(
    steps: int,
    *,
    lam: float = 30 / 255,
    eps: float = 0.005,
    gamma_inv: float = 1e-7,
    variance: str = "exact",
) -> Tables:
    """Ornstein-Uhlenbeck bridge with a soft terminal penalty.

    Zhu et al. 2025, "UniDB", eq. 16-18. lam: standard deviation of the stationary noise, in units
    of the image (the paper's 30/255 is for [0, 1]; twice that for [-1, 1]); eps: what is left of
    x0 after the whole uncontrolled chain; gamma_inv: 1/gamma, 0 is the hard bridge (GOUB).
    variance: "exact" for this gamma, or "reference", which is that of gamma_inv = 0 as in UniDB's
    code.
    """
    theta_bar, _, _ = _ornstein_uhlenbeck(steps, eps)
    done = lam**2 * -np.expm1(-2 * theta_bar)
    left = lam**2 * -np.expm1(-2 * (theta_bar[-1] - theta_bar))
    if variance not in ("exact", "reference"):
        raise LpipsSatError(f"variance must be exact or reference, got {variance!r}")
    soft = gamma_inv if variance == "exact" else 0.0
    a = np.exp(-theta_bar) * (gamma_inv + left) / (gamma_inv + done[-1])
    c = np.sqrt(done * (soft + left) / (soft + done[-1]))
    return Tables(a, 1 - a, c, a, np.sqrt(done))


def unidb_euler(
    steps: int,
    *,
    lam: float = 30 / 255,
    eps: float = 0.005,
    gamma_inv: float = 1e-7,
    variance: str = "reference",
) -> EulerTables:
    """UniDB's own sampler: one reverse Euler-Maruyama step per node (its eq. 19); node 0 is unused.

    At node T the control and the score are left out, as in its code: both are singular there.
    """
    theta_bar, theta, dt = _ornstein_uhlenbeck(steps, eps)
    c = unidb(steps, lam=lam, eps=eps, gamma_inv=gamma_inv, variance=variance).c
    left = np.exp(-2 * (theta_bar[-1] - theta_bar))
    power = 2 * lam**2 * theta  # g^2
    pull, score = theta.copy(), np.zeros_like(theta)
    inner = slice(1, steps)
    pull[inner] += (power * left)[inner] / (gamma_inv + lam**2 * (1 - left[inner]))
    score[inner] = power[inner] * dt / c[inner]
    return EulerTables(1 + pull * dt, -pull * dt, score, np.sqrt(power * dt))


def flow(steps: int) -> Tables:
    """The straight path from x0 to noise; c_t is the sigma of diffusers' flow matching.

    Lipman et al. 2022, "Flow matching for generative modeling", with sigma_min = 0.
    """
    sigma = np.arange(steps + 1) / steps
    a = 1 - sigma
    return Tables(a, np.zeros_like(a), sigma, a, sigma, lambda level: 1 - level)


def regression(steps: int) -> Tables:
    """The control without diffusion: one step from y to the estimate of x0, and no noise."""
    if steps != 1:
        raise LpipsSatError(f"a regression has 1 step, got {steps}")
    a = np.array([1.0, 0.0])
    return Tables(a, 1 - a, np.zeros(2), a, np.ones(2))


class Process(NamedTuple):
    """One model: its tables, where sampling starts, and what its paper's network predicts.

    prior: "noise", "y", or "y+noise", y with noise of the weight c_T; predicts: see
    `scheduler.BridgeScheduler`.
    """

    tables: Callable[..., Tables]
    prior: Literal["noise", "y", "y+noise"]
    predicts: Literal["sample", "epsilon", "velocity", "bridge"]


PROCESSES = {
    "sr3": Process(sr3, prior="noise", predicts="epsilon"),
    "supresdiffgan": Process(sr3, prior="noise", predicts="sample"),
    "resshift": Process(resshift, prior="y+noise", predicts="sample"),
    "i2sb": Process(i2sb, prior="y", predicts="bridge"),
    "unidb": Process(unidb, prior="y", predicts="epsilon"),
    "flow": Process(flow, prior="noise", predicts="velocity"),
    "regression": Process(regression, prior="y", predicts="sample"),
}


def tables(process: str, steps: int, params: dict[str, Any] | None = None) -> Tables:
    """The tables of a process by name; an unknown name or parameter is an error that lists them."""
    if process not in PROCESSES:
        raise LpipsSatError(f"unknown process {process!r}: expected one of {', '.join(PROCESSES)}")
    make = PROCESSES[process].tables
    known = make.__kwdefaults__ or {}
    if unknown := sorted(set(params or {}) - set(known)):
        names = ", ".join(known) or "none"
        raise LpipsSatError(f"{process} has no parameter {', '.join(unknown)}; it takes: {names}")
    return make(steps, **(params or {}))


def _cosine(u: Array) -> Array:
    """cos^2, slightly moved so that the first step is not too small."""
    wave: Array = np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return wave


def _ornstein_uhlenbeck(steps: int, eps: float) -> tuple[Array, Array, float]:
    """UniDB's integrated rate (0 at node 0, -ln eps at node T), its rate, and its time step."""
    wave = _cosine(np.arange(1, steps + 2) / (steps + 2)) / _cosine(np.zeros(1))
    theta = 1 - wave
    total = np.cumsum(theta) - theta[0]
    dt = -math.log(eps) / total[-1]
    return dt * total, theta, dt
