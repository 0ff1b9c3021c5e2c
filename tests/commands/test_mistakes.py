"""Wrong uses of every command: each is one line that names what is wrong, and leaves nothing behind."""

import shlex
import sys

import pytest

import lotlip
from modeling_lotlip.commands import COMMANDS
from modeling_lotlip.data.scenes import make_scene
from tests.helpers.commands import read_error


# Commands in the folder of [`workspace`], and a part of the error of each
MISTAKES = [
    ("search", "PHOTOS"),
    ("search nowhere boat", "nowhere is no folder"),
    ("search empty boat --model model", "There is no image in"),
    ("search photos --model model", "add a TEXT"),
    ("search photos '' --model model", "a TEXT is blank"),
    ("search photos boat --output_file out.txt", "--output_file out.txt must end in .json, .csv or .md"),
    ("search photos boat --model model --device cuda:7", "`--device cuda:7` cannot be used"),
    ("app nowhere", "nowhere is no folder"),
    ("app --embeddings_dir empty --model nowhere", "empty holds no embeddings: make them with `lotlip embed"),
    ("app photos --embeddings_dir e", "name one collection, not both PHOTOS and --embeddings_dir."),
    ("app photos --share", "--share shows the images to all who find the page: name users in an --auth_file"),
    ("app photos --host ::", "--host :: shows the images to all who find the page"),
    ("app photos --without_password --auth_file f", "--without_password excludes --auth_file"),
    ("serve --model nowhere", "`--model_name_or_path nowhere` cannot be used"),
    ("embed --model model", "--output_dir"),
    ("evaluate --benchmark dci --data_dir empty", "are of 0 images and 0 texts, but 7805"),
    ("evaluate --model model --output_file file.txt/out.json", "--output_file file.txt/out.json cannot be written"),
    ("classify --model model --templates photo", "--templates 'photo' has no {}"),
    ("classify --class_names a b --class_names_file file.txt", "--class_names excludes --class_names_file"),
    ("evaluate --benchmark dci --data_dir empty --dataset_name imagefolder", "no --dataset_name"),
    ("embed --output_dir out --only texts --image_column a", "--image_column has no effect with --only texts"),
    ("statistics --max_eval_samples 2 --tokenizer_path empty", "`--tokenizer_path empty` cannot be used"),
    ("statistics --text_only", "--text_only has no effect without --benchmark"),
    ("align --output_dir out --vision_model model", "--text_model"),
    (
        "align --output_dir out --text_model nowhere --vision_model model --max_train_samples 8",
        "--text_model_name_or_path nowhere` cannot be",
    ),
    ("interpolate model --output_dir out", "END"),
    ("interpolate model model --output_dir out --alphas 2", "--alphas must be at most 1, got 2"),
    ("interpolate model nowhere --output_dir out --max_eval_samples 8", "`--end nowhere` cannot be used"),
    ("interpolate model model --output_dir model", "`--output_dir model` holds files already: name a new folder"),
    ("train", "--output_dir"),
    ("train --output_dir out --model_name_or_path nowhere --max_train_samples 8", "nowhere"),
    (
        "train --output_dir out --text_model_name_or_path model --trust_remote_code",
        "--trust_remote_code has no effect without --model_name_or_path",
    ),
    ("train --output_dir out --resume_from_checkpoint nowhere", "is no folder of a checkpoint"),
    ("recaption --output_dir out", "--captioner"),
    ("recaption --output_dir out --captioner a --dataset_name imagefolder --data_dir empty", "empty"),
    ("recaption --output_dir out --captioner llava llava", "`--captioner` is given twice"),
    ("recaption --output_dir out --captioner a --endpoint localhost:8000/v1", "must begin with http:// or https://."),
    ("filter --captions nowhere.parquet --output_dir out", "`--captions nowhere.parquet` names no file"),
    ("pack --output_dir out --image_format bmp", "invalid choice 'bmp' for argument '--image_format'"),
    ("visualize --model model --output_dir out --row 256", "--row 256 is beyond the split"),
    ("visualize --model model --output_dir out --row 99999999", "--row 99999999 is beyond the split"),
    ("visualize --model model --output_dir out --image broken.png --text boat", "--image broken.png cannot be read"),
    ("visualize --model model --output_dir out --text ' . '", "empty"),
    ("visualize --model model --output_dir out --text boat --row 3", "--row excludes --text: leave out one of them"),
    ("visualize --model model --output_dir out --text boat --eval_split train", "--eval_split excludes --text"),
    ("visualize --model model --output_dir out --text boat --image_column a", "--image_column has no effect with --t"),
    ("visualize --model model --output_dir out --text boat --caption_column a", "--caption_column has no effect with"),
    (
        "visualize --model model --output_dir out --text boat --caption_files a",
        "--caption_files has no effect with --te",
    ),
    ("visualize --model model --output_dir out --key_column a", "--key_column has no effect without"),
    ("statistics --key_column a", "--key_column has no effect without --caption_files: add --caption_files"),
    ("visualize --model model --output_dir file.txt/out --text boat", "--output_dir file.txt/out cannot be used:"),
    (
        "recaption --output_dir out --captioner lava --max_train_samples 8",
        "`--captioner lava` cannot be loaded. It must be one of instr",
    ),
    ("embed --output_dir out --dtype int8 --backend torch", "--dtype int8 is not for --backend torch: leave out one"),
    ("embed --output_dir out --dataset_name photos --eval_split train", "Name one, or embed `--only images`"),
    ("embed --model model --output_dir file.txt", "file.txt is a file. Name a folder."),
    ("search photos boat --index_dir file.txt", "--index_dir file.txt cannot be used"),
    ("export --model no_model --output_dir out", "`--model_name_or_path no_model` cannot be used"),
    ("export --model model --output_dir no_model", "`--output_dir no_model` holds another model"),
    ("convert file.txt out --config_path no_model/config.json", "config.json` have no `text_cfg` and no `vision_cfg`"),
    ("convert nowhere.pt out", "There is no file `nowhere.pt`"),
    ("convert model out", "give `--to_original`"),
    (
        "align --output_dir out --text_model a --vision_model b --keep text --projection_dim 64",
        "--projection_dim excludes --keep",
    ),
    ("convert empty out", "`empty` has no `model.pt`"),
    ("push empty me/model", "`empty` has no `config.json`"),
    ("sensitivity --model model --num_tokens 1", "--num_tokens must be at least 3, got 1"),
    # before the first model is loaded, which would be an error of its own
    ("evaluate --model no_model nowhere", "`--model_name_or_path nowhere` cannot be used"),
    ("classify --model no_model nowhere", "`--model_name_or_path nowhere` cannot be used"),
    ("sensitivity --model no_model nowhere", "`--model_name_or_path nowhere` cannot be used"),
    (
        "visualize --model no_model nowhere --output_dir out --text boat --image photos/1.png",
        "`--model_name_or_path nowhere` cannot be used",
    ),
    (
        "recaption --output_dir out --captioner no_model nowhere --dataset_name photos",
        "`--captioner nowhere` cannot be loaded",
    ),
    (
        "filter --captions file.txt --output_dir out --dataset_name photos",
        "--dataset_name has no effect without --dual_encoder",
    ),
    ("filter --captions file.txt --output_dir out --dtype float16", "--dtype has no effect without --dual_encoder"),
    ("statistics --image_column nope", "`--image_column nope` is not a column of the dataset"),
    ("statistics --benchmark iiw --data_dir empty --split_seed 3", "--split_seed has no effect on a --benchmark"),
    ("filter --captions file.txt --output_dir out --dual_encoder nowhere", "`--dual_encoder nowhere`"),
    (
        "statistics --eval_split train --dataset_name columns.json",
        "`--image_column image` holds lists of texts: write one path for each image, and JSON as JSON lines",
    ),
    ("statistics --caption_column a --long_captions_column b", "Neither `--caption_column a` nor"),
]


