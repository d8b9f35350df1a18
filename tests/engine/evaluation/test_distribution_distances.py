"""FID and KID against closed forms, SciPy, and simulation."""

import itertools

import numpy as np
import pytest
import scipy.linalg

from engine.errors import ConfigurationError
from engine.evaluation.frechet_distance import FeatureMoments, frechet_distance
from engine.evaluation.kernel_distance import FeatureSample, kernel_distance


def moments(rows, batch=7):
    found = FeatureMoments(rows.shape[1])
    for start in range(0, len(rows), batch):
        found.add(rows[start : start + batch])
    return found


def with_moments(mean, covariance, count=400, seed=0):
    """Rows that have exactly this sample mean and unbiased sample covariance."""
    rows = np.random.default_rng(seed).normal(size=(count, len(mean)))
    rows -= rows.mean(0)
    whiten = scipy.linalg.inv(scipy.linalg.sqrtm(np.cov(rows.T)))
    return rows @ whiten @ scipy.linalg.sqrtm(covariance) + mean


def random_covariance(dimensions, seed, rank=None):
    factor = np.random.default_rng(seed).normal(size=(dimensions, rank or 2 * dimensions))
    return factor @ factor.T / factor.shape[1]


def test_running_moments_equal_numpy_for_any_batches():
    rows = np.random.default_rng(0).normal(1e4, 1e-2, (53, 6)).astype(np.float32)
    exact = rows.astype(np.float64)
    for batch in (1, 7, 53):
        found = moments(rows, batch)
        assert found.count == 53
        np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-14)
        np.testing.assert_allclose(found.covariance(), np.cov(exact.T), rtol=1e-7, atol=1e-14)
    found.add(np.zeros((0, 6)))
    assert found.count == 53


def test_fid_equals_its_closed_form_for_gaussians_that_commute():
    variances, mean = np.array([1.0, 4.0, 0.25]), np.array([1.0, -2.0, 0.5])
    a = with_moments(np.zeros(3), np.diag(variances))
    b = with_moments(mean, np.diag(9 * variances), seed=1)
    # Tr(S + 9 S - 2 * 3 S) = 4 Tr(S)
    expected = mean @ mean + 4 * variances.sum()
    np.testing.assert_allclose(frechet_distance(moments(a), moments(b)), expected, rtol=1e-10)
    np.testing.assert_allclose(frechet_distance(moments(b), moments(a)), expected, rtol=1e-10)


def test_fid_equals_scipy_for_covariances_that_do_not_commute():
    first, second = random_covariance(12, 1), random_covariance(12, 2)
    mean = np.linspace(-1, 1, 12)
    a, b = with_moments(mean, first), with_moments(2 * mean, second, seed=3)
    root = scipy.linalg.sqrtm(first @ second).real
    expected = mean @ mean + np.trace(first + second - 2 * root)
    np.testing.assert_allclose(frechet_distance(moments(a), moments(b)), expected, rtol=1e-9)


def test_fid_of_gaussian_samples_approaches_the_closed_form():
    rng = np.random.default_rng(4)
    first, second, mean = random_covariance(4, 5), random_covariance(4, 6), np.full(4, 0.5)
    a = rng.multivariate_normal(np.zeros(4), first, 100_000)
    b = rng.multivariate_normal(mean, second, 100_000)
    expected = mean @ mean + np.trace(first + second - 2 * scipy.linalg.sqrtm(first @ second).real)
    np.testing.assert_allclose(frechet_distance(moments(a, 50_000), moments(b, 50_000)), expected, rtol=0.02)


def test_fid_is_stable_with_fewer_images_than_features():
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(10, 64))
    same = frechet_distance(moments(rows), moments(rows))
    np.testing.assert_allclose(same, 0, atol=1e-9)
    # A shift and a factor of two, in a subspace: |shift|^2 + Tr(S) (1 + 4 - 2 * 2)
    shifted = 2 * (rows - rows.mean(0)) + rows.mean(0) + 3.0
    expected = 64 * 9 + np.trace(np.cov(rows.T))
    np.testing.assert_allclose(frechet_distance(moments(rows), moments(shifted)), expected, rtol=1e-10)


def kid_by_definition(x, y):
    """The unbiased estimate, pair by pair."""

    def kernel(p, q):
        return (p @ q / len(p) + 1) ** 3

    def within(rows):
        return np.mean([kernel(p, q) for p, q in itertools.permutations(rows, 2)])

    return within(x) + within(y) - 2 * np.mean([kernel(p, q) for p in x for q in y])


@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 9), (11, 2)])
def test_kid_equals_its_definition_for_unequal_counts(n, m):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 3)), rng.normal(0.5, 2, (m, 3))
    found = kernel_distance(x, y)
    np.testing.assert_allclose(found.value, kid_by_definition(x, y), rtol=1e-10)
    np.testing.assert_allclose(kernel_distance(y, x).value, found.value, rtol=1e-10)
    assert found.blocks == 1 and found.standard_error is None


