"""What all operator tests share."""

import pytest
import torch
from hypothesis import HealthCheck, settings

import semisparse.ops  # noqa: F401  registers torch.ops.semisparse

settings.register_profile(
    "ops", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("ops")


@pytest.fixture
def poison():
    """New tensors hold NaN instead of whatever lies in memory: an output element that is not written
    shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def threads():
    """Set the number of torch's threads; put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def ops():
    return torch.ops.semisparse
