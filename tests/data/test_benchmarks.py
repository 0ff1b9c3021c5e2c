"""The benchmarks are read from the files that their publishers ship, here in miniature."""

import dataclasses
import json
from functools import partial

import datasets
import pytest
from PIL import Image

from modeling_lotlip.data.benchmarks import BENCHMARKS, get_benchmark, load_benchmark, parse_sharegpt4v


# As they are published
PUBLISHED = {
    "coco": (5000, 25_000),
    "dci": (7805, 7805),
    "flickr30k": (1000, 5000),
    "iiw": (612, 612),
    "sharegpt4v-1k": (1000, 1000),
    "sharegpt4v-10k": (10_000, 10_000),
    "urban1k": (1000, 1000),
}
SIZES = {name: (benchmark.num_images, benchmark.num_texts) for name, benchmark in BENCHMARKS.items()}

pytestmark = pytest.mark.usefixtures("three_images")

SHAREGPT4V = "share-captioner_coco_lcs_sam_1246k_1107.json"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif path.suffix in (".jsonl", ".jsonlines"):
        path.write_text("\n".join(json.dumps(row) for row in content) + "\n", encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")


def draw(path, color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), color).save(path, format="JPEG")


def make_dci(folder):
    """A short caption is blank, and an extra one: the original joins what there is."""
    root = folder / "densely_captioned_images"
    write(root / "splits.json", {"train": ["b.json", "a.json"], "valid": [], "test": ["c.json"]})
    for name, short, extra in (
        ("a", "A a.", "It is big."),
        ("b", "", "It is big."),
        ("c", "A c.", ""),
        ("d", "A d.", "It is big."),  # in no split
    ):
        row = {
            "image": f"sa_{name}.jpg",
            "short_caption": short,
            "extra_caption": extra,
            "mask_data": {"0": {"caption": "No."}},  # left out of the text
        }
        write(root / "annotations" / f"{name}.json", row)
        draw(root / "photos" / f"sa_{name}.jpg")
    return [
        ("densely_captioned_images/photos/sa_a.jpg", "A a.\nIt is big."),
        ("densely_captioned_images/photos/sa_b.jpg", "\nIt is big."),
        ("densely_captioned_images/photos/sa_c.jpg", "A c.\n"),
    ]


def make_iiw(folder):
    dci = {"image": "sa_1.jpg", "ex_id": "x", "IIW": "A\u2028boat. “Red”."}
    docci = {"image": "test_2", "DOCCI": "No.", "IIW": "Two.\n\n\nBoats."}
    docci_aar = {"image/key": "aar_test_3", "IIW-P5B": "No.", "IIW": " Three. "}
    write(folder / "DCI_Test" / "data.jsonl", [dci])
    write(folder / "DOCCI_Test" / "data.jsonl", [docci])
    write(folder / "IIW-400" / "data.jsonl", [docci_aar])
    expected = [
        ("dci/sa_1.jpg", "A\u2028boat. “Red”."),
        ("docci/test_2.jpg", "Two.\n\n\nBoats."),
        ("docci_aar/aar_test_3.jpg", " Three. "),
    ]
    for name, _ in expected:
        draw(folder / name)
    return expected


def make_sharegpt4v(folder):
    names = [
        "coco/train2017/1.jpg",
        "sam/images/sa_1.jpg",
        "llava/llava_pretrain/2.jpg",
        "sam/images/sa_2.jpg",
        "sam/images/sa_3.jpg",
        "sam/images/sa_4.jpg",
    ]
    rows = []
    for name in names:
        question = {"from": "human", "value": "What is it?\n<image>"}
        answer = {"from": "gpt", "value": f"It is {name}."}
        rows.append({"id": name, "image": name, "conversations": [question, answer]})
        if name.startswith("sam"):
            draw(folder / name)
    write(folder / SHAREGPT4V, rows)
    expected = ["sam/images/sa_1.jpg", "sam/images/sa_2.jpg", "sam/images/sa_3.jpg"]
    return [(name, f"It is {name}.") for name in expected]


def make_urban1k(folder):
    for number in (1, 2, 10):
        write(folder / "caption" / f"{number}.txt", f"Street {number}. It rains.\nA second line.")
        draw(folder / "image" / f"{number}.jpg")
    write(folder / "caption" / "._1.txt", "not a caption")
    return [(f"image/{number}.jpg", f"Street {number}. It rains.") for number in (1, 10, 2)]


