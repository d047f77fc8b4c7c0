"""The packed format: exact, small, and safe to read from files that nobody can trust."""

import os
import random
import struct
from pathlib import Path

import pytest
import torch
from cases import SPARSITIES, examples, make_weight
from hypothesis import given, settings
from hypothesis import strategies as st

HEADER = 64


def bits(weight):
    return weight.contiguous().view(torch.int32)


@settings(max_examples=examples(200))
@given(
    sparsity=st.sampled_from(SPARSITIES),
    groups=st.sampled_from([1, 1, 2, 3]),
    channels=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 5), (2, 3), (7, 7)]),
    seed=st.integers(0, 2**31 - 1),
)
@pytest.mark.arm
def test_unpack_is_the_exact_inverse(ops, sparsity, groups, channels, kernel, seed):
    g = torch.Generator().manual_seed(seed)
    weight = make_weight((groups * channels[0], channels[1], *kernel), sparsity, g)
    packed = ops.pack_weight(weight, groups)
    assert packed.dtype == torch.uint8 and packed.dim() == 1
    assert torch.equal(bits(ops.unpack_weight(packed)), bits(weight))
    assert torch.equal(bits(ops.unpack_weight.shaped(packed, list(weight.shape), groups)), bits(weight))
    assert torch.equal(ops.pack_weight(weight, groups), packed), "packing must be deterministic"


def test_special_values_survive(ops):
    weight = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, -1e-45, 3.4e38, 1.0])
    weight = weight.reshape(1, 1, 3, 3).repeat(4, 3, 1, 1)
    bits(weight)[1, 1, 1, 1] = 0x7FC12345  # a NaN with a payload
    assert torch.equal(bits(ops.unpack_weight(ops.pack_weight(weight))), bits(weight))


def test_strided_weights(ops):
    weight = torch.randn(6, 5, 3, 3).contiguous(memory_format=torch.channels_last)
    assert torch.equal(ops.pack_weight(weight), ops.pack_weight(weight.contiguous()))
    assert torch.equal(ops.unpack_weight(ops.pack_weight(weight)), weight)


def test_strided_packed_tensors(ops):
    weight = torch.randn(6, 5, 3, 3)
    packed = ops.pack_weight(weight)
    spread = torch.zeros(2 * packed.numel(), dtype=torch.uint8)
    spread[::2] = packed
    odd = torch.zeros(packed.numel() + 3, dtype=torch.uint8)[3:].copy_(packed)  # weights lie at odd addresses
    x = torch.randn(1, 5, 4, 4)
    expected = ops.conv2d.packed(x, packed, list(weight.shape))
    for other in (spread[::2], odd, packed[:]):
        assert torch.equal(ops.unpack_weight(other), weight)
        assert torch.equal(ops.conv2d.packed(x, other, list(weight.shape)), expected)


def csr_bytes(weight):
    """int32 CSR of the (OC, IC*KH*KW) matrix: values, column indices, row starts."""
    return 8 * int(weight.count_nonzero()) + 4 * (weight.shape[0] + 1)


@pytest.mark.parametrize("channels", [64, 128, 256, 512])
@pytest.mark.parametrize("connectivity", [0.0, 0.722])
def test_patterns_take_at_most_0_7_of_csr(ops, channels, connectivity, record_property):
    """PatDNN's bar, at 8 patterns of 4 entries, alone and with 3.6x fewer kernels."""
    g = torch.Generator().manual_seed(0)
    others = torch.tensor(
        [[0, 1, 3], [1, 2, 5], [3, 6, 7], [5, 7, 8], [0, 1, 2], [6, 7, 8], [0, 3, 6], [2, 5, 8]]
    )
    library = torch.zeros(8, 9)
    library.scatter_(1, others, 1)
    library[:, 4] = 1  # each keeps the centre and three others
    weight = torch.randn(channels, channels, 9, generator=g)
    weight *= library[torch.randint(8, (channels, channels), generator=g)]
    weight *= torch.rand(channels, channels, 1, generator=g) >= connectivity
    weight += 0.0  # products with zero left -0.0, which is stored
    weight = weight.reshape(channels, channels, 3, 3)
    ratio = ops.pack_weight(weight).numel() / csr_bytes(weight)
    record_property("bytes_over_csr", ratio)
    print(f"{channels} channels, connectivity {connectivity}: {ratio:.3f} of CSR")
    assert ratio <= 0.7


def test_dense_weights_take_no_index(ops):
    weight = torch.randn(32, 16, 3, 3)
    assert ops.pack_weight(weight).numel() == HEADER + 4 * weight.numel()


