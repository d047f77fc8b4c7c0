import pytest
import torch
from torch import nn

from semisparse.recipe import CRITERIA, GRANULARITIES, Columns, LayerRecipe, Recipe

pytest.importorskip("yaml")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8))
        self.tail = nn.Conv2d(8, 8, 3, groups=2)
        self.wide = nn.Conv2d(8, 8, 5)
        self.fc = nn.Linear(8, 4)


def columns(ratio, **more):
    return {"columns": {"ratio": ratio, **more}}


def test_fields_are_inherited_default_then_expressions_then_name():
    recipe = Recipe(
        {
            "_default": columns(0.2, granularity="run8"),
            "re:body.*": columns(0.3),
            "re:.*0": {"columns": {"begin": 0.25}},
            "body.0": columns(0.4),
        }
    )
    assert recipe.layer("tail").columns == Columns(0.2, "run8")
    assert recipe.layer("body.2").columns == Columns(0.3, "run8")
    assert recipe.layer("body.0").columns == Columns(0.4, "run8", begin=0.25)


def test_default_skips_1x1_stem_depthwise_and_linear():
    assert list(Recipe({"_default": columns(0.2)}).resolve(Net())) == ["body.0", "tail", "wide"]


def test_a_layer_named_by_its_own_name_is_not_skipped():
    recipe = Recipe({"_default": columns(0.2), "body.1": columns(0.1), "stem": columns(0.3)})
    resolved = recipe.resolve(Net())
    assert list(resolved) == ["stem", "body.0", "body.1", "tail", "wide"]
    assert resolved["body.1"].columns.ratio == 0.1


def test_skip_takes_names_and_expressions_and_can_be_empty():
    assert list(Recipe({"_default": columns(0.2), "_skip": []}).resolve(Net())) == [
        "stem",
        "body.0",
        "body.1",
        "body.2",
        "tail",
        "wide",
    ]
    assert list(
        Recipe({"_default": columns(0.2), "_skip": ["tail", "wide", r"re:body\.[12]"]}).resolve(Net())
    ) == [
        "stem",
        "body.0",
    ]


def test_ratio_zero_and_null_columns_switch_a_layer_off():
    recipe = Recipe(
        {
            "_default": columns(0.2),
            "body.0": columns(0.0),
            "tail": {"columns": None},
            "wide": {"columns": None},
        }
    )
    assert recipe.resolve(Net()) == {}


def test_yaml_round_trip():
    recipe = Recipe(
        {
            "_default": columns(0.2, granularity="run16", criterion="coherent_random", round_to=96, every=5),
            "re:body.*": {"columns": None},
            "fc": LayerRecipe(scheme="block", ratio=0.5, block=(4, 4)),
            "_skip": ["stem"],
        }
    )
    again = Recipe.from_yaml(recipe.to_yaml())
    assert again == recipe
    assert again.layer("fc").block == (4, 4)
    assert again != Recipe({"_default": columns(0.2)})


def test_save_and_load(tmp_path):
    recipe = Recipe({"_default": columns(0.25)})
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_kinds_of_layers_have_entries_and_are_then_not_skipped():
    recipe = Recipe(
        {
            "_default": {"scheme": "block_punched", "ratio": 0.5, "method": "magnitude"},
            "_1x1": {"scheme": "block", "ratio": 0.25},
            "_3x3": {"ratio": 0.75},
            "_depthwise": {"scheme": "unstructured"},
            "re:tail": {"ratio": 0.4},
        }
    )
    assert recipe.skip == ("stem", "linear") and Recipe.from_yaml(recipe.to_yaml()) == recipe
    resolved = recipe.resolve(Net())
    found = {name: (layer.scheme, layer.ratio, layer.method) for name, layer in resolved.items()}
    assert found == {
        "body.0": ("block_punched", 0.75, "magnitude"),
        "body.1": ("block", 0.25, "magnitude"),
        "body.2": ("unstructured", 0.75, "magnitude"),
        "tail": ("block_punched", 0.4, "magnitude"),
        "wide": ("block_punched", 0.5, "magnitude"),
    }
    assert resolved["tail"].block == (4, 4) and resolved["wide"].block == (8, 4)  # cut to the layer's size


def test_a_default_of_patterns_becomes_blocks_where_kernels_are_not_3x3():
    recipe = Recipe({"_default": {"scheme": "pattern", "connectivity": 0.5, "entries": 3}, "_skip": []})
    resolved = recipe.resolve(Net())
    assert [layer.scheme for layer in resolved.values()] == [
        "pattern", "pattern", "block", "pattern", "pattern", "block_punched", "block",
    ]  # fmt: skip
    for name in ("body.1", "wide", "fc"):
        assert resolved[name].ratio == pytest.approx(5 / 6) and resolved[name].connectivity == 0


