from __future__ import annotations

import numpy as np
import pytest
import torch

from lpips_sat.declared import DeclaredRadiometry, resolve
from lpips_sat.errors import LpipsSatError, RadiometryError
from lpips_sat.radiometry import PRESETS, Radiometry, canonical_band, check_range, preset


def header(
    bands: tuple[str | None, ...] = ("B04",),
    *,
    dtype: str = "uint16",
    scales: tuple[float, ...] | None = None,
    offsets: tuple[float, ...] | None = None,
    nodata: tuple[float | None, ...] | None = None,
    colors: tuple[str, ...] | None = None,
) -> DeclaredRadiometry:
    n = len(bands)
    return DeclaredRadiometry(
        bands=bands,
        scales=scales or (1.0,) * n,
        offsets=offsets or (0.0,) * n,
        nodata=nodata or (None,) * n,
        dtype=dtype,
        colors=colors or ("gray", *("undefined",) * (n - 1)),
        source="scene.tif",
    )


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("B4, central wavelength 665 nm", "B04"),  # as GDAL describes a SAFE product
        ("B8A, central wavelength 865 nm", "B8A"),
        ("red", "B04"),
        (" GREEN ", "B03"),
        ("Blue", "B02"),
        ("nir", "B08"),
        ("nir08", "B8A"),
        ("b8a", "B8A"),
        ("B08A", "B8A"),
        ("B4", "B04"),
        ("b11", "B11"),
        ("B04", "B04"),
        ("Panchromatic", "panchromatic"),
    ],
)
def test_a_band_has_one_name_however_it_is_written(given: str, canonical: str) -> None:
    assert canonical_band(given) == canonical
    assert canonical_band(canonical) == canonical


# DN -> value worked out by hand from each product's definition
@pytest.mark.parametrize(
    ("name", "dn", "value"),
    [
        ("s2-l1c", 1234, 0.1234),
        ("s2-l1c-n0400", 1234, 0.0234),
        ("s2-l2a", 1452, 0.0452),
        ("s2-l2a", 900, -0.01),
        ("s2-l2a-harmonized", 1452, 0.1452),
        ("planetscope-sr", 3000, 0.3),
        ("uint8", 51, 0.2),
        ("naip", 255, 1.0),
    ],
)
def test_presets_turn_dn_into_the_values_their_products_define(
    name: str, dn: int, value: float
) -> None:
    radiometry = preset(name, bands=["red"])
    got = radiometry.to_values(np.full((1, 1, 1), dn, dtype=np.uint16))
    assert got.dtype == np.float32
    assert got.item() == pytest.approx(value, abs=1e-7)


def test_every_preset_is_of_a_known_kind_and_only_naip_knows_its_bands() -> None:
    assert {"s2-l1c", "s2-l2a", "planetscope-sr", "naip", "uint8"} <= set(PRESETS)
    assert preset("naip").bands == ("B04", "B03", "B02", "B08")
    assert {n for n, p in PRESETS.items() if p.kind == "display"} == {"naip", "uint8"}
    with pytest.raises(RadiometryError, match=r"--bands B04,B03,B02"):
        preset("s2-l2a")
    with pytest.raises(RadiometryError, match=r"unknown radiometry 's2'.*s2-l1c"):
        preset("s2", bands=["B04"])


def test_values_are_computed_per_band_and_in_float64() -> None:
    radiometry = Radiometry(("B04", "B03"), (1e-4, 2.0), (-1.0, 1.0))
    dn = np.array([[[10001]], [[3]]], dtype=np.uint16)
    # in float32, 1.0001 - 1 would leave 1.0001659e-4
    np.testing.assert_allclose(radiometry.to_values(dn).ravel(), [1e-4, 7.0], rtol=1e-7)


def test_nodata_in_any_band_makes_a_pixel_invalid() -> None:
    radiometry = Radiometry(("B04", "B03"), (1.0, 1.0), (0.0, 0.0), nodata=0)
    dn = np.array([[[0, 1, 1]], [[1, 0, 1]]], dtype=np.uint16)
    assert radiometry.valid(dn).tolist() == [[False, False, True]]


