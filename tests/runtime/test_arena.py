"""Planned memory: values that are needed at the same time never share bytes."""

from hypothesis import given
from hypothesis import strategies as st

from semisparse.runtime.arena import ALIGNMENT, Buffer, allocate, place

buffers = st.builds(
    lambda nbytes, first, length: Buffer(nbytes, first, first + length),
    st.integers(0, 1000),
    st.integers(0, 30),
    st.integers(0, 10),
)


@given(st.lists(buffers, max_size=40))
def test_buffers_that_meet_in_time_do_not_meet_in_memory(items):
    offsets, total = place(items)
    for i, (a, at) in enumerate(zip(items, offsets, strict=True)):
        assert at % ALIGNMENT == 0 and at + a.nbytes <= total
        for b, other in list(zip(items, offsets, strict=True))[:i]:
            if a.nbytes and b.nbytes and a.first <= b.last and b.first <= a.last:
                assert at + a.nbytes <= other or other + b.nbytes <= at
    together = max((sum(b.nbytes for b in items if b.first <= t <= b.last) for t in range(41)), default=0)
    assert total >= together


def test_a_chain_takes_two_buffers():
    assert place([Buffer(640, step, step + 1) for step in range(50)])[1] == 2 * 640


def test_memory_is_aligned():
    assert allocate(1000).ctypes.data % ALIGNMENT == 0 and allocate(1000).nbytes == 1000
