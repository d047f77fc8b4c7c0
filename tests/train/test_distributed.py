"""Two real processes with the gloo backend."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from nets import SmallNet, quadrants
from torch import nn

from semisparse.recipe import GRANULARITIES, Recipe
from semisparse.train import HeldOut, Sparsifier, distributed
from semisparse.train.columns import automatic

RECIPE = {
    "_default": {"columns": {"ratio": 0.3, "begin": 0.0, "end": 0.8, "every": 2}},
    "a.0": {"scheme": "pattern", "group": 4, "connectivity": 0.5, "end": 0.8, "every": 2},
    "b.0": {"scheme": "unstructured", "ratio": 0.7, "method": "magnitude", "end": 0.8, "every": 2}
    | {"columns": {"criterion": "coherent_random", "granularity": "auto"}},
    "stem.0": {"columns": {"criterion": "held_out"}},
    "point": {"scheme": "block", "block": [4, 4], "ratio": 0.5, "method": "reweighted", "end": 0.8}
    | {"columns": None},
    "fc": {"scheme": "unstructured", "ratio": 0.5, "method": "reweighted", "end": 0.8},
}
STEPS = 10


def worker(rank, port, folder):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port
    )
    torch.set_num_threads(1)
    distributed.initialize("cpu")
    # As different as machines are: rank 0's times must count.
    automatic._time = lambda *_: (
        {automatic.DENSE: 2.0} | dict.fromkeys(GRANULARITIES, 1.5) | {"run4" if rank == 0 else "pixel": 1.0}
    )
    try:
        torch.manual_seed(0)
        model = nn.parallel.DistributedDataParallel(SmallNet())
        # Different seeds, as a careless script has them: rank 0's must count.
        sparsifier = Sparsifier(
            model,
            Recipe(RECIPE),
            torch.zeros(1, 3, 12, 14),
            total_steps=STEPS,
            seed=rank,
            held_out=HeldOut([quadrants(8, seed=20 + rank), quadrants(8, seed=30 + rank)]),
        )
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        x, y = quadrants(16 * STEPS, seed=10 + rank)
        history = []
        for step in range(STEPS):
            batch = slice(16 * step, 16 * (step + 1))
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            (loss + sparsifier.penalty()).backward()
            optimizer.step()
            sparsifier.step(loss)
            weights = {f"{name} weight": mask for name, mask in sparsifier.weight_masks().items()}
            history.append({**sparsifier.masks(), **weights})
        sparsifier.finalize()
        result = {
            "history": history,
            "state": sparsifier.state_dict(),
            "log": sparsifier.pop_log(),
            "model": {name: p.detach() for name, p in model.module.named_parameters()},
        }
        torch.save(result, os.path.join(folder, f"{rank}.pt"))
    finally:
        torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def test_ranks_hold_the_same_masks_learned_from_all_of_their_data(tmp_path):
    mp.spawn(worker, (free_port(), str(tmp_path)), nprocs=2)
    zero, one = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for a, b in zip(zero["history"], one["history"], strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert int((~zero["history"][-1]["a.0"]).sum()) == round(0.3 * 12 * 14)
    assert all(torch.equal(zero["model"][name], value) for name, value in one["model"].items())
    assert zero["model"]["a.0.weight"].count_nonzero() == 8 * 8 * 4 / 2
    assert zero["model"]["b.0.weight"].count_nonzero() == round(0.3 * 12 * 8 * 9)
    assert zero["log"] == one["log"]
    assert [row["step"] for row in zero["log"] if "residual" in row] == [2, 4, 6]
    assert [row["step"] for row in zero["log"] if "faded" in row] == [4]
    left = sum(int(zero["model"][f"{name}.weight"].count_nonzero()) for name in ("point", "fc"))
    assert left < 0.7 * (12 * 12 + 4 * 12)
    races = [row for row in zero["log"] if row.get("criterion") == "held_out"]
    assert [row["final"] for row in races[:2]] == [False, True]
    best = [state["state"]["criteria"]["held_out"]["best"]["stem.0"] for state in (zero, one)]
    assert torch.equal(*best)
    assert zero["state"]["choices"] == one["state"]["choices"] and list(zero["state"]["choices"]) == ["b.0"]
    assert zero["state"]["recipe"] == one["state"]["recipe"] != zero["state"]["asked"]
    averages = [state["state"]["criteria"]["saliency"]["average"]["a.0"] for state in (zero, one)]
    assert torch.equal(*averages) and averages[0].sum() > 0
    assert (
        zero["state"]["criteria"]["coherent_random"]["best_loss"]
        == (one["state"]["criteria"]["coherent_random"]["best_loss"])
    )


def unequal(rank, port):
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    distributed.initialize("cpu")
    try:
        with pytest.raises(ValueError, match=f"{rank + 1} held-out batches on this rank, of 3 on 2"):
            HeldOut([quadrants(2)] * (rank + 1))
    finally:
        torch.distributed.destroy_process_group()


def test_ranks_must_hold_out_as_many_batches():
    mp.spawn(unequal, (free_port(),), nprocs=2)


def test_a_single_process_needs_no_group():
    value = torch.ones(3)
    assert distributed.rank() == 0 and distributed.world_size() == 1
    assert distributed.mean_(distributed.sum_(distributed.broadcast_(value))) is value
    distributed.barrier()
    assert distributed.initialize("cpu") == torch.device("cpu") and not distributed.active()