@pytest.mark.parametrize("nodata", [None, float("nan"), 7.0])
def test_a_value_that_is_not_finite_is_invalid_whatever_nodata_says(nodata: float | None) -> None:
    radiometry = Radiometry(("B04", "B03"), (1.0, 1.0), (0.0, 0.0), nodata=nodata)
    dn = np.array([[[np.nan, np.inf, 1, 7]], [[1, 1, -np.inf, 1]]], dtype=np.float32)
    assert radiometry.valid(dn).tolist() == [[False, False, False, nodata != 7.0]]


def test_nodata_is_compared_as_the_file_stores_it() -> None:
    dn = np.array([[[0.1, 0.2]]], dtype=np.float32)  # 0.1 in float32 is not 0.1 in float64
    assert Radiometry(("B04",), (1.0,), (0.0,), 0.1).valid(dn).tolist() == [[False, True]]
    lowest = np.array([[[np.finfo(np.float32).min, 1]]], dtype=np.float32)
    radiometry = Radiometry(("B04",), (1.0,), (0.0,), -3.4028234663852886e38)
    assert radiometry.valid(lowest).tolist() == [[False, True]]
    outside = Radiometry(("B04",), (1.0,), (0.0,), -9999.0)
    assert outside.valid(np.array([[[0, 55537]]], dtype=np.uint16)).all()  # 55537 = -9999 mod 2^16


def test_select_keeps_what_belongs_to_each_band() -> None:
    radiometry = Radiometry(("B04", "B03", "B02"), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 9, "display")
    assert radiometry.select(["B02", "B04"]) == Radiometry(
        ("B02", "B04"), (3.0, 1.0), (6.0, 4.0), 9, "display"
    )
    with pytest.raises(RadiometryError, match=r"no band B08: there are B04,B03,B02"):
        radiometry.select(["B08"])


def test_describe_says_it_all_in_one_line() -> None:
    assert preset("s2-l2a", bands=["B04", "B03"]).describe() == (
        "B04,B03: reflectance = DN * 0.0001 - 0.1, nodata 0"
    )
    both = Radiometry(("B04", "B03"), (1.0, 2.0), (0.0, 0.5), None, "display")
    assert both.describe() == "B04,B03: display = (DN * 1; DN * 2 + 0.5), no nodata"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (((), (), ()), "at least one band"),
        ((("B04",), (1.0, 1.0), (0.0,)), "1 bands.*got 2 scales"),
        ((("B04", "B04"), (1.0, 1.0), (0.0, 0.0)), "named twice in B04,B04"),
        ((("B04",), (0.0,), (0.0,)), "not 0"),
        ((("B04",), (1.0,), (float("nan"),)), "finite"),
        ((("B04",), (1.0,), (0.0,), None, "radiance"), "got 'radiance'"),
    ],
)
def test_a_radiometry_that_cannot_be_applied_is_refused(
    arguments: tuple[object, ...], text: str
) -> None:
    with pytest.raises(RadiometryError, match=text):
        Radiometry(*arguments)  # type: ignore[arg-type]


def test_dn_of_another_shape_are_refused() -> None:
    radiometry = preset("s2-l2a", bands=["B04", "B03"])
    for dn in (np.zeros((3, 2, 2)), np.zeros((2, 2))):
        with pytest.raises(RadiometryError, match=r"\(2, H, W\).*B04,B03"):
            radiometry.to_values(dn)
        with pytest.raises(RadiometryError, match=r"\(2, H, W\).*B04,B03"):
            radiometry.valid(dn)


def test_the_headers_scale_counts() -> None:
    declared = header(("red", "B3"), scales=(1e-4, 2e-4), offsets=(-0.1, 0.0), nodata=(0, None))
    assert resolve(declared) == Radiometry(("B04", "B03"), (1e-4, 2e-4), (-0.1, 0.0), 0)


def test_floating_numbers_without_a_scale_are_values_already() -> None:
    assert resolve(header(dtype="float32")) == Radiometry(("B04",), (1.0,), (0.0,))


