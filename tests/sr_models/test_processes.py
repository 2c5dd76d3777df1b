"""The tables against float64 values of the papers' formulas, and against diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDPMScheduler

from lpips_sat import LpipsSatError
from sr_models.processes import PROCESSES, betas, i2sb, resshift, sr3, tables, unidb, unidb_euler

from .conftest import NODES

VALUES = json.loads(
    (Path(__file__).parents[1] / "reference_values" / "sr_processes.json").read_text()
)
SR3 = {  # entry: steps, arguments of betas
    "official_linear_T2000_1e-6_1e-2": (2000, {"schedule": "linear", "start": 1e-6, "end": 1e-2}),
    "cosine_T1000 (SupResDiffGAN repo SR3; diffusers squaredcos_cap_v2)": (
        1000,
        {"schedule": "cosine"},
    ),
    "scaled_linear_T1000_1e-4_2e-2 (SupResDiffGAN repo calls this 'linear')": (
        1000,
        {"schedule": "scaled_linear", "start": 1e-4, "end": 2e-2},
    ),
    "linear_T1000_1e-4_2e-2 (diffusers DDPM default)": (1000, {"start": 1e-4, "end": 2e-2}),
}
RESSHIFT = {
    "conference_T15_k2_p0.3_min0.04": (15, {}),
    "journal/bicubic_T4_k2_p0.3_min0.2": (4, {"min_noise_level": 0.2}),
    "SupResDiffGANrepo_T1000_k2_p0.3_min0.2": (1000, {"min_noise_level": 0.2}),
}
I2SB = {
    "official_N1000_betamax0.3": 0.3,
    "official_N1000_betamax1.0 (deblur/inpaint with ot_ode)": 1.0,
    "SupResDiffGANrepo_N1000_end2e-2": 20.0,
}


def agree(got, entry, *, offset=0):
    """Compare a table with a full list, or with values at some indexes and the sum."""
    got = np.asarray(got)[offset:]
    if isinstance(entry, list):
        np.testing.assert_allclose(got, entry, rtol=1e-10, atol=1e-12)
        return
    assert len(got) == entry["len"]
    for index, value in entry["at"].items():
        assert got[int(index)] == pytest.approx(value, rel=1e-10, abs=1e-12), index
    assert got.sum() == pytest.approx(entry["sum"], rel=1e-10, abs=1e-10)


def posterior(table):
    """(kx, k0, var) of q(x_{t-1} | x_t, x0) for a chain that ignores y, t = 1..T, by Bayes."""
    a, c = table.a, table.c
    step = a[1:] / a[:-1]
    forward = c[1:] ** 2 - (step * c[:-1]) ** 2
    kx = step * c[:-1] ** 2 / c[1:] ** 2
    return kx, a[:-1] * forward / c[1:] ** 2, forward * c[:-1] ** 2 / c[1:] ** 2


@pytest.mark.parametrize("name", SR3)
def test_sr3_tables(name):
    steps, given = SR3[name]
    entry, table = VALUES["sr3"]["schedules"][name], sr3(steps, **given)
    agree(betas(steps, **({"schedule": "linear"} | given)), entry["betas"])
    agree(table.a**2, entry["alphas_cumprod"], offset=1)
    kx, k0, var = posterior(table)
    for got, key in ((kx, "post_coef_xt"), (k0, "post_coef_x0"), (var, "post_var")):
        agree(got, entry[key])


def test_sr3_noise_levels_between_which_training_draws():
    agree(sr3(2000).a, VALUES["sr3"]["training"]["S_table_T2000"])


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 10])
def test_supresdiffgan_redefines_its_schedule(steps):
    entry = VALUES["supresdiffgan"]["schedules_by_N"][str(steps)]
    agree(betas(steps, schedule="cosine"), entry["betas"])
    agree(sr3(steps, schedule="cosine").a[1:] ** 2, entry["alphas_cumprod"])


@pytest.mark.parametrize("name", RESSHIFT)
def test_resshift_tables(name):
    steps, given = RESSHIFT[name]
    entry, table = VALUES["resshift"]["schedules"][name], resshift(steps, **given)
    eta = table.b
    agree(np.sqrt(eta), entry["sqrt_etas"], offset=1)
    agree(eta, entry["etas"], offset=1)
    agree(np.diff(eta), entry["alpha"])
    agree(eta[:-1] / eta[1:], entry["post_coef_xt"])
    agree(np.diff(eta) / eta[1:], entry["post_coef_x0"])
    agree(4 * eta[:-1] / eta[1:] * np.diff(eta), entry["post_var"])
    agree(np.sqrt(1 + table.c**2), entry["input_scale_latent"], offset=1)
    agree(1 + 3 * table.c, entry["input_scale_pixel"], offset=1)


@pytest.mark.parametrize("name", I2SB)
def test_the_official_tables_of_i2sb_follow_from_the_nodes(name):
    """Its code counts the variance of a step on both sides: index n has nodes n + 1 and n."""
    entry, table = VALUES["i2sb"]["schedules"][name], i2sb(1000, beta_max=I2SB[name])
    forward = table.spread[1:]
    backward = np.sqrt(table.spread[-1] ** 2 - table.spread[:-1] ** 2)
    total = forward**2 + backward**2
    agree(np.diff(table.spread**2), entry["betas"])
    agree(forward, entry["std_fwd"])
    agree(backward, entry["std_bwd"])
    agree(backward**2 / total, entry["mu_x0"])
    agree(forward**2 / total, entry["mu_x1"])
    agree(forward * backward / np.sqrt(total), entry["std_sb"])


def test_i2sb_is_exact_at_both_ends():
    entry = VALUES["i2sb"]["node_exact_variant_N1000_betamax0.3"]["tables"]
    table = i2sb(1000)
    agree(table.spread**2, entry["std_fwd2"])
    agree(table.spread[-1] ** 2 - table.spread**2, entry["std_bwd2"])
    for got, key in ((table.a, "mu_x0"), (table.b, "mu_x1"), (table.c, "std_sb")):
        agree(got, entry[key])


@pytest.mark.parametrize("steps", [10, 100, 500, 1000])
def test_the_variance_of_i2sb_depends_on_the_number_of_nodes(steps):
    entry = VALUES["i2sb"]["total_variance_vs_N_betamax0.3"][str(steps)]
    assert i2sb(steps).spread[-1] ** 2 == pytest.approx(entry["sum_betas"], rel=1e-12)


def test_unidb_tables():
    entry, table = VALUES["unidb"]["tables_T100"], unidb(100)
    agree(table.a, entry["m"])
    agree(table.b, entry["n"])
    agree(table.c, entry["f_sigma_exact"])
    agree(unidb(100, variance="reference").c, entry["f_sigma"])
    agree(table.spread, entry["sigma_bars"])


def test_unidb_euler_step():
    euler = unidb_euler(100)
    for node, entry in VALUES["unidb"]["reverse_euler_coefs"]["at"].items():
        got = [values[int(node)] for values in euler]
        assert got == pytest.approx([entry[key] for key in ("A", "Cy", "W", "N")], rel=1e-10), node


@pytest.mark.parametrize("name", NODES)
def test_tables_at_the_nodes(name):
    process, steps, params = NODES[name]
    entry, table = VALUES["proposed_node_interface"]["tables"][name], tables(process, steps, params)
    for key in ("a", "b", "c"):
        agree(getattr(table, key), entry[key])
    for node, value in entry["q_sample"].items():
        x_t = 0.7 * table.a[int(node)] - 0.2 * table.b[int(node)] + 0.5 * table.c[int(node)]
        assert x_t == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [("linear", "linear"), ("scaled_linear", "scaled_linear"), ("cosine", "squaredcos_cap_v2")],
)
def test_betas_are_those_of_diffusers(schedule, theirs):
    oracle = DDPMScheduler(1000, 1e-4, 2e-2, theirs)
    np.testing.assert_allclose(betas(1000, schedule=schedule), oracle.betas, rtol=2e-4, atol=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_begins_clean_and_ends_at_its_prior(name):
    table = tables(name, {"resshift": 15, "regression": 1}.get(name, 100))
    assert (table.a[0], table.b[0], table.c[0]) == (1, 0, 0)
    assert (np.diff(table.a) < 0).all()
    assert {values.dtype for values in table[:5]} == {np.dtype(np.float64)}
    if name in ("sr3", "supresdiffgan", "flow"):
        assert not table.b.any()
    else:
        np.testing.assert_allclose(table.a + table.b, 1, rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sr4", 10), "unknown process 'sr4': expected one of sr3"),
        (("resshift", 15, {"kapa": 2}), "has no parameter kapa; it takes: kappa, power"),
        (("flow", 10, {"sigma": 1}), "it takes: none"),
        (("resshift", 1), "at least 2 steps"),
        (("i2sb", 15), "even number of steps"),
        (("sr3", 10, {"schedule": "square"}), "schedule must be linear"),
        (("unidb", 10, {"variance": "wrong"}), "variance must be exact or reference"),
        (("regression", 2), "a regression has 1 step"),
    ],
)
def test_what_cannot_be_is_one_clear_line(arguments, message):
    with pytest.raises(LpipsSatError, match=message):
        tables(*arguments)
