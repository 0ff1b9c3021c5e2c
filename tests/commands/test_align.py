"""`lotlip align` from a dataset to a folder that other commands read."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer

import lotlip
from modeling_lotlip import DualEncoder
from modeling_lotlip.align.towers import load_text_model, load_vision_model
from modeling_lotlip.data.scenes import load_scenes, save_scenes
from modeling_lotlip.utils.output_folder import OutputFolder
from tests.align.conftest import text_folder, vision_folder  # noqa: F401, fixtures
from tests.helpers.commands import read_error, to_argv


@pytest.fixture
def arguments(text_folder, vision_folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    options = {
        "output_dir": tmp_path / "aligned",
        "text_model": text_folder,
        "vision_model": vision_folder,
        "max_train_samples": 20,
        "max_eval_samples": 10,
        "num_train_epochs": 2,
        "features_dir": tmp_path / "features",
    }
    return [str(part) for name, value in options.items() for part in (f"--{name}", value)]


def test_the_model_is_evaluated_and_saved_with_its_card(arguments, tmp_path, capsys):
    assert lotlip.main(["align", *arguments]) == 0
    folder = tmp_path / "aligned"
    results = json.loads((folder / "eval_results.json").read_text())
    assert results["long_num_images"] == 10
    assert DualEncoder.from_pretrained(folder).dim == 256
    card = ModelCard.load(folder / "README.md")
    assert "| `num_train_epochs` | 2 |" in card.text
    assert "| `captions` | short long sub |" in card.text
    assert "| `num_captions` | 40 |" in card.text
    assert str(tmp_path) not in card.content
    assert "| long | 10 | 10" in capsys.readouterr().out


def test_the_results_are_those_of_evaluate(arguments, tmp_path):
    assert lotlip.main(["align", *arguments]) == 0
    results = json.loads((tmp_path / "aligned" / "eval_results.json").read_text())
    output_file = tmp_path / "evaluated.json"
    options = {"model": tmp_path / "aligned", "max_eval_samples": 10, "output_file": output_file}
    assert lotlip.main(to_argv("evaluate", **options)) == 0
    evaluated = json.loads(output_file.read_text())
    recalls = {name: value for name, value in results.items() if "recall" in name}
    assert recalls
    assert recalls == pytest.approx({name: evaluated[name] for name in recalls})


def test_two_runs_do_not_write_to_one_folder(arguments, tmp_path, capsys):
    with OutputFolder(tmp_path / "aligned", content="an aligned model"):
        assert "is written by process" in read_error(capsys, "align", *arguments)


def test_ctrl_c_leaves_no_folder_and_the_features(arguments, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("modeling_lotlip.align.run.train_heads", stop)
    assert lotlip.main(["align", *arguments]) == 130
    assert not (tmp_path / "aligned").exists()
    assert list((tmp_path / "features").rglob("*.parquet"))


def test_few_rows_and_rows_that_are_trained_on_are_warned_of(arguments, tmp_path, caplog):
    assert lotlip.main(["align", *arguments, "--eval_split", "train[:7]"]) == 0
    assert "20 images are few" in caplog.text
    assert "7 rows of `--eval_split train[:7]` are trained on" in caplog.text
    card = ModelCard.load(tmp_path / "aligned" / "README.md")
    assert "| `evaluated_rows_that_were_trained_on` | 7 |" in card.text


def test_a_folder_without_a_split_to_evaluate_is_evaluated_on_what_it_is_trained_on(arguments, tmp_path, caplog):
    save_scenes(tmp_path / "photos", 12)
    assert lotlip.main(["align", *arguments, "--dataset_name", str(tmp_path / "photos")]) == 0
    assert "has no split 'test': its only one, 'train', is taken" in caplog.text
    card = ModelCard.load(tmp_path / "aligned" / "README.md")
    assert "| `evaluated_rows_that_were_trained_on` | 10 |" in card.text


READER = """
import sys
sys.modules["modeling_lotlip"] = None
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
folder, images, *texts = sys.argv[1:]
model = SentenceTransformer(folder, device="cpu")
pictures = [Image.fromarray(pixels) for pixels in np.load(images)]
image_embeds, text_embeds = model.encode(pictures), model.encode(texts)
similarity = model.similarity(text_embeds, image_embeds)
np.savez(images + ".npz", images=image_embeds, texts=text_embeds, similarity=similarity)
"""


@pytest.mark.parametrize(
    "options", [[], ["--head", "mlp"], ["--keep", "text"], ["--keep", "image"], ["--text_prompt", "a photo of "]]
)
def test_the_folder_is_read_where_the_package_is_not(arguments, tmp_path, options):
    """With the embeddings of `DualEncoder`, and the similarities."""
    assert lotlip.main(["align", *arguments, *options]) == 0
    folder = tmp_path / "aligned"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 70, 90, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    texts = ["a red boat", "A red boat. The green boat is yellow.", "a"]
    command = [sys.executable, "-c", READER, str(folder), str(tmp_path / "images.npy"), *texts]
    subprocess.run(command, check=True, cwd=tmp_path)
    encoder = DualEncoder.from_pretrained(folder, device="cpu")
    with np.load(tmp_path / "images.npy.npz") as found:
        np.testing.assert_allclose(found["images"], encoder.encode_image(list(pixels)), rtol=0, atol=1e-6)
        np.testing.assert_allclose(found["texts"], encoder.encode_text(texts), rtol=0, atol=1e-6)
        expected = encoder.encode_text(texts) @ encoder.encode_image(list(pixels)).T
        np.testing.assert_allclose(found["similarity"], expected, rtol=0, atol=2e-6)
    assert not list(folder.rglob("*.py"))


@pytest.mark.parametrize("keep", ["text", "image"])
def test_the_side_that_is_kept_is_the_encoder_to_the_bit(arguments, tmp_path, text_folder, vision_folder, keep):  # noqa: F811
    assert lotlip.main(["align", *arguments, "--keep", keep]) == 0
    model = SentenceTransformer(str(tmp_path / "aligned"), device="cpu")
    if keep == "text":
        items = ["a red boat", "a green boat is yellow"]
        alone = load_text_model(text_folder, device="cpu")
    else:
        items = [load_scenes(1)[0]["image"]]
        alone = load_vision_model(vision_folder, device="cpu")
    assert np.array_equal(model.encode(items), alone.encode(items, normalize_embeddings=True))


def test_a_recall_that_finds_every_image_is_warned_of(arguments, tmp_path, caplog):
    assert lotlip.main(["align", *arguments]) == 0
    assert "There are 10 images with long captions, and so each is among the first 10" in caplog.text
    results = json.loads((tmp_path / "aligned" / "eval_results.json").read_text())
    assert results["long_t2i_recall@10"] == 100


def test_evaluation_data_without_captions_is_an_error_before_anything_is_computed(arguments, tmp_path, capsys):
    for split in ("train", "test"):
        save_scenes(tmp_path / "photos" / split, 12)
    file = tmp_path / "photos" / "test" / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    bare = [row | {"caption": "", "long_captions": [""]} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in bare))
    error = read_error(capsys, "align", *arguments, "--dataset_name", tmp_path / "photos")
    assert "No row of the evaluation data has a caption" in error
    assert not list((tmp_path / "features").rglob("*.parquet"))


def test_a_folder_with_a_model_is_not_replaced_unasked(arguments, capsys):
    assert lotlip.main(["align", *arguments]) == 0
    assert "which the model would replace" in read_error(capsys, "align", *arguments)
    assert lotlip.main(["align", *arguments, "--overwrite_output_dir", "--keep", "text"]) == 0


def test_a_page_of_the_user_is_not_replaced_unasked(arguments, tmp_path, capsys):
    (tmp_path / "aligned").mkdir()
    (tmp_path / "aligned" / "README.md").write_text("precious")
    assert "holds README.md, which the model would replace" in read_error(capsys, "align", *arguments)
    assert (tmp_path / "aligned" / "README.md").read_text() == "precious"


def test_captions_in_files_belong_to_their_images(arguments, tmp_path, caplog):
    save_scenes(tmp_path / "photos", 20)
    lines = []
    for image in sorted((tmp_path / "photos").glob("*.png"))[:15]:
        key = hashlib.sha256(image.read_bytes()).hexdigest()
        lines.append(json.dumps({"sha256": key, "caption": f"A boat. The sky is {image.stem}."}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    options = to_argv("align", dataset_name=tmp_path / "photos", long_captions_column="")
    options += ["--eval_split", "train", "--caption_files", str(tmp_path / "captions.jsonl")]
    options += ["--file_key_column", "sha256", "--key_column", "image"]
    assert lotlip.main([*options, *arguments]) == 0
    results = json.loads((tmp_path / "aligned" / "eval_results.json").read_text())
    assert results["short_num_images"] == 10
    assert results["long_num_captions"] == 10
    assert "5 of 20 images have no long caption" in caplog.text
    card = ModelCard.load(tmp_path / "aligned" / "README.md")
    assert "| `caption_files` | captions.jsonl |" in card.text


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--vision_model", "nowhere"], "`--vision_model_name_or_path nowhere` cannot be used"),
        (["--keep", "text", "--projection_dim", "8"], "--projection_dim excludes --keep"),
        (["--head", "linear", "--dropout", "0.1"], "--dropout has no effect with --head linear"),
        (["--key_column", "image"], "--key_column has no effect without --caption_files"),
        (["--streaming"], "--streaming is not for `lotlip align`"),
        (["--image_column", "photo"], "photo"),
        (["--eval_split", "validation"], "has no split 'validation' but 'train', 'test': name one of these."),
        (["--eval_split", "test[:0]"], "The split 'test[:0]' is empty: there are 256 rows."),
        (["--max_eval_samples", "0"], "--max_eval_samples"),
        (["--learning_rate", "1e30"], "The loss is not finite: a `--learning_rate` of 1e+30 is too high"),
        (["--learning_rate", "1e30", "--num_train_epochs", "1"], "a `--learning_rate` of 1e+30 is too high"),
        (["--learning_rate", "1e30", "--head", "mlp"], "a `--learning_rate` of 1e+30 is too high"),
    ],
)
def test_mistakes_are_one_line_that_names_them(arguments, capsys, others, message):
    assert message in read_error(capsys, "align", *arguments, *others)