@pytest.mark.parametrize(
    ("dtype", "hint"),
    [("uint16", "--radiometry s2-l2a"), ("int16", "s2-l1c"), ("uint8", "--radiometry uint8")],
)
def test_integers_without_a_scale_are_never_guessed(dtype: str, hint: str) -> None:
    with pytest.raises(RadiometryError, match=rf"scene.tif: {dtype} numbers.*{hint}"):
        resolve(header(dtype=dtype))


def test_a_scale_without_an_offset_is_half_a_declaration() -> None:
    with pytest.raises(RadiometryError, match="without a declared offset"):
        resolve(header(), scale=1e-4)
    with pytest.raises(RadiometryError, match="without a declared scale"):
        resolve(header(), offset=0.0)
    assert resolve(header(), scale=1e-4, offset=0) == Radiometry(("B04",), (1e-4,), (0.0,))
    assert resolve(header(), preset="s2-l2a", offset=0.0).offset == (0.0,)


def test_options_win_over_the_header() -> None:
    declared = header(("B04", "B03"), scales=(1e-4, 1e-4), nodata=(0, 0))
    got = resolve(declared, bands=["nir", "B8A"], scale=[1.0, 2.0], offset=3.0, nodata=5)
    assert got == Radiometry(("B08", "B8A"), (1.0, 2.0), (3.0, 3.0), 5)


@pytest.mark.parametrize("option", [{"bands": ["B04", "B03"]}, {"scale": [1.0, 1.0], "offset": 0}])
def test_options_for_another_number_of_bands_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(RadiometryError, match=r"scene.tif: 2 .* for 1 bands"):
        resolve(header(dtype="float32"), **option)  # type: ignore[arg-type]


def test_a_preset_that_contradicts_the_header_is_refused_with_both_named() -> None:
    declared = header(scales=(1e-4,))
    with pytest.raises(RadiometryError) as caught:
        resolve(declared, preset="s2-l2a")
    assert "DN * 0.0001, but" in str(caught.value)
    assert "s2-l2a means DN * 0.0001 - 0.1" in str(caught.value)
    assert resolve(declared, preset="s2-l1c").scale == (1e-4,)  # equal: no contradiction
    near = header(scales=(float(np.float32(1e-4)),), offsets=(float(np.float32(-0.1)),))
    assert resolve(near, preset="s2-l2a").offset == (-0.1,)
    overruled = resolve(declared, preset="s2-l2a", offset=-0.1)
    assert (overruled.scale, overruled.offset) == ((1e-4,), (-0.1,))


def test_a_preset_leaves_floating_values_as_they_are() -> None:
    found = resolve(header(dtype="float32"), preset="s2-l2a")
    assert (found.kind, found.scale, found.offset) == ("reflectance", (1.0,), (0.0,))
    assert found.nodata is None  # the preset's 0 is a DN
    display = resolve(header(dtype="float32"), preset="uint8")
    assert (display.kind, display.scale) == ("display", (1.0,))


def test_floating_dn_are_read_as_those_of_integer_files() -> None:
    floating = header(dtype="float32")
    for options in ({"preset": "s2-l2a"}, {"scale": 1e-4, "offset": -0.1, "nodata": 0}):
        assert resolve(floating, floating_dn=True, **options) == resolve(header(), **options)
    with pytest.raises(RadiometryError, match="float32 numbers without a declared scale"):
        resolve(floating, floating_dn=True)
    scaled = header(dtype="float32", scales=(1e-4,))
    assert resolve(scaled, floating_dn=True) == resolve(scaled)


def test_a_wrong_range_says_that_a_preset_was_not_applied_and_what_applies_it() -> None:
    values, valid = np.full((1, 4, 4), 2000.0), np.ones((4, 4), bool)
    with pytest.raises(RadiometryError, match=r"leaves them as they are.*--pred-dn"):
        check_range(values, valid, resolve(header(dtype="float32"), preset="s2-l2a"))
    with pytest.raises(RadiometryError) as caught:
        check_range(values, valid, preset("s2-l2a", bands=["B04"]))
    assert "--pred-dn" not in str(caught.value)


