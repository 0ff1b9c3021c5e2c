"""Mixtures of a model before and after a real training: measured, chosen and saved."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.evaluation.retrieval import evaluate_retrieval
from modeling_lotlip.interpolation import outputs, run
from modeling_lotlip.interpolation.arguments import InterpolateArguments
from modeling_lotlip.interpolation.measure import (
    check_measured,
    has_same_images,
    keep_image_embeddings,
    load_held_back,
    measure_halves,
)
from modeling_lotlip.interpolation.run import interpolate
from modeling_lotlip.training.models import stretch_table
from modeling_lotlip.utils.output_folder import OutputFolder
from tests.helpers.data_files import write_lines


TABLE = "text_model.embeddings.position_embedding.weight"
NAMES = {"start": "a", "end": "b", "output_dir": "out"}


@pytest.fixture
def train_further(train, family_folders, noise_dir):
    """Trains a model of a family for texts of 100 tokens, and returns its folder before and after."""

    def run(family: str, **options) -> tuple[Path, Path]:
        start = family_folders(family)
        data = {"dataset_name": noise_dir, "train_split": "train", "eval_split": "train"}
        steps = {"max_train_steps": 3, "per_device_train_batch_size": 9, "learning_rate": 1e-2, "max_length": 100}
        return start, train("end", config_name=None, model_name_or_path=start, **data, **steps, **options)

    return run


def make_arguments(start: Path, end: Path, noise_dir: Path, output_dir: Path, **options) -> InterpolateArguments:
    return InterpolateArguments(
        start=str(start),
        end=str(end),
        dataset_name=str(noise_dir),
        eval_split="train",
        output_dir=output_dir,
        device="cpu",
        **options,
    )


@pytest.mark.parametrize("family", ["clip", "siglip", "align", "lotlip"])
def test_every_mixture_is_measured_and_the_best_is_saved_whole(train_further, noise_dir, tmp_path, family):
    start, end = train_further(family)
    args = make_arguments(start, end, noise_dir, tmp_path / "near", alphas=[0.5], max_loss=100)
    found = interpolate(args)
    assert [mixture.alpha for mixture in found.mixtures] == [0, 0.5, 1]

    rows = load_held_back(args).reported_on.rows
    assert len(rows) == 5
    after = evaluate_retrieval(load_encoder(str(end)), rows, CaptionArguments())
    assert found.mixtures[-1].results["reported_on"] == pytest.approx(after)
    before = evaluate_retrieval(load_encoder(str(start)), rows, CaptionArguments())
    assert found.start["reported_on"] == pytest.approx(before)

    saved = load_file(tmp_path / "near" / "model.safetensors")
    first = load_file(start / "model.safetensors")
    last = load_file(end / "model.safetensors")
    assert saved.keys() == last.keys()
    alpha = found.best.alpha
    for name, weights in saved.items():
        if first[name].shape != weights.shape:
            first[name] = stretch_table(first[name], len(weights))
        expected = (1 - alpha) * first[name].double() + alpha * last[name].double()
        torch.testing.assert_close(weights.double(), expected, rtol=0, atol=1e-6)
    results = json.loads((tmp_path / "near" / "eval_results.json").read_text())
    mixture = evaluate_retrieval(load_encoder(str(tmp_path / "near")), rows, CaptionArguments())
    assert results == pytest.approx(mixture)


@pytest.mark.parametrize(("of_start", "of_end", "named"), [(16, None, "START"), (None, 16, "END"), (16, 16, "START")])
def test_a_mixture_of_cut_embeddings_gives_all_and_says_so_once(
    family_folders, noise_dir, tmp_path, caplog, of_start, of_end, named
):
    for name, dim in (("start", of_start), ("end", of_end)):
        model = SentenceTransformer(str(family_folders("lotlip")), device="cpu", truncate_dim=dim)
        model.save_pretrained(str(tmp_path / name))
    args = make_arguments(tmp_path / "start", tmp_path / "end", noise_dir, tmp_path / "near", alphas=[0.5])
    interpolate(args)
    assert caplog.text.count("The mixture gives all 32 dimensions, not the first 16") == 1
    assert f"that were saved with {named}." in caplog.text
    assert load_encoder(str(tmp_path / "near")).dim == 32


@pytest.mark.parametrize(("dims", "expected"), [((None, [32, 8]), ()), (([32, 16, 8], [32, 8]), (32, 16, 8))])
def test_the_mixture_nearest_to_the_start_has_its_dims(family_folders, noise_dir, tmp_path, dims, expected):
    """Both have the same weights, and so the mixture of alpha 0 is the best."""
    for name, of_model in zip(("start", "end"), dims):
        shutil.copytree(family_folders("lotlip"), tmp_path / name)
        config = tmp_path / name / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"matryoshka_dims": of_model}))
    found = interpolate(make_arguments(tmp_path / "start", tmp_path / "end", noise_dir, tmp_path / "near"))
    assert found.best.alpha == 0
    assert load_encoder(str(tmp_path / "near")).matryoshka_dims == expected


def test_all_that_was_measured_stands_beside_the_model(train_further, noise_dir, tmp_path):
    start, end = train_further("clip")
    interpolate(make_arguments(start, end, noise_dir, tmp_path / "near"))
    measured = json.loads((tmp_path / "near" / "interpolation.json").read_text())
    assert [row["alpha"] for row in measured["mixtures"]] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert measured["num_rows"] == {"chosen_on": 4, "reported_on": 5}
    assert measured["is_stretched"]
    card = (tmp_path / "near" / "README.md").read_text()
    assert f"`{start.name}` (START)" in card
    assert "lose at most 0.5 points" in card
    assert "| START as it is |" in card
    assert "](interpolation.png)" in card
    assert str(tmp_path) not in card
    assert (tmp_path / "near" / "interpolation.png").read_bytes().startswith(b"\x89PNG")


def test_what_another_command_writes_meanwhile_stays(family_folders, noise_dir, tmp_path, monkeypatch):
    """Two commands at once with one output folder."""

    def load(args):
        with pytest.raises(ValueError, match="is written by process"), OutputFolder(args.output_dir):
            pass
        (tmp_path / "near" / "mine.txt").write_text("precious")
        return original(args)

    original = run.load_held_back
    monkeypatch.setattr(run, "load_held_back", load)
    folder = family_folders("clip")
    interpolate(make_arguments(folder, folder, noise_dir, tmp_path / "near"))
    assert (tmp_path / "near" / "mine.txt").read_text() == "precious"


def test_a_folder_that_cannot_be_written_is_an_error_before_the_work(tmp_path, noise_dir, monkeypatch):
    def refuse(path: Path, **options) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ValueError, match="`--output_dir .*near` cannot be written: Read-only"):
        interpolate(make_arguments(noise_dir, noise_dir, noise_dir, tmp_path / "near"))


def test_what_was_measured_is_shown_if_the_best_cannot_be_saved(
    family_folders, noise_dir, tmp_path, monkeypatch, caplog
):
    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs, "plot_interpolation", fail)
    folder = family_folders("clip")
    with pytest.raises(OSError, match="The model cannot be saved in .*near: .* No space left"):
        interpolate(make_arguments(folder, folder, noise_dir, tmp_path / "near"))
    assert "| alpha | short, to choose |" in caplog.text
    assert not (tmp_path / "near").exists()


@pytest.mark.parametrize("is_frozen", [True, False])
def test_images_that_no_mixture_changes_are_embedded_once(train_further, noise_dir, tmp_path, caplog, is_frozen):
    caplog.set_level("INFO")
    option = "freeze_vision_model" if is_frozen else "no_freeze_vision_model"
    start, end = train_further("siglip", **{option: True})
    interpolate(make_arguments(start, end, noise_dir, tmp_path / "near"))
    assert ("Both models embed images alike" in caplog.text) == is_frozen


def test_embeddings_that_are_kept_change_no_result(family_folders, noise_dir, tmp_path):
    folder = family_folders("clip")
    args = make_arguments(folder, folder, noise_dir, tmp_path / "near")
    encoder = load_encoder(str(folder))
    plain = measure_halves(encoder, load_held_back(args), args)
    data = load_held_back(args)
    keep_image_embeddings(data)
    measure_halves(encoder, data, args)
    assert data.chosen_on.image_cache.is_filled
    assert measure_halves(encoder, data, args) == plain


def save_labels(noise_dir: Path, folder: Path, labels: list) -> Path:
    load_from_disk(noise_dir).add_column("label", labels).save_to_disk(folder)
    return folder


def test_labels_that_are_numbers_are_the_classes_of_these_names(family_folders, noise_dir, tmp_path):
    folder = family_folders("clip")
    encoder = load_encoder(str(folder))
    names = ["2", "0", "1"]
    options = {"label_column": "label", "class_names": names}
    found = []
    for index, labels in enumerate(([0, 1, 2] * 3, ["0", "1", "2"] * 3)):
        data_dir = save_labels(noise_dir, tmp_path / str(index), labels)
        args = make_arguments(folder, folder, data_dir, tmp_path / "near", **options)
        found.append(measure_halves(encoder, load_held_back(args), args))
    assert found[0] == found[1]


def test_labels_that_seem_to_be_counted_from_1_are_warned_of(noise_dir, tmp_path, caplog):
    data_dir = save_labels(noise_dir, tmp_path / "data", [1, 2, 1] * 3)
    options = {"label_column": "label", "class_names": ["boat", "car", "tree"]}
    load_held_back(make_arguments("a", "b", data_dir, tmp_path / "near", **options))
    assert "No image has the label 0, which is 'boat'" in caplog.text


def test_images_that_another_image_processor_prepares_are_others(family_folders):
    start = load_encoder(str(family_folders("clip")))
    end = load_encoder(str(family_folders("clip")))
    assert has_same_images(start, end)
    end.processor.image_processor.image_mean = [0.0, 0.0, 0.0]
    assert not has_same_images(start, end)


def test_images_that_another_image_processor_squeezes_are_others(family_folders):
    """It sees a square image as the other one does, which cuts out the middle."""
    start = load_encoder(str(family_folders("clip")))
    end = load_encoder(str(family_folders("clip")))
    height_and_width = {"height": 32, "width": 32}
    start.processor.image_processor.size = {"shortest_edge": 32}
    start.processor.image_processor.crop_size = height_and_width
    start.processor.image_processor.do_center_crop = True
    end.processor.image_processor.size = height_and_width
    end.processor.image_processor.do_center_crop = False
    assert not has_same_images(start, end)


def test_few_rows_are_warned_of(family_folders, noise_dir, tmp_path, caplog):
    folder = family_folders("clip")
    load_held_back(make_arguments(folder, folder, noise_dir, tmp_path / "near"))
    assert "Half of the rows are 4, of which one text counts 25.0 points of recall at 1" in caplog.text


def test_both_halves_are_all_rows_and_the_same_in_each_run(family_folders, noise_dir, tmp_path):
    folder = family_folders("clip")
    args = make_arguments(folder, folder, noise_dir, tmp_path / "near")
    halves = []
    for _ in range(2):
        data = load_held_back(args)
        halves.append([half.rows["caption"][:] for half in data.halves.values()])
    assert halves[0] == halves[1]
    captions = halves[0][0] + halves[0][1]
    assert len(captions) == 9
    assert len({str(own) for own in captions}) == 9


@pytest.mark.parametrize(("num_rows", "is_warned"), [(4, True), (198, True), (199, True), (200, False)])
def test_rows_are_halved_and_fewer_than_two_hundred_warned_of(tmp_path, caplog, num_rows, is_warned):
    rows = [{"image": f"{index}.png", "caption": "a", "long_captions": ["b"]} for index in range(num_rows)]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    args = InterpolateArguments(**NAMES, dataset_name=file, eval_split="train")
    data = load_held_back(args)
    assert len(data.chosen_on.rows) == num_rows // 2
    assert len(data.reported_on.rows) == num_rows - num_rows // 2
    assert ("what is chosen by so few is uncertain" in caplog.text) == is_warned
    images = [row["path"] for half in data.halves.values() for row in undecoded(half.rows, "image")["image"]]
    assert len(set(images)) == num_rows


LONG = {"long_mean_recall": 1.0}
SHORT = {"short_mean_recall": 1.0}
CLASSES = {"zero_shot_top1": 1.0}


@pytest.mark.parametrize("measured", [LONG | SHORT, LONG | CLASSES, LONG | SHORT | CLASSES])
def test_what_both_halves_have_is_compared(measured):
    check_measured({"chosen_on": measured, "reported_on": measured})


@pytest.mark.parametrize(
    ("chosen_on", "reported_on", "message"),
    [
        (SHORT, LONG | SHORT, "no image has a long caption, by which"),
        (LONG | SHORT, SHORT, "no image has a long caption, by which"),
        (LONG, LONG, "no image has a short caption, by which"),
        (LONG | SHORT, LONG, "no image has a short caption, by which"),
        (LONG | SHORT | CLASSES, LONG | CLASSES, "no image has a short caption, by which"),
    ],
)
def test_a_half_without_what_is_compared_is_refused(chosen_on, reported_on, message):
    with pytest.raises(ValueError, match=message):
        check_measured({"chosen_on": chosen_on, "reported_on": reported_on})


def test_an_empty_column_of_long_captions_is_an_error_before_a_mixture_is_measured(
    family_folders, noise_dir, tmp_path, caplog
):
    load_from_disk(noise_dir).map(lambda row: {"long_captions": [""]}).save_to_disk(tmp_path / "data")
    folder = family_folders("clip")
    args = make_arguments(folder, folder, tmp_path / "data", tmp_path / "near")
    with pytest.raises(ValueError, match="no image has a long caption, by which the best mixture is chosen"):
        interpolate(args)
    assert "Measured alpha" not in caplog.text


def test_three_rows_are_too_few_to_halve(tmp_path):
    rows = [{"image": f"{index}.png", "caption": "a", "long_captions": ["b"]} for index in range(3)]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    args = InterpolateArguments(**NAMES, dataset_name=file, eval_split="train")
    with pytest.raises(ValueError, match="has 3 rows, but a mixture .* at least 4"):
        load_held_back(args)


def test_rows_with_the_image_of_another_row_are_warned_of(tmp_path, caplog):
    rows = [{"image": f"{index % 3}.png", "caption": "a", "long_captions": ["b"]} for index in range(6)]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    load_held_back(InterpolateArguments(**NAMES, dataset_name=file, eval_split="train"))
    assert "3 of 6 held-back rows have the image of another row" in caplog.text