def samples(ops):
    """Small packed tensors of both layouts and their weights."""
    g = torch.Generator().manual_seed(3)
    for groups, sparsity in [
        (1, "dense"),
        (1, "pattern"),
        (2, "unstructured"),
        (1, "connectivity"),
        (3, "zero"),
    ]:
        weight = make_weight((6, 4, 3, 3), sparsity, g)
        yield weight, groups, ops.pack_weight(weight, groups)


def assert_refused(ops, packed, weight, groups):
    x = torch.ones(1, weight.shape[1] * groups, 3, 3)
    with pytest.raises((ValueError, RuntimeError)):
        ops.unpack_weight(packed)
    with pytest.raises((ValueError, RuntimeError)):
        ops.conv2d.packed(x, packed, list(weight.shape), groups=groups)


def test_every_flipped_bit_is_refused(ops):
    for weight, groups, packed in samples(ops):
        for position in range(packed.numel()):
            damaged = packed.clone()
            damaged[position] ^= 1 << (position % 8)
            assert_refused(ops, damaged, weight, groups)


def test_thousands_of_random_changes_are_refused(ops):
    rng = random.Random(0)
    for weight, groups, packed in samples(ops):
        for _ in range(examples(600)):
            damaged = packed.clone()
            for _ in range(rng.randint(1, 6)):
                position = rng.randrange(packed.numel())
                damaged[position] = (int(damaged[position]) + rng.randint(1, 255)) % 256
            if not torch.equal(damaged, packed):
                assert_refused(ops, damaged, weight, groups)


def test_truncated_extended_and_foreign_bytes_are_refused(ops):
    rng = random.Random(1)
    for weight, groups, packed in samples(ops):
        for size in {*range(0, packed.numel(), 3), packed.numel() - 1}:
            assert_refused(ops, packed[:size].clone(), weight, groups)
            assert_refused(ops, packed[:size], weight, groups)
        for extra in (1, 4, 8, 64):
            assert_refused(ops, torch.cat([packed, torch.zeros(extra, dtype=torch.uint8)]), weight, groups)
        assert_refused(ops, torch.cat([packed, packed]), weight, groups)
        for _ in range(examples(200)):
            foreign = torch.frombuffer(bytearray(rng.randbytes(rng.randint(1, 400))), dtype=torch.uint8)
            assert_refused(ops, foreign, weight, groups)
            foreign = torch.cat([packed[:8], foreign])
            assert_refused(ops, foreign, weight, groups)


def crc64(data, crc=0xFFFFFFFFFFFFFFFF):
    """CRC-64 of the .xz format, bit by bit: written from its definition, not from the library."""
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xC96C5795D7870F42 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFFFFFFFFFF


def with_valid_checksum(data):
    return data[:56] + struct.pack("<Q", crc64(data[:56] + data[HEADER:])) + data[HEADER:]


def tensor(data):
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


@pytest.mark.arm
def test_forged_checksums_do_not_make_bytes_trusted(ops):
    """A right checksum over wrong numbers: refused, or a valid packed weight of its own; never a crash."""
    rng = random.Random(2)
    accepted = refused = 0
    for weight, groups, packed in samples(ops):
        data = bytes(packed.tolist())
        assert with_valid_checksum(data) == data
        for _ in range(examples(150)):
            forged = bytearray(data)
            for _ in range(rng.randint(1, 3)):
                position = rng.choice([rng.randrange(HEADER - 8), rng.randrange(len(data))])
                forged[position] = rng.choice([0, 1, 255, rng.randrange(256)])
            forged = tensor(with_valid_checksum(bytes(forged)))
            try:
                # Not unpack_weight: a forged shape may be a valid one of 2^30 zeros.
                other = ops.unpack_weight.shaped(forged, list(weight.shape), groups)
                ops.conv2d.packed(
                    torch.ones(1, weight.shape[1] * groups, 3, 3), forged, list(weight.shape), groups=groups
                )
                accepted += 1
                assert torch.equal(bits(ops.unpack_weight(ops.pack_weight(other, groups))), bits(other))
            except (ValueError, RuntimeError) as error:
                refused += 1
                assert len(str(error)) > 20
    assert accepted and refused, "both outcomes must have been seen for this test to mean something"