def test_kernels_alone_and_layers_switched_off():
    recipe = Recipe(
        {
            "_default": {"connectivity": 0.5},
            "body.0": {"connectivity": 0.0},
            "wide": {"scheme": "unstructured", "ratio": 0.0},
        }
    )
    resolved = recipe.resolve(Net())
    assert list(resolved) == ["tail", "wide"] and all(x.scheme == "dense" for x in resolved.values())
    free = Recipe({"fc": {"scheme": "block", "method": "reweighted"}}).resolve(Net())
    assert list(free) == ["fc"] and free["fc"].ratio == 0


@pytest.mark.parametrize("name", Recipe.shipped())
def test_shipped_recipes_fit_networks_of_torchvision(name):
    torchvision = pytest.importorskip("semisparse._torchvision").torchvision

    models = torchvision.models
    recipe = Recipe.load(name)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    mixed = name == "mixed"
    for make, spatial, pointwise, linear in (
        (models.resnet18, 16, 3, 1),
        (models.mobilenet_v2, 0, 34, 1),
        (models.vgg11_bn, 7, 0, 3),
    ):
        with torch.device("meta"):  # no weights are needed
            model = make()
        resolved = recipe.resolve(model)
        kernels = {layer: getattr(model.get_submodule(layer), "kernel_size", None) for layer in resolved}
        assert list(kernels.values()).count((3, 3)) == spatial
        assert list(kernels.values()).count((1, 1)) == (pointwise if mixed else 0)
        assert list(kernels.values()).count(None) == (linear if mixed else 0)
        for layer, settings in resolved.items():
            assert settings.sparse_weights == (not name.startswith("columns"))
            assert (settings.columns.ratio > 0) == ("columns" in name)
            if mixed:
                assert settings.scheme == ("pattern" if kernels[layer] == (3, 3) else "block")


@pytest.mark.parametrize("name, ratio", [("columns10", 0.1), ("columns20.yaml", 0.2), ("columns30", 0.3)])
def test_shipped_recipes_load_by_name(name, ratio):
    assert Recipe.load(name).layer("any").columns.ratio == ratio
    assert name.removesuffix(".yaml") in Recipe.shipped()