@pytest.fixture
def workspace(tmp_path, model_dir, monkeypatch):
    (tmp_path / "photos").mkdir()
    make_scene(5, 1).draw().save(tmp_path / "photos" / "1.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("a text")
    (tmp_path / "columns.json").write_text('{"image": ["1.png", "2.png"], "caption": ["a boat", "a car"]}')
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "no_model").mkdir()
    (tmp_path / "no_model" / "config.json").write_text("{}")
    (tmp_path / "no_model" / "model.safetensors").touch()
    (tmp_path / "model").symlink_to(model_dir)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "package", "module", "extra"),
    [
        ("app photos", "gradio", "search.page", "app"),
        ("serve --model nowhere", "uvicorn", "serving.server", "serve"),
        ("export --model nowhere --output_dir out", "onnxruntime", "encoder.onnx", "onnx"),
    ],
)
def test_a_missing_extra_is_an_error_before_it_starts(line, package, module, extra, workspace, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)  # counts as not installed
    monkeypatch.delitem(sys.modules, f"modeling_lotlip.{module}", raising=False)
    assert f'pip install "lotlip[{extra}]"' in read_error(capsys, *line.split())


def test_there_are_mistakes_of_every_command():
    assert {line.split()[0] for line, _ in MISTAKES} == set(COMMANDS)


@pytest.mark.parametrize(("line", "told"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line_that_names_it(line, told, workspace, capsys):
    before = sorted(workspace.rglob("*"))
    name, *arguments = shlex.split(line)
    try:
        status = lotlip.main([name, *arguments])
    except SystemExit as exit:  # of the parser
        status = exit.code
    output = capsys.readouterr()
    assert status == 2
    assert output.out == ""
    error = output.err.splitlines()[-1]
    if f"lotlip {name} --help" in output.err:  # the parser's box
        error = " ".join(output.err.split())
    else:
        assert error.startswith(f"lotlip {name}: error: ")
    assert told in error, error
    assert "Traceback" not in output.err
    assert sorted(workspace.rglob("*")) == before
