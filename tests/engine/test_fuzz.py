"""A short part of the fuzz run (`python -m tests.helpers.fuzz`): whole runs of random configurations."""

import pytest

from tests.helpers.fuzz import course
from tests.helpers.fuzz.configurations import draw

WORKED = (216, 230, 249)
REFUSED = (2, 3, 5)


@pytest.mark.parametrize("seed", WORKED)
def test_a_random_configuration_works(tmp_path, seed):
    outcome = course.run(seed, tmp_path)
    assert outcome.result == course.WORKED, (outcome, (tmp_path / "log.txt").read_text())


@pytest.mark.parametrize("seed", REFUSED)
def test_a_random_configuration_is_refused_in_one_line(tmp_path, seed):
    outcome = course.run(seed, tmp_path)
    assert outcome.result == course.REFUSED, (outcome, (tmp_path / "log.txt").read_text())
    assert ";" in outcome.detail


def test_a_seed_always_draws_the_same_configuration():
    assert [draw(seed) for seed in range(50)] == [draw(seed) for seed in range(50)]
    assert len({draw(seed) for seed in range(50)}) == 50