def make_karpathy(folder, name, image_folder):
    images = []
    expected = []
    for number, split in enumerate(["train", "test", "restval", "test", "test", "val"]):
        texts = [f"Caption {index} of {number}." for index in range(5 + number % 3)]
        sentences = [{"raw": text, "tokens": []} for text in texts]
        image = {"filename": f"{number}.jpg", "split": split, "sentences": sentences}
        if name == "coco":
            image["filepath"] = image_folder
            if split == "train":
                image["filepath"] = "train2014"
        images.append(image)
        if split == "test":
            draw(folder / image_folder / f"{number}.jpg")
            expected.append((f"{image_folder}/{number}.jpg", texts[:5]))
    write(folder / f"dataset_{name}.json", {"images": images, "dataset": name})
    return expected


MAKERS = {
    "dci": make_dci,
    "iiw": make_iiw,
    "sharegpt4v-1k": make_sharegpt4v,
    "urban1k": make_urban1k,
    "coco": lambda folder: make_karpathy(folder, "coco", "val2014"),
    "flickr30k": lambda folder: make_karpathy(folder, "flickr30k", "flickr30k-images"),
}


@pytest.fixture
def three_images(monkeypatch):
    """Benchmarks of three images each."""
    for name, benchmark in BENCHMARKS.items():
        num_texts = 3 * (benchmark.num_texts // benchmark.num_images)
        small = dataclasses.replace(benchmark, num_images=3, num_texts=num_texts)
        if name.startswith("sharegpt4v"):
            small = dataclasses.replace(small, files={"*.json": partial(parse_sharegpt4v, num_rows=3)})
        monkeypatch.setitem(BENCHMARKS, name, small)


@pytest.mark.parametrize("name", MAKERS)
def test_a_benchmark_is_read_in_the_layout_of_its_publishers(name, tmp_path):
    expected = MAKERS[name](tmp_path)
    column = "long_captions"
    if name in ("coco", "flickr30k"):
        column = "caption"
    dataset = load_benchmark(name, tmp_path)
    assert list(zip(dataset["file_name"], dataset[column])) == expected
    assert dataset.column_names == ["file_name", column, "image"]
    assert dataset[0]["image"].size == (4, 3)
    files = dataset.cast_column("image", datasets.Image(decode=False))["image"]
    assert all(file["bytes"] is None for file in files)  # not copied

    without_images = load_benchmark(name, tmp_path, text_only=True)
    assert without_images.to_dict() == dataset.remove_columns("image").to_dict()


def test_missing_images_are_an_error_unless_partial_ones_are_allowed(tmp_path, caplog):
    expected = make_urban1k(tmp_path)
    (tmp_path / expected[1][0]).unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_benchmark("urban1k", tmp_path)
    assert "1 of the 3 images" in str(error.value)
    assert f"such as {expected[1][0]!r}" in str(error.value)
    assert get_benchmark("urban1k").source in str(error.value)
    assert len(load_benchmark("urban1k", tmp_path, text_only=True)) == 3
    partial = load_benchmark("urban1k", tmp_path, allow_partial=True)
    assert partial["file_name"] == [expected[0][0], expected[2][0]]
    assert "2 of 3 images" in caplog.text

    for place in (0, 2):
        (tmp_path / expected[place][0]).unlink()
    with pytest.raises(FileNotFoundError):  # nothing is no part
        load_benchmark("urban1k", tmp_path, allow_partial=True)


def test_images_of_iiw_that_are_published_as_those_of_training(tmp_path):
    """The original copies them from the other name; with both files there the one that is named is meant."""
    expected = make_iiw(tmp_path)
    folder = tmp_path / "docci_aar"
    draw(folder / "aar_train_3.jpg", "blue")
    assert load_benchmark("iiw", tmp_path)["file_name"] == [name for name, _ in expected]
    (folder / "aar_test_3.jpg").unlink()
    dataset = load_benchmark("iiw", tmp_path)
    assert dataset["file_name"] == ["dci/sa_1.jpg", "docci/test_2.jpg", "docci_aar/aar_train_3.jpg"]
    assert dataset["long_captions"] == [text for _, text in expected]
    assert dataset[2]["image"].getpixel((0, 0))[2] > 200


def test_a_benchmark_of_another_size_than_published_is_refused(tmp_path, monkeypatch):
    MAKERS["coco"](tmp_path)
    monkeypatch.setitem(BENCHMARKS, "coco", dataclasses.replace(BENCHMARKS["coco"], num_images=4))
    with pytest.raises(ValueError, match="3 images and 15 texts, but 4 and 15 are published.*set `--allow_partial`"):
        load_benchmark("coco", tmp_path)
    assert len(load_benchmark("coco", tmp_path, allow_partial=True)) == 3


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"num_images": 2}, "'coco' is not as published: 3 images and 15 texts, not 2 and 15."),
        ({"num_texts": 16}, "'coco' is not as published: 3 images and 15 texts, not 3 and 16."),
        ({"num_images": 4}, "'coco' is partial: 3 of 4 images."),
    ],
)
def test_another_size_that_is_allowed_is_said(tmp_path, monkeypatch, caplog, published, message):
    MAKERS["coco"](tmp_path)
    monkeypatch.setitem(BENCHMARKS, "coco", dataclasses.replace(BENCHMARKS["coco"], **published))
    load_benchmark("coco", tmp_path, allow_partial=True)
    assert message in caplog.text


