"""`lotlip visualize`: the page of one model and of several."""

import re

import pytest

import lotlip
from modeling_lotlip.data.scenes import make_scene


TEXT = "A red boat. The ground is sand. A green tree"


@pytest.fixture
def run(monkeypatch):
    """Runs the command in this process, on the CPU, and returns its exit status."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return lambda *arguments: lotlip.main(["visualize", *map(str, arguments)])


def test_several_models(model_dir, tmp_path, run):
    make_scene(seed=1, index=0).draw().save(tmp_path / "scene.png")
    (tmp_path / "other").symlink_to(model_dir)
    output_dir = tmp_path / "out"
    text = "<script>alert(1)</script> & a red boat. The ground is sand"
    models = ["--model_name_or_path", model_dir, tmp_path / "other", "--output_dir", output_dir]
    assert run(*models, "--image", tmp_path / "scene.png", "--text", text, "--max_length", 8) == 0
    page = (output_dir / "visualize.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "beyond the limit" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    # the picture, the whole text and the sub-caption that is read
    assert page.count("<h2>") == 2 and page.count("<img") == 2 * 3
    assert "sub-captions: 1." in page


def test_a_row_of_the_data_or_a_text_alone(model_dir, tmp_path, run):
    models = ["--model", model_dir, "--output_dir"]
    assert run(*models, tmp_path / "out", "--row", 2) == 0
    assert "<img" in (tmp_path / "out" / "visualize.html").read_text()
    assert run(*models, tmp_path / "text only", "--text", TEXT) == 0
    assert "<img" not in (tmp_path / "text only" / "visualize.html").read_text()


def test_what_is_not_there(model_dir, tmp_path, run, capsys):
    (tmp_path / "file").touch()
    models = ["--model", model_dir, "--output_dir", tmp_path / "out"]
    elsewhere = [*models[:3], tmp_path / "file" / "out"]
    for wrong, message in (
        ([*models, "--row", 300], "--row 300"),
        ([*models, "--text", " . "], "empty"),
        ([*models, "--text", "a", "--image", "scene.png"], "scene.png cannot be read"),
        ([*elsewhere, "--text", "a"], "Not a directory"),
    ):
        assert run(*wrong) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit):
        run(*models, "--image", "scene.png")
    assert "--text" in capsys.readouterr().err
