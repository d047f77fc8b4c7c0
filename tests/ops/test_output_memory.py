"""Results of operators lie in memory that is used again: never in that of a tensor that still lives."""

from concurrent.futures import ThreadPoolExecutor

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import semisparse.ops  # noqa: F401


def pooled(value: float, channels: int, side: int) -> torch.Tensor:
    """A result of `channels` planes of side x side pixels that all have one value."""
    image = torch.full((1, 1, side, side), value).expand(1, channels, side, side)
    return torch.ops.semisparse.max_pool2d(image, [1, 1])


def spans(tensors: list[torch.Tensor]) -> list[tuple[int, int]]:
    return sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors)


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 300), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=30)
def test_living_results_share_no_memory(draws: list[tuple[int, int, bool]]):
    living: dict[float, torch.Tensor] = {}
    for number, (channels, side, dies) in enumerate(draws):
        living[float(number)] = pooled(float(number), channels, side)  # up to 23 MB, 690 MB in all
        if dies:
            living.pop(next(iter(living)))
    for value, tensor in living.items():
        assert (tensor == value).all()
    ends = spans(list(living.values()))
    assert all(end <= start for (_, end), (start, _) in zip(ends, ends[1:], strict=False))


def test_memory_is_used_again():
    first = pooled(1.0, 16, 256)
    address = first.data_ptr()
    del first
    assert pooled(2.0, 16, 256).data_ptr() == address


def test_more_results_than_the_region_holds():
    results = [pooled(float(i), 16, 256) for i in range(80)]  # 4 MiB each
    assert all((result == i).all() for i, result in enumerate(results))


def test_results_can_be_resized():
    result = pooled(3.0, 4, 128)
    result.resize_(8, 4, 128, 128)
    assert result.nbytes == 8 * 4 * 128 * 128 * 4
    assert (result[0] == 3.0).all()


def test_several_threads():
    def work(seed: int) -> bool:
        results = [pooled(float(seed + i), 8, 64 + 8 * (i % 7)) for i in range(40)]
        return all((result == seed + i).all() for i, result in enumerate(results))

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(work, range(0, 4000, 100)))
