import pytest

from semisparse.recipe import Columns
from semisparse.train.columns.schedule import scheduled_ratio


def test_polynomial_between_begin_and_end():
    columns = Columns(ratio=0.4, initial=0.1, begin=0.2, end=0.6)
    assert scheduled_ratio(columns, 0.0) == 0.0
    assert scheduled_ratio(columns, 0.199) == 0.0
    assert scheduled_ratio(columns, 0.2) == pytest.approx(0.1)
    assert scheduled_ratio(columns, 0.4) == pytest.approx(0.4 - 0.3 * 0.25)  # halfway: (1 - 1/2)^2 is left
    assert scheduled_ratio(columns, 0.6) == 0.4
    assert scheduled_ratio(columns, 1.0) == 0.4
    rising = [scheduled_ratio(columns, 0.2 + i / 100) for i in range(41)]
    assert rising == sorted(rising)


def test_begin_equal_to_end_is_one_shot():
    columns = Columns(ratio=0.3, begin=0.5, end=0.5)
    assert scheduled_ratio(columns, 0.49) == 0.0
    assert scheduled_ratio(columns, 0.5) == 0.3
