"""Small networks and data for the tests of training."""

from __future__ import annotations

import io

import torch
from torch import nn

from semisparse.train import HeldOut, Sparsifier


class SmallNet(nn.Module):
    """Three spatial convolutions with BatchNorm, one of them strided and biased, and a 1x1."""

    def __init__(self, classes: int = 4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.a = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.point = nn.Conv2d(12, 12, 1)
        self.fc = nn.Linear(12, classes)

    def forward(self, x):
        return self.fc(self.point(self.b(self.a(self.stem(x)))).mean((2, 3)))


def quadrants(
    count: int, seed: int = 0, size: tuple[int, int] = (12, 14)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise pictures; the class is the left or right half in which channel 0 or 1 is bright. Borders say
    nothing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, *size, generator=generator) * 0.3
    y = torch.randint(0, 4, (count,), generator=generator)
    half = size[1] // 2
    for image, label in zip(x, y.tolist(), strict=True):
        left = (label % 2) * (half - 2) + 2
        image[label // 2, 3:-3, left : left + half - 2] += 1.5
    return x, y


class Training:
    """A short training run with a Sparsifier; `run(n)` takes n steps and records what came out of each.

    Attributes:
        done: steps so far.
        losses: the loss, without penalty.
        masks: column masks by layer.
        weights: by layer, of those with a scheme.
        log: what the methods reported.
    """

    def __init__(self, recipe, steps=20, *, seed=0, total_steps="steps", model=SmallNet):
        torch.manual_seed(seed)
        self.recipe, self.steps, self.make = recipe, steps, model
        self.model = model()
        self.x, self.y = quadrants(32 * min(steps, 40))
        total = steps if total_steps == "steps" else total_steps
        held_out = HeldOut([quadrants(16, seed=100 + i) for i in range(4)])
        self.sparsifier = Sparsifier(
            self.model, recipe, self.x[:1], total_steps=total, seed=seed, held_out=held_out
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05, momentum=0.9)
        self.done, self.losses, self.masks, self.weights, self.log = 0, [], [], [], []

    def run(self, steps: int) -> Training:
        for _ in range(steps):
            first = 32 * self.done % len(self.x)
            x, y = self.x[first : first + 32], self.y[first : first + 32]
            loss = nn.functional.cross_entropy(self.model(x), y)
            self.optimizer.zero_grad()
            (loss + self.sparsifier.penalty()).backward()
            self.optimizer.step()
            self.sparsifier.step(loss)
            self.done += 1
            self.losses.append(loss.item())
            self.masks.append(self.sparsifier.masks())
            self.log += self.sparsifier.pop_log()
            sparse = self.sparsifier.weights.layers
            self.weights.append({name: self.layer(name).weight.detach().clone() for name in sparse})
        return self

    def layer(self, name: str) -> nn.Module:
        return self.model.get_submodule(name)

    def continued(self) -> Training:
        """A new run, as after a restart, that goes on from the state of this one."""
        buffer = io.BytesIO()
        torch.save([x.state_dict() for x in (self.sparsifier, self.model, self.optimizer)], buffer)
        buffer.seek(0)
        other = Training(self.recipe, self.steps, model=self.make)
        states = torch.load(buffer, weights_only=True)
        for part, state in zip((other.sparsifier, other.model, other.optimizer), states, strict=True):
            part.load_state_dict(state)
        other.done = self.done
        return other


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two dictionaries hold the same tensors under the same names."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
