"""One network for several image sizes: dispatch, shared tensors, one file."""

import copy
import json
import zlib

import pytest
import safetensors.torch
import torch
from torch import nn

import semisparse as ss
from semisparse import masking

SIZES = ((6, 8), (12, 16), (6, 10))


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)).eval()
    masking.attach_column_mask(model[0], torch.rand(SIZES[0]) > 0.3)
    masking.set_other_sizes(model, "resample")
    return model


def convert(model, size):
    example = torch.zeros(1, 2, *size)
    fitted = copy.deepcopy(model)
    masking.fit_masks(fitted, example)
    return ss.convert(fitted, example, free_size=False)


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def sized(model):
    return ss.SizedModel([convert(model, size) for size in SIZES], {"names": ["a", "b"], "stride": 2})


def test_each_size_runs_its_own_network(model, sized):
    assert sized.sizes == SIZES
    for size in SIZES:
        x = torch.randn(3, 2, *size)
        torch.testing.assert_close(sized(x), model(x), rtol=1e-5, atol=1e-6)


def test_weights_are_held_once(sized):
    storages = {b.data_ptr() for b in sized.buffers()}
    weights, masks = 4, len(SIZES)  # two packed weights, two biases
    assert len(storages) == weights + masks
    names = {name for one in sized.models for name in one.graph.tensors}
    assert len(names) == weights + masks


def test_round_trip_and_equal_bytes(sized, tmp_path):
    path = tmp_path / "model.safetensors"
    ss.save(sized, path)
    loaded = ss.load(path)
    assert loaded.info == {"names": ["a", "b"], "stride": 2} and loaded.sizes == SIZES
    for size in SIZES:
        x = torch.randn(1, 2, *size)
        assert torch.equal(loaded(x), sized(x))
    ss.save(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert loaded.layers == sized.models[0].layers
    assert loaded.column_masks().keys() == sized.models[0].column_masks().keys()


def test_unknown_sizes_and_bad_inputs_are_refused(model, sized):
    with pytest.raises(ValueError, match="6 x 8, 12 x 16, 6 x 10"):
        sized(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match="N, C, H, W"):
        sized(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="no model"):
        ss.SizedModel([])
    with pytest.raises(ValueError, match="two models are for the size 6 x 8"):
        ss.SizedModel([convert(model, SIZES[0])] * 2)
    free = ss.convert(nn.Conv2d(2, 2, 3, padding=1), torch.zeros(1, 2, 6, 8))
    with pytest.raises(ValueError, match="free_size=False"):
        ss.SizedModel([free])
    with pytest.raises(ValueError, match="info"):
        ss.SizedModel([convert(model, SIZES[0])], {"x": {1: 2}})


def rewrite(path, change):
    """The file with `change` applied to the document, its checksum made right again."""
    with safetensors.safe_open(path, "pt") as file:
        document = json.loads(file.metadata()["graphs"].partition("\n")[2])
    change(document)
    text = json.dumps(document)
    entry = f"{zlib.crc32(text.encode()):08x}\n{text}"
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {"graphs": entry})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), "version 2"),
        (lambda d: d.update(format="other"), "format"),
        (lambda d: d.update(graphs=[]), "missing or too long"),
        (lambda d: d.update(info=[1]), "missing or too long"),
        (lambda d: d["graphs"].pop(), "no graph declares"),
        (lambda d: d["graphs"].append(d["graphs"][0]), "two models"),
        (lambda d: d["graphs"][1]["nodes"][0].update(op="os.system"), "vocabulary"),
    ],
)
def test_damaged_files_are_refused(sized, tmp_path, change, message):
    path = tmp_path / "model.safetensors"
    ss.save(sized, path)
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        ss.load(path)


def test_statistics_are_those_of_the_main_size(sized):
    assert ss.statistics(sized) == ss.statistics(sized.models[0])