def true_mmd2(mean):
    """MMD^2 of N(0, I) and N(mean, I) in D dimensions: E(x . y / D + 1)^3 has a closed form.

    With s = x . y: E s = m, E s^2 = D + |p|^2 + |q|^2 + m^2 and
    E s^3 = m^3 + 3 m (D + 2 + |p|^2 + |q|^2), where p, q are the means and m = p . q.
    """
    d = len(mean)

    def expected(p, q):
        m, squares = p @ q, p @ p + q @ q
        second, third = d + squares + m**2, m**3 + 3 * m * (d + 2 + squares)
        return third / d**3 + 3 * second / d**2 + 3 * m / d + 1

    zero = np.zeros(d)
    return expected(zero, zero) + expected(mean, mean) - 2 * expected(zero, mean)


@pytest.mark.parametrize(("n", "m", "block"), [(12, 12, 100), (6, 20, 100), (9, 40, 10)])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_kid_is_unbiased(n, m, block, shift):
    rng = np.random.default_rng(100 * n + m)
    mean = np.full(4, shift)
    estimates = np.array(
        [
            kernel_distance(rng.normal(size=(n, 4)), rng.normal(mean, 1, (m, 4)), block=block, seed=k).value
            for k in range(1500)
        ]
    )
    error = estimates.std(ddof=1) / np.sqrt(len(estimates))
    assert abs(estimates.mean() - true_mmd2(mean)) < 3.5 * error
    if not shift:
        assert (estimates < 0).mean() > 0.3  # a biased estimate has no values below 0


def test_kid_in_blocks_leaves_out_no_image_and_tells_its_error():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(103, 4)), rng.normal(0.4, 1, (41, 4))
    found = kernel_distance(x, y, block=20)
    assert found.blocks == 6  # ceil(103 / 20): 17 or 18 of x, 6 or 7 of y in each
    assert 0 < found.standard_error < 1
    again = kernel_distance(x, y, block=20)
    assert found == again
    without = [kernel_distance(np.delete(x, k, 0), y, block=20).value for k in (0, 50, 102)]
    assert found.value not in without
    # As many blocks as the smaller set has pairs of rows.
    assert kernel_distance(x, y[:5], block=20).blocks == 2


def test_sorted_rows_do_not_change_the_blocks():
    rng = np.random.default_rng(9)
    x, y = np.sort(rng.normal(size=(400, 4)), axis=0), np.sort(rng.normal(size=(400, 4)), axis=0)
    found = kernel_distance(x, y[::-1], block=100)
    in_order = [
        kernel_distance(p, q).value for p, q in zip(np.split(x, 4), np.split(y[::-1], 4), strict=True)
    ]
    assert np.mean(in_order) > 5  # what blocks of neighbouring rows would give
    assert abs(found.value) < 4 * found.standard_error


def test_a_feature_sample_keeps_all_rows_up_to_its_limit():
    rows = np.arange(30, dtype=np.float64).reshape(10, 3)
    sample = FeatureSample(limit=10)
    for start in (0, 4, 8):
        sample.add(rows[start : start + 4])
    sample.add(np.zeros((0, 3)))
    assert sample.rows().dtype == np.float32
    np.testing.assert_array_equal(sample.rows(), rows)


def test_a_feature_sample_is_uniform_beyond_its_limit():
    sample = FeatureSample(limit=500)
    for start in range(0, 10_000, 100):
        sample.add(np.arange(start, start + 100)[:, None])
    kept = sample.rows()[:, 0]
    assert sample.count == 10_000 and len(np.unique(kept)) == 500
    # 50 of each tenth, with a standard deviation of at most 6.7.
    counts = np.histogram(kept, 10, (0, 10_000))[0]
    assert counts.min() > 20 and counts.max() < 80


def test_sets_that_cannot_be_compared_are_refused():
    rows = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(ConfigurationError, match="FID: needs at least 2 images on each side, not 1"):
        frechet_distance(moments(rows), moments(rows[:1]))
    with pytest.raises(ConfigurationError, match="KID: needs at least 2 images on each side, not 1"):
        kernel_distance(rows, rows[:1])
    with pytest.raises(ConfigurationError, match="without images"):
        FeatureSample().rows()
    with pytest.raises(ValueError, match=r"must be \[B, 3\], not \(5, 2\)"):
        kernel_distance(rows, rows[:, :2])
    with pytest.raises(ValueError, match="3 and 2 features"):
        frechet_distance(moments(rows), moments(rows[:, :2]))
    rows[3, 1] = np.nan
    for refuse in (FeatureMoments(3).add, FeatureSample().add):
        with pytest.raises(ValueError, match="row 3 is not finite"):
            refuse(rows)
