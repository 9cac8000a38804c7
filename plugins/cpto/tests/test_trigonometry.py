"""Our row-wise angles and cosines are those of libm."""

import numpy as np

from sfumato_cpto.products import combine, dots
from sfumato_cpto.trigonometry import angles, cosines


def test_angles_of_vectors_agree_with_libm_in_every_direction_and_size():
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    y = rng.normal(size=20_000) * 10.0 ** rng.uniform(-12.0, 3.0, 20_000)
    out = np.empty_like(x)
    angles(x, y, out)
    np.testing.assert_allclose(out, np.arctan2(y, x), rtol=1e-14, atol=1e-15)


def test_angles_on_the_axes_and_at_rest_are_exact():
    x, y = np.array([0.0, 0.0, 0.0, 1.0, -1.0]), np.array([0.0, 1.0, -1.0, 0.0, 0.0])
    out = np.empty(5)
    angles(x, y, out)
    np.testing.assert_array_equal(out, [0.0, np.pi / 2, -np.pi / 2, 0.0, np.pi])


def test_cosines_agree_with_libm_over_many_turns():
    angle = np.random.default_rng(1).uniform(-50.0, 50.0, 20_000)
    c, s = np.empty_like(angle), np.empty_like(angle)
    cosines(angle, c, s)
    np.testing.assert_allclose(c, np.cos(angle), atol=1e-14)
    np.testing.assert_allclose(s, np.sin(angle), atol=1e-14)


def test_products_of_rows_agree_with_numpy_for_every_number_of_columns():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(2, 50))
    for n in range(1, 12):
        maps = rng.normal(size=(n, 50))
        out = np.empty(n)
        dots(rows, 1, maps, out)
        np.testing.assert_allclose(out, maps @ rows[1], rtol=1e-12, atol=1e-12)
        coef, mixed = rng.normal(size=(1, n + 2)), np.empty((1, 50))
        combine(rows, 0, coef, 0, 2, maps, mixed, 0)
        np.testing.assert_allclose(mixed[0], rows[0] + coef[0, 2:] @ maps, rtol=1e-12, atol=1e-12)
