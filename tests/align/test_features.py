"""Features are computed once, of what can be read, and found again."""

import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from modeling_lotlip.align import features as features_module
from modeling_lotlip.data import rows as rows_module
from modeling_lotlip.data.arguments import CaptionArguments, CaptionFileArguments
from modeling_lotlip.data.images import read_file, undecoded
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from tests.helpers.data_files import write_lines
from tests.helpers.images import NO_IMAGE, replace_values


@pytest.fixture
def computed_images(monkeypatch):
    """The numbers of images that the image model was called with."""
    numbers = []
    encode = SentenceTransformer.encode

    def count(model, items, **options):
        if not isinstance(items[0], str):
            numbers.append(len(items))
        return encode(model, items, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", count)
    return numbers


def test_features_are_those_of_the_models_alone(compute, text_model, vision_model):
    dataset = load_scenes(12)
    features = compute(dataset)
    image = vision_model.encode([dataset[3]["image"]])[0]
    np.testing.assert_allclose(features.images[3], image, rtol=1e-5, atol=1e-5)
    (text,) = features.captions[(features.captions[:, 0] == 3) & (features.captions[:, 2] == 0)][:, 1].tolist()
    expected = text_model.encode([dataset[3]["caption"]])[0]
    np.testing.assert_allclose(features.texts[text], expected, rtol=1e-5, atol=1e-5)


def test_a_second_run_computes_nothing(compute, computed_images):
    first = compute()
    assert sum(computed_images) == 12
    second = compute()
    assert sum(computed_images) == 12
    torch.testing.assert_close(first.images, second.images, rtol=0, atol=0)


def test_another_split_finds_the_images_that_it_shares(compute, computed_images):
    whole = compute(load_scenes(12))
    part = compute(load_scenes(12).select([7, 2, 11]))
    assert sum(computed_images) == 12
    torch.testing.assert_close(part.images, whole.images[[7, 2, 11]], rtol=0, atol=0)


def test_the_same_image_in_several_rows_is_computed_once(compute, computed_images):
    features = compute(load_scenes(12).select([3, 5, 3]))
    assert sum(computed_images) == 2
    assert torch.equal(features.images[0], features.images[2])
    assert not torch.equal(features.images[0], features.images[1])


def test_features_of_another_encoder_are_not_taken(compute, computed_images, vision_model):
    compute()
    with torch.no_grad():
        vision_model[0].model.layernorm.bias[0] += 1
    compute()
    assert sum(computed_images) == 24


def test_features_of_texts_of_another_limit_are_not_taken(compute, text_model, tmp_path):
    compute()
    text_model.max_seq_length = 8
    compute()
    assert len(list((tmp_path / "features" / "texts").iterdir())) == 2


def test_features_are_parquet_that_any_program_reads(compute, tmp_path):
    features = compute()
    (file,) = (tmp_path / "features" / "images").rglob("*.parquet")
    table = pq.read_table(file)
    assert table.column_names == ["name", "features"]
    assert sorted(table["features"].to_pylist()) == sorted(features.images.tolist())


def test_an_encoder_that_gives_nan_is_an_error(compute, vision_model):
    with torch.no_grad():
        vision_model[0].model.layernorm.bias[0] = torch.nan
    with pytest.raises(ValueError, match="The image model gives NaN or infinity"):
        compute()


def test_an_unreadable_image_is_named_in_every_run(compute, caplog):
    torn = replace_values(load_scenes(12), {5: {"image": NO_IMAGE}})
    compute(torn)
    caplog.clear()
    compute(torn)
    assert "The image of torn.png cannot be read" in caplog.text


def test_captions_that_are_no_texts_are_named_and_left_out(compute, caplog):
    dataset = load_scenes(12)
    rows = [{**dataset[row], "long_captions": None, "caption": f"a boat {row}"} for row in range(12)]
    captions = [{"text": row["caption"]} if number == 5 else None for number, row in enumerate(rows)]
    dataset = dataset.select_columns(["image"]).add_column("caption", captions)
    with pytest.raises(ValueError, match="has a caption"):
        compute(dataset)
    assert "The captions of row 5 are left out" in caplog.text


def test_a_stopped_run_goes_on(compute, computed_images, monkeypatch):
    monkeypatch.setattr(features_module, "IMAGES_PER_FILE", 4)
    count = SentenceTransformer.encode

    def stop(model, items, **options):
        if len(computed_images) == 2:
            raise KeyboardInterrupt
        return count(model, items, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        compute()
    monkeypatch.setattr(SentenceTransformer, "encode", count)
    compute()
    assert sum(computed_images) == 12


def test_an_unreadable_image_is_left_out_with_its_captions_and_counted(compute):
    whole = compute()
    torn = compute(replace_values(load_scenes(12), {5: {"image": NO_IMAGE}}))
    assert torn.counts["unreadable_images"] == 1
    assert len(torn.images) == 11
    torch.testing.assert_close(torn.images[5], whole.images[6])
    assert set(torn.captions[:, 0].tolist()) == set(range(11))


def test_an_image_without_caption_is_left_out_and_counted(compute):
    features = compute(replace_values(load_scenes(12), {5: {"caption": "", "long_captions": []}}))
    assert features.counts["images_without_caption"] == 1
    assert len(features.images) == 11


def test_captions_beyond_the_limit_are_counted(compute):
    long = "a red boat " * 60
    features = compute(replace_values(load_scenes(12), {5: {"caption": long}, 6: {"caption": long}}))
    assert features.counts["truncated_captions"] == 2


def test_sub_captions_are_texts_of_their_image(compute):
    dataset = load_scenes(12)
    features = compute(dataset)
    num_sentences = dataset[0]["long_captions"][0].count(".")
    of_first = features.captions[features.captions[:, 0] == 0]
    assert (of_first[:, 2] == features_module.MODALITIES.index("sub")).sum() == num_sentences


def test_nothing_readable_is_an_error(compute):
    with pytest.raises(ValueError, match="No image of the training data that can be read"):
        compute(replace_values(load_scenes(2), dict.fromkeys(range(2), {"image": NO_IMAGE})))


def test_data_without_captions_is_an_error_before_any_image_is_computed(compute, computed_images):
    nothing = {"caption": "", "long_captions": []}
    with pytest.raises(ValueError, match=r"No row of the training data has a caption .*\(short, long, sub\)"):
        compute(replace_values(load_scenes(2), {0: nothing, 1: nothing}))
    assert computed_images == []


def test_an_image_file_that_changes_is_another_image(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"before")
    before = features_module.identify_image({"path": str(path), "bytes": None})
    path.write_bytes(b"afterwards")
    assert features_module.identify_image({"path": str(path), "bytes": None}) != before


@pytest.mark.parametrize(
    ("modalities", "expected"),
    [
        (("short",), [(0, "a boat", "short")]),
        (("long",), [(0, "One. Two", "long"), (1, "Alone", "long")]),
        (("sub",), [(0, "One", "sub"), (0, "Two", "sub")]),
        (("short", "sub"), [(0, "a boat", "short"), (0, "One", "sub"), (0, "Two", "sub")]),
    ],
)
def test_the_texts_are_those_that_are_asked_for_and_of_several_sentences_each(modalities, expected):
    types = {"image": Image(), "caption": Value("string"), "long_captions": List(Value("string"))}
    rows = {"image": [None, None], "caption": ["a boat", ""], "long_captions": [["One. Two."], ["Alone."]]}
    dataset = Dataset.from_dict(rows, features=Features(types))
    reader = RowReader(dataset.column_names, CaptionArguments())
    assert features_module.list_texts(dataset, reader, modalities) == expected


def hash_image(dataset: Dataset, position: int) -> str:
    """Returns the SHA-256 of the file of an image."""
    content = undecoded(dataset, "image")[position]["image"]["bytes"]
    return hashlib.sha256(content).hexdigest()


def test_images_without_captions_in_caption_files_are_counted(tmp_path):
    """Also those with captions in a column, and where keys are known only when images are read."""
    dataset = load_scenes(3)
    path = write_lines(tmp_path / "captions.jsonl", [{"key": "0" * 64, "caption": "A boat. Of none."}])
    files = CaptionFileArguments(caption_files=[path], key_column="image")
    reader = RowReader(dataset.column_names, CaptionArguments(), files)
    with pytest.raises(ValueError, match="Of 3 evaluation images 3 have no captions in"):
        features_module.list_texts(dataset, reader, what="evaluation")


def test_an_image_whose_hash_is_its_key_is_read_once_for_its_captions(tmp_path, monkeypatch):
    dataset = load_scenes(3)
    path = write_lines(tmp_path / "captions.jsonl", [{"key": hash_image(dataset, 1), "caption": "A boat. Of one."}])
    files = CaptionFileArguments(caption_files=[path], key_column="image")
    reader = RowReader(dataset.column_names, CaptionArguments(caption_column=""), files)
    num_read = []

    def count(file):
        num_read.append(1)
        return read_file(file)

    monkeypatch.setattr(rows_module, "read_file", count)
    captions = features_module.list_texts(dataset, reader, ("long",))
    assert (1, "A boat. Of one", "long") in captions
    assert len(num_read) == 3


def test_an_image_whose_file_is_not_there_does_not_count_as_one_without_captions(tmp_path, caplog):
    logging.get_logger("transformers").warning_once.cache_clear()
    dataset = load_scenes(3)
    path = write_lines(tmp_path / "captions.jsonl", [{"key": hash_image(dataset, 1), "caption": "A boat. Of one."}])
    dataset = replace_values(dataset, {2: {"image": {"bytes": None, "path": str(tmp_path / "nowhere.png")}}})
    files = CaptionFileArguments(caption_files=[path], key_column="image")
    reader = RowReader(dataset.column_names, CaptionArguments(), files)
    features_module.list_texts(dataset, reader)
    assert "Of 2 training images 1 have no captions in `--caption_files`" in caplog.text


def test_the_numbers_of_a_list_are_no_sub_captions():
    types = {"image": Image(), "long_captions": Value("string")}
    rows = {"image": [None, None], "long_captions": ["1. A red boat. 2. It is old.", "1. Alone."]}
    dataset = Dataset.from_dict(rows, features=Features(types))
    reader = RowReader(dataset.column_names, CaptionArguments())
    expected = [(0, "A red boat", "sub"), (0, "It is old", "sub")]
    assert features_module.list_texts(dataset, reader, ("sub",)) == expected


def test_what_is_left_out_and_cut_off_is_counted(compute):
    long = "a red boat " * 60
    changes = {3: {"caption": ""}, 5: {"long_captions": []}, 6: {"long_captions": [long]}, 7: {"image": NO_IMAGE}}
    counts = compute(replace_values(load_scenes(12), changes)).counts
    assert counts["rows"] == 12
    assert counts["images_without_long_caption"] == 1
    assert counts["images_without_caption"] == 0
    assert counts["num_captions"] == 20
    assert counts["truncated_captions"] == 1


def test_images_with_captions_that_cannot_be_read_are_an_error(compute):
    nothing = {"caption": "", "long_captions": []}
    with pytest.raises(ValueError, match="No image of the training data that can be read"):
        compute(replace_values(load_scenes(2), {0: nothing, 1: {"image": NO_IMAGE}}))


def test_an_image_without_a_file_is_known_by_its_content():
    name = features_module.identify_image({"bytes": b"a", "path": None})
    assert name == features_module.identify_image({"bytes": b"a", "path": "other.png"})
    assert name != features_module.identify_image({"bytes": b"b", "path": "other.png"})


def test_an_image_that_is_not_there_has_a_name_of_its_own():
    assert features_module.identify_image(None) == "unreadable: there is no image"


def test_selected_features_are_those_of_the_images_in_their_order():
    captions = torch.tensor([[0, 5, 0], [1, 6, 0], [2, 7, 1], [2, 8, 0]])
    features = features_module.Features(torch.tensor([[0.0], [1.0], [2.0]]), torch.zeros(9, 1), captions)
    selected = features.select(torch.tensor([2, 0]))
    assert selected.images.tolist() == [[2.0], [0.0]]
    assert selected.captions.tolist() == [[1, 5, 0], [0, 7, 1], [0, 8, 0]]
    assert features.captions[:, 0].tolist() == [0, 1, 2, 2], "what is selected from stays as it is"
