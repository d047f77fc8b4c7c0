import json

import pytest

pytest.importorskip("matplotlib")

from PIL import Image  # noqa: E402

from semisparse.eval import convergence  # noqa: E402


def history(connectivity):
    rows = []
    for step in range(10, 110, 10):
        row = {"step": step, "rho": 10 ** (step / 50 - 2), "residual": 0.6 - step / 200, "changed": 1 / step}
        if connectivity:
            row |= {"connectivity_residual": 0.8 - step / 200, "connectivity_changed": 0.5 / step}
        rows.append(row)
    return [
        {"epoch": 1, "methods": rows[:5]},
        {"epoch": 2, "methods": [*rows[5:], {"step": 100, "something": 1.0}]},
        {"epoch": 3, "methods": []},
        {"epoch": 4},
    ]


@pytest.mark.parametrize("connectivity", [False, True])
def test_the_picture_shows_what_was_logged(tmp_path, connectivity):
    found = history(connectivity)
    assert [row["step"] for row in convergence.updates(found)] == list(range(10, 110, 10))
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    convergence.main([str(tmp_path)])
    with Image.open(tmp_path / "convergence.png") as picture:
        colours = {c for _, c in picture.convert("RGB").getcolors(1 << 20)}
    assert (0xD1, 0x49, 0x5B) in colours and ((0x1F, 0x6F, 0x8B) in colours) == connectivity


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="log.jsonl.* does not exist; give a directory"):
        convergence.main([str(tmp_path)])
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(ValueError, match="the log has no ADMM updates"):
        convergence.main([str(tmp_path)])
    assert not (tmp_path / "convergence.png").exists()