def test_a_folder_without_annotations_is_an_error_that_names_it(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises((FileNotFoundError, ValueError)) as error:
            load_benchmark("dci", folder, allow_partial=True)
        assert str(folder) in str(error.value)
        assert get_benchmark("dci").source in str(error.value)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("dci", "densely_captioned_images/annotations/a.json", "extra_caption", "extra", "'extra_caption'"),
        ("iiw", "IIW-400/data.jsonl", '" Three. "', "null", "'IIW' must hold a text, not None"),
        ("sharegpt4v-1k", SHAREGPT4V, '"conversations"', '"turns"', "'conversations'"),
        ("coco", "dataset_coco.json", '"raw": "Caption 1 of 3."', '"raw": 3', "'raw' must hold a text, not 3"),
    ],
)
def test_damaged_annotations(name, file, old, new, message, tmp_path):
    MAKERS[name](tmp_path)
    content = (tmp_path / file).read_text(encoding="utf-8")
    assert old in content
    (tmp_path / file).write_text(content.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{file}.*{message}"):
        load_benchmark(name, tmp_path)


def test_a_caption_that_is_no_utf_8_is_named(tmp_path):
    make_urban1k(tmp_path)
    (tmp_path / "caption" / "2.txt").write_bytes(b"caf\xe9 2. It rains.\nA second line.")
    with pytest.raises(ValueError, match="2.txt"):
        load_benchmark("urban1k", tmp_path)


def test_splits_that_were_cut_off_are_named(tmp_path):
    make_dci(tmp_path)
    file = tmp_path / "densely_captioned_images" / "splits.json"
    content = file.read_text()
    assert content.endswith("]}")
    file.write_text(content.removesuffix("]}"))
    with pytest.raises(ValueError, match="splits.json"):
        load_benchmark("dci", tmp_path)


def test_annotations_of_sharegpt4v_under_another_name(tmp_path):
    expected = make_sharegpt4v(tmp_path)
    text = (tmp_path / SHAREGPT4V).read_text()
    (tmp_path / SHAREGPT4V).unlink()
    write(tmp_path / "share4v_sam_10k.json", text.replace('"sam/images/', '"images/'))
    names = load_benchmark("sharegpt4v-10k", tmp_path, text_only=True)["file_name"]
    assert names == [name.removeprefix("sam/") for name, _ in expected]
    write(tmp_path / SHAREGPT4V, text)
    with pytest.raises(ValueError, match="are of 6 images .*another single JSON file"):
        load_benchmark("sharegpt4v-10k", tmp_path)


def test_names_of_benchmarks():
    with pytest.raises(ValueError, match="There is no benchmark 'urban-1k': name one of coco, dci, .*urban1k"):
        get_benchmark("urban-1k")


def test_benchmarks_are_as_large_as_they_are_published():
    assert SIZES == PUBLISHED


def test_a_text_that_is_blank_is_none(tmp_path):
    make_iiw(tmp_path)
    file = tmp_path / "IIW-400" / "data.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace('" Three. "', '" "'), encoding="utf-8")
    with pytest.raises(ValueError, match="data.jsonl.*'IIW' must hold a text, not ' '"):
        load_benchmark("iiw", tmp_path)


def test_of_many_rows_of_sharegpt4v_the_first_ones_are_taken(tmp_path):
    text = json.dumps([{"image": f"sam/{row}.jpg", "conversations": [{}, {"value": "A."}]} for row in range(4)])
    assert [name for name, _ in parse_sharegpt4v(text, tmp_path, 2)] == ["sam/0.jpg", "sam/1.jpg"]
