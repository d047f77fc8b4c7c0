import os
import pickle

import pytest
import torch
from nets import SmallNet

from semisparse._files import replace_atomically
from semisparse.masking import attach_column_mask, column_mask, masked_modules
from semisparse.train.checkpoint import FORMAT, load_checkpoint, load_weights, save_checkpoint


def test_round_trip_with_masks(tmp_path):
    model = SmallNet()
    attach_column_mask(model.a[0], torch.rand(12, 14) > 0.5)
    save_checkpoint(tmp_path / "c.pt", {"model": model.state_dict(), "epoch": 3})
    state = load_checkpoint(tmp_path / "c.pt")
    assert state["epoch"] == 3 and state["format"] == FORMAT
    masked, dense = SmallNet(), SmallNet()
    attach_column_mask(dense.b[0], torch.ones(6, 7, dtype=torch.bool))
    load_weights(masked, state["model"], source="c.pt")
    load_weights(dense, state["model"], source="c.pt", masks=False)
    assert torch.equal(column_mask(masked.a[0]), column_mask(model.a[0]))
    assert masked_modules(dense) == {}
    assert all(
        torch.equal(v, dense.state_dict()[k]) for k, v in model.state_dict().items() if "mask" not in k
    )


def test_a_bare_state_dict_is_accepted(tmp_path):
    torch.save({f"module.{k}": v for k, v in SmallNet().state_dict().items()}, tmp_path / "w.pt")
    load_weights(SmallNet(), load_checkpoint(tmp_path / "w.pt")["model"], source="w.pt")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"model": SmallNet().state_dict(), "epoch": 1})
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        save_checkpoint(path, {"model": {}, "bad": lambda: None})
    assert load_checkpoint(path)["epoch"] == 1
    assert os.listdir(tmp_path) == ["c.pt"]
    with pytest.raises(KeyboardInterrupt), replace_atomically(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert load_checkpoint(path)["epoch"] == 1 and os.listdir(tmp_path) == ["c.pt"]


def test_another_model_is_refused_before_anything_changes():
    model = SmallNet()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"x.pt is a checkpoint of another model .*2 shapes differ, e.g. fc.weight"
    ):
        load_weights(model, SmallNet(classes=5).state_dict(), source="x.pt")
    with pytest.raises(
        ValueError, match=r"another model \(.*entries missing, e.g. a.0.bias; 1 entries too many, e.g. z"
    ):
        load_weights(model, {"z": torch.zeros(1)}, source="x.pt")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("content", ["missing", "text", "truncated", "code", "list", "version", "no model"])
def test_bad_files(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pt"
    if content == "text":
        path.write_text("hello")
    elif content == "truncated":
        save_checkpoint(path, {"model": SmallNet().state_dict()})
        path.write_bytes(path.read_bytes()[:500])
    elif content == "code":
        torch.save({"model": Evil()}, path)
    elif content == "list":
        torch.save([1, 2], path)
    elif content == "version":
        torch.save({"format": "semisparse.train/99", "model": {}}, path)
    elif content == "no model":
        torch.save({"epoch": 3}, path)
    messages = {
        "missing": "does not exist",
        "list": "holds a list",
        "version": "has format 'semisparse.train/99'",
        "no model": "no 'model' state dict",
    }
    with pytest.raises(ValueError, match=messages.get(content, "not a checkpoint that can be read safely")):
        load_checkpoint(path)
    assert not (tmp_path / "evil").exists()