@pytest.mark.arm
def test_newer_version_says_so(ops):
    weight, groups, packed = next(samples(ops))
    data = bytearray(packed.tolist())
    data[4:6] = struct.pack("<H", 7)
    newer = tensor(with_valid_checksum(bytes(data)))
    with pytest.raises((ValueError, RuntimeError), match="version 7.*version 1.*update semisparse"):
        ops.unpack_weight(newer)
    with pytest.raises((ValueError, RuntimeError), match="version 7"):
        ops.conv2d.packed(torch.ones(1, 4, 3, 3), newer, list(weight.shape))


def test_another_geometry_is_refused(ops):
    weight, groups, packed = next(samples(ops))
    for shape, other_groups in [
        ((6, 4, 3, 3), 2),
        ((4, 6, 3, 3), 1),
        ((6, 4, 9, 1), 1),
        ((6, 8, 3, 3), 1),
        ((3, 8, 3, 3), 1),
    ]:
        x = torch.ones(1, shape[1] * other_groups, 9, 9)
        for _ in range(2):  # before and after the weight was prepared for its real geometry
            with pytest.raises((ValueError, RuntimeError), match="packed|weight"):
                ops.conv2d.packed(x, packed, list(shape), groups=other_groups)
            ops.conv2d.packed(torch.ones(1, 4, 9, 9), packed, list(weight.shape))
        with pytest.raises((ValueError, RuntimeError), match="weight_shape"):
            ops.unpack_weight.shaped(packed, list(shape), other_groups)


class TestPreparedWeights:
    """What is prepared from packed bytes is used again for these bytes, and for no others."""

    def conv(self, ops, packed, weight):
        return ops.conv2d.packed(torch.ones(1, weight.shape[1], 3, 3), packed, list(weight.shape))

    def test_damaged_clone_of_a_used_tensor_is_refused(self, ops):
        for weight, groups, packed in samples(ops):
            if groups > 1:
                continue
            self.conv(ops, packed, weight)
            for position in range(0, packed.numel(), 5):
                damaged = packed.clone()
                damaged[position] ^= 0x10
                with pytest.raises((ValueError, RuntimeError)):
                    self.conv(ops, damaged, weight)
            self.conv(ops, packed, weight)

    def test_change_in_place_is_noticed(self, ops):
        weight = torch.randn(4, 4, 3, 3)
        packed = ops.pack_weight(weight)
        before = self.conv(ops, packed, weight)
        packed[-1] ^= 1
        with pytest.raises((ValueError, RuntimeError), match="damaged"):
            self.conv(ops, packed, weight)
        packed[-1] ^= 1
        assert torch.equal(self.conv(ops, packed, weight), before)
        packed.copy_(ops.pack_weight(2 * weight))
        assert torch.equal(self.conv(ops, packed, weight), 2 * before)

    def test_memory_that_is_used_again_holds_new_weights(self, ops):
        """The allocator hands the same address out again: nothing of the freed tensor may be served."""
        x = torch.ones(1, 4, 3, 3)
        for value in range(300):
            packed = ops.pack_weight(torch.full((4, 4, 3, 3), float(value + 1)))
            assert ops.conv2d.packed(x, packed, [4, 4, 3, 3]).unique().tolist() == [36.0 * (value + 1)]
            del packed

    def test_memory_is_freed_with_the_packed_tensors(self, ops):
        statm = Path("/proc/self/statm")
        if not statm.exists():
            pytest.skip("needs Linux's /proc")

        def resident_bytes():
            return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        weight, x = torch.randn(256, 512, 3, 3), torch.ones(1, 512, 3, 3)
        for step in range(40):  # 9 MB each, packed and prepared: 380 MB if they stayed
            ops.conv2d.packed(x, ops.pack_weight(weight), list(weight.shape))
            if step == 5:
                before = resident_bytes()
        assert resident_bytes() - before < 100e6

    def test_two_weights_in_one_storage(self, ops):
        first, second = (
            ops.pack_weight(torch.ones(4, 4, 3, 3)),
            ops.pack_weight(torch.full((4, 4, 3, 3), 2.0)),
        )
        both = torch.cat([first, second])
        for _ in range(2):
            for view, value in [(both[: first.numel()], 36.0), (both[first.numel() :], 72.0)]:
                y = ops.conv2d.packed(torch.ones(1, 4, 3, 3), view, [4, 4, 3, 3])
                assert y.unique().tolist() == [value]

    def test_inference_tensors(self, ops):
        with torch.inference_mode():
            packed = ops.pack_weight(torch.ones(4, 4, 3, 3))
            for _ in range(2):
                assert self.conv(ops, packed, torch.ones(4, 4, 3, 3)).unique().tolist() == [36.0]
