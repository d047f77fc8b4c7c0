import torch

from semisparse.train.columns.coherence import propagate


def test_each_pixel_is_the_mean_of_what_it_covers():
    scores = torch.arange(24.0).view(4, 6)
    expected = scores.view(2, 2, 3, 2).mean((1, 3))
    assert torch.allclose(propagate(scores, (2, 3)), expected)
    assert propagate(scores, (4, 6)) is scores


def test_any_size_also_where_it_does_not_divide():
    scores = torch.rand(37, 53)
    for size in ((7, 9), (5, 53), (37, 1), (19, 27)):
        pooled = propagate(scores, size)
        assert pooled.shape == size
        assert scores.min() <= pooled.min() and pooled.max() <= scores.max()