@pytest.mark.parametrize(
    "entries, message",
    [
        (
            {"_default": columns(1.0)},
            r"_default: columns.ratio is 1.0, expected a fraction removed in \[0, 1\)",
        ),
        ({"conv": columns(-0.1)}, "conv: columns.ratio is -0.1"),
        ({"conv": columns("half")}, "conv: columns.ratio is 'half', expected a number"),
        ({"conv": columns(float("nan"))}, "columns.ratio is nan"),
        ({"conv": columns(0.2, criterion="magic")}, "criterion is 'magic', expected one of " + CRITERIA[0]),
        (
            {"conv": columns(0.2, granularity="run5")},
            "granularity is 'run5', expected one of " + GRANULARITIES[0],
        ),
        ({"conv": columns(0.2, begin=0.6, end=0.5)}, "columns.begin 0.6 and columns.end 0.5"),
        ({"conv": columns(0.2, scope="model")}, "columns.scope is 'model', expected one of layer, global"),
        ({"conv": columns(0.2, scope="global", criterion="random")}, "compares layers by saliency"),
        ({"conv": columns(0.2, initial=0.3)}, "columns.initial 0.3 is above columns.ratio 0.2"),
        ({"conv": columns(0.2, round_to=0)}, "columns.round_to is 0"),
        ({"conv": columns(0.2, every=1.5)}, "columns.every is 1.5"),
        ({"conv": columns(0.2, sparsity=1)}, "columns.sparsity is unknown; choose among ratio"),
        ({"_default": {"ratio": 0.5}}, "_default: ratio is 0.5, but no entry names a scheme"),
        ({"conv": {"scheme": "lottery"}}, "scheme is 'lottery'"),
        ({"conv": {"connectivity": 1.0}}, "conv: connectivity is 1.0, .* something must stay"),
        ({"conv": {"axis": "rows"}}, "axis is 'rows', expected one of filters"),
        ({"conv": {"scope": "model"}}, "scope is 'model', expected one of layer, global"),
        ({"conv": {"strength": 0}}, "strength is 0, expected a number above 0"),
        ({"conv": {"rho": -1}}, "rho is -1, expected a number above 0"),
        ({"conv": {"every": 0}}, "every is 0"),
        ({"conv": {"begin": 0.7, "end": 0.5}}, "begin 0.7 and end 0.5"),
        ({"conv": {"scheme": "pattern", "ratio": 0.5}}, "ratio is for .* not for 'pattern'; set entries"),
        ({"conv": {"scheme": "unstructured", "ratio": 0.5, "block": [4, 4]}}, "block is for the schemes"),
        ({"conv": {"method": "magnitude", "rho": 0.01}}, "rho is for the methods admm, not for 'magnitude'"),
        ({"conv": {"scheme": "pattern", "entries": 9}}, "entries is 9, but a pattern keeps 1 to 8"),
        ({"conv": {"scheme": "pattern", "entries": 2}, "_default": {"patterns": 9}}, "there are only 8 of 2"),
        (
            {"conv": {"scheme": "pattern", "method": "reweighted"}},
            "'reweighted' penalises boxes .* 'pattern'",
        ),
        (
            {"conv": {"scheme": "structured", "ratio": 0.5, "axis": "both", "scope": "global"}},
            "scope 'global' compares boxes of one kind",
        ),
        ({"_1x1": {"scheme": "block"}, "_skip": ["1x1"]}, "_1x1 has settings, but _skip excludes 1x1"),
        ({"conv": {"block": 8}}, "block is 8"),
        ({"conv": {"block": [8, 0]}}, r"block is \[8, 0\]"),
        ({"conv": 0.3}, "conv: the settings are 0.3"),
        ({"conv": {"columns": 0.3}}, "conv: columns is 0.3"),
        ({"re:(": columns(0.2)}, "not a valid regular expression"),
        ({"_defaults": columns(0.2)}, "'_defaults' is not part of a recipe"),
        ({"_skip": "stem"}, "_skip is 'stem', expected a list"),
        ([1], "maps layer names to settings, but this is a list"),
    ],
)
def test_refused_when_read(entries, message):
    with pytest.raises(ValueError, match=message):
        Recipe(entries)


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"layer9": columns(0.2)}, "names the layer 'layer9'.*its layers are stem, body.0"),
        ({"re:layer9.*": columns(0.2)}, "'re:layer9.*' matches no layer"),
        ({"_skip": ["layer9"]}, "names the layer 'layer9'"),
        ({"body.1": {"scheme": "pattern"}}, "body.1: scheme 'pattern' is for 3x3 .* has 1x1; use 'block'"),
        ({"_1x1": {"scheme": "pattern"}}, "body.1: scheme 'pattern' is for 3x3 .* has 1x1; use 'block'"),
        ({"fc": {"scheme": "pattern"}}, "fc: scheme 'pattern' is for 3x3 .* is linear; use 'block'"),
        ({"wide": {"scheme": "pattern"}}, "wide: scheme 'pattern' .* has 5x5; use 'block_punched'"),
        ({"fc": {"connectivity": 0.5}}, "fc: connectivity removes kernels .* use scheme 'block'"),
        (
            {"tail": {"scheme": "block_punched", "ratio": 0.5, "block": [8, 4]}},
            r"tail: block \[8, 4\] is larger than the layer, .* 4 filters x 4 channels in each of its 2",
        ),
        (
            {"_default": {"scheme": "block_punched", "ratio": 0.5, "block": [8, 16]}},
            r"body.0: block \[8, 16\]",
        ),
        ({"tail": {"scheme": "pattern", "group": 8}}, "tail: group 8 is larger than the layer, .* 4 filters"),
        ({"tail": {"scheme": "unstructured"}}, "tail: scheme 'unstructured' needs a ratio"),
        ({"tail": {"scheme": "block"}}, "tail: scheme 'block' is for linear and 1x1 layers"),
        ({"fc": columns(0.2)}, "fc: columns are output pixels"),
    ],
)
def test_refused_for_this_model(entries, message):
    with pytest.raises(ValueError, match=message):
        Recipe(entries).resolve(Net())


def test_override_changes_defaults_only():
    recipe = Recipe({"_default": columns(0.2), "tail": columns(0.1)})
    changed = recipe.override("columns.criterion=random", "columns.ratio=0.4", "connectivity=0.5")
    assert changed.layer("body.0") == LayerRecipe(connectivity=0.5, columns=Columns(0.4, criterion="random"))
    assert changed.layer("tail").columns.ratio == 0.1
    assert recipe.layer("body.0").columns.ratio == 0.2
    assert Recipe({}).override("columns.ratio=0.3").layer("x").columns.ratio == 0.3
    for wrong in ("columns.ratio", "rows.ratio=1", "=3"):
        with pytest.raises(ValueError, match="is not of the form FIELD=VALUE"):
            recipe.override(wrong)
    with pytest.raises(ValueError, match="columns.ratio is 7"):
        recipe.override("columns.ratio=7")


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="neither a file nor one of the shipped recipes columns10"):
        Recipe.load("columns99")
    (tmp_path / "broken.yaml").write_text("_default: {columns: [")
    with pytest.raises(ValueError, match="broken.yaml is not valid YAML"):
        Recipe.load(tmp_path / "broken.yaml")
    (tmp_path / "wrong.yaml").write_text("conv: {columns: {ratio: 2}}")
    with pytest.raises(ValueError, match="wrong.yaml: conv: columns.ratio is 2"):
        Recipe.load(tmp_path / "wrong.yaml")
    (tmp_path / "code.yaml").write_text("conv: !!python/object/apply:os.getcwd []")
    with pytest.raises(ValueError, match="not valid YAML"):
        Recipe.load(tmp_path / "code.yaml")