def test_nodata_comes_from_option_then_header_then_preset() -> None:
    assert resolve(header(), preset="s2-l2a").nodata == 0
    assert resolve(header(nodata=(65535,)), preset="s2-l2a").nodata == 65535
    assert resolve(header(nodata=(65535,)), preset="s2-l2a", nodata=7).nodata == 7
    assert resolve(header(dtype="uint8"), preset="naip").nodata is None


def test_bands_with_different_nodata_need_a_word_from_the_user() -> None:
    declared = header(("B04", "B03"), dtype="float32", nodata=(0, -9999))
    with pytest.raises(RadiometryError, match=r"different nodata values \(0,-9999\).*--nodata"):
        resolve(declared)
    assert resolve(declared, nodata=-9999).nodata == -9999
    nan = float("nan")
    alike = resolve(header(("B04", "B03"), dtype="float32", nodata=(nan, float("nan"))))
    assert alike.nodata is not None
    assert np.isnan(alike.nodata)


def test_unnamed_bands_of_reflectance_are_refused() -> None:
    for bands in ((None, None), ("B04", None), ("B04", "  ")):
        with pytest.raises(RadiometryError, match=r"scene.tif: 2 band.*--bands B04,B03,B02"):
            resolve(header(bands), preset="s2-l2a")


def test_red_green_and_blue_by_colour_are_names() -> None:
    declared = header((None,) * 3, dtype="uint8", colors=("red", "green", "blue"))
    assert resolve(declared, preset="uint8").bands == ("B04", "B03", "B02")
    mixed = header((None,) * 3, dtype="uint8", colors=("red", "green", "gray"))
    assert resolve(mixed, preset="uint8").bands == ("band1", "band2", "band3")


def test_naip_knows_its_four_bands_when_the_file_does_not() -> None:
    declared = header((None,) * 4, dtype="uint8")
    assert resolve(declared, preset="naip").bands == ("B04", "B03", "B02", "B08")
    named = header(("B08", "B04", "B03", "B02"), dtype="uint8")
    assert resolve(named, preset="naip").bands == ("B08", "B04", "B03", "B02")


def test_a_wrong_range_is_an_error_that_says_what_was_seen() -> None:
    radiometry = Radiometry(("B04",), (1.0,), (0.0,))
    values = np.linspace(100, 5000, 99, dtype=np.float32).reshape(1, 9, 11)
    with pytest.raises(RadiometryError) as caught:
        check_range(values, np.ones((9, 11), bool), radiometry, source="pred.tif")
    for part in ("pred.tif", "min 100", "median 2550", "max 5000", "100.0%", "--radiometry s2-"):
        assert part in str(caught.value)


def test_one_percent_outside_the_range_is_let_pass_and_more_is_not() -> None:
    radiometry = preset("s2-l2a", bands=["B04", "B03"])
    values = np.full((2, 10, 20), 0.3, dtype=np.float32)
    values[0, 0, 0], values[1, 0, 1] = 3.5, -0.6  # 2 of 200 pixels, in different bands
    valid = np.ones((10, 20), bool)
    check_range(values, valid, radiometry)
    values[1, 5, 5] = 4.0
    with pytest.raises(RadiometryError, match=r"1\.5%"):
        check_range(values, valid, radiometry)
    valid[5, 5] = False
    valid[0, 0] = False  # 1 of 198
    check_range(values, valid, radiometry)


def test_the_range_check_takes_the_tensors_of_a_tile_and_no_pixel_at_all() -> None:
    radiometry = preset("uint8", bands=["B04", "B03"])
    values = torch.full((1, 2, 4, 4), 4.0)
    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(RadiometryError, match="display outside"):
        check_range(values, valid, radiometry)
    check_range(values, ~valid, radiometry)
    check_range(values / 4, valid, radiometry)


def test_errors_can_be_caught_as_one() -> None:
    assert issubclass(RadiometryError, LpipsSatError)
