import argparse
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from filelock import FileLock
from PIL import Image

from examples.draw_scenes import draw_scenes
from modeling_lotlip.data.arguments import add_data_arguments
from modeling_lotlip.data.scenes import load_scenes, make_scene
from modeling_lotlip.embedding.batches import embed_corpus
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.store import main as embed_dataset
from modeling_lotlip.search.index import Index, load_index, read_lists, shard_paths, update_index
from modeling_lotlip.search.page import format_query, format_results, format_status
from modeling_lotlip.search.pictures import PictureFolder
from modeling_lotlip.search.query import (
    Query,
    QueryError,
    Sentence,
    embed_query,
    mark_limit,
    percentiles,
    read_query_image,
    search_index,
)
from modeling_lotlip.search.searcher import Searcher, Status
from modeling_lotlip.search.zero_shot import classify_image
from modeling_lotlip.sub_captions import join_sub_captions
from tests.conftest import WORDS


def arguments(model_dir: Path, tmp_path: Path, *words: object) -> argparse.Namespace:
    """The arguments of the page."""
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    args = parser.parse_args(list(map(str, words)))
    defaults = {"model_name_or_path": str(model_dir), "dtype": "float32", "trust_remote_code": False, "device": "cpu"}
    defaults |= {"batch_size": 3, "max_length": None, "index": "exact", "faiss_factory": "HNSW32", "images": None}
    defaults |= {"index_dir": tmp_path / "indices", "embeddings_dir": None, "sentence_score": "alone"}
    return argparse.Namespace(**(vars(args) | defaults))


@pytest.fixture(scope="module")
def model_and_processor(model_dir):
    args = argparse.Namespace(
        model_name_or_path=model_dir, dtype="float32", trust_remote_code=False, max_length=None, device="cpu"
    )
    model, processor = load_model(args.model_name_or_path, args)
    return model, processor


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten pictures, one in a folder of its own."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for index in range(10):
        name = f"more/{index}.jpg" if index == 3 else f"{index}.png"
        make_scene(5, index).draw().save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def image_embeds(model, processor, images: list[Image.Image]) -> torch.Tensor:
    features = [model.get_image_features(**processor.image_processor(image, return_tensors="pt")) for image in images]
    return torch.nn.functional.normalize(torch.cat([each.pooler_output for each in features]), dim=-1).detach()


def test_index_follows_the_files(folder, model_and_processor, tmp_path, monkeypatch):
    monkeypatch.setattr("search.index.SHARD_SIZE", 4)
    model, processor = model_and_processor
    pictures = PictureFolder(folder)
    embedded = []

    def update() -> tuple[Index, tuple]:
        embedded.clear()
        changes = update_index(tmp_path / "index", pictures, model, processor, batch_size=3)
        index = load_index(tmp_path / "index")
        files = [path for path in folder.rglob("*.*g") if path.exists() and not path.name.startswith(".")]
        assert sorted([*index.names, *index.unreadable]) == sorted(str(path.relative_to(folder)) for path in files)
        for name, embedding in zip(index.names, index.embeds):
            (expected,) = image_embeds(model, processor, [Image.open(folder / name)])
            torch.testing.assert_close(embedding, expected, rtol=0, atol=1e-5)
        return index, tuple(changes)

    read = pictures.read
    monkeypatch.setattr(pictures, "read", lambda name, *_: (embedded.append(name), read(name))[1])
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "cut.jpg").write_bytes((folder / "more" / "3.jpg").read_bytes()[:400])
    (folder / "photo.heic").write_bytes(b"")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "nowhere.png").symlink_to("gone.png")
    assert update()[1] == (12, 0, 0)
    assert pictures.others == {".heic": 1, "without a file behind it": 1}
    (folder / "nowhere.png").unlink()
    index, changes = update()
    assert changes == (0, 0, 0) and embedded == []
    assert set(index.unreadable) == {"broken.png", "cut.jpg"} and len(index.names) == 10

    # one is gone, one is another picture under the same name, one is repaired, one is new
    (folder / "0.png").unlink()
    make_scene(5, 77).draw().save(folder / "1.png")
    make_scene(5, 78).draw().save(folder / "broken.png")
    make_scene(5, 79).draw().save(folder / "new.png")
    index, changes = update()
    assert changes == (1, 2, 1) and sorted(embedded) == ["1.png", "broken.png", "new.png"]
    assert set(index.unreadable) == {"cut.jpg"}
    assert update()[1] == (0, 0, 0) and embedded == []

    # a stop between the two files of a shard: what the list does not know is embedded anew, and stands there once
    list_path = next(path for path in (tmp_path / "index").glob("pictures-*.json") if "2.png" in path.read_text())
    listed = json.loads(list_path.read_text())
    del listed["2.png"]
    list_path.write_text(json.dumps(listed))
    assert update()[1] == (1, 0, 0) and embedded == ["2.png"]

    # a disk that is not mounted is an empty folder: nothing is forgotten
    for path in folder.rglob("*.*g"):
        if path.name != "new.png":
            path.unlink()
    assert update()[1] == (0, 0, 11)
    (folder / "new.png").rename(tmp_path / "new.png")
    with pytest.raises(FileNotFoundError, match="The 1 that were indexed are kept"):
        update_index(tmp_path / "index", pictures, model, processor)
    (tmp_path / "new.png").rename(folder / "new.png")
    assert update()[1] == (0, 0, 0) and embedded == []
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        os.rename(folder, tmp_path / "moved")
        update()


def test_stopped_update_goes_on(folder, model_and_processor, tmp_path):
    model, processor = model_and_processor
    reports = []

    def stop_after_six(done: int, total: int) -> bool:
        reports.append((done, total))
        return done >= 6

    pictures = PictureFolder(folder)
    update_index(tmp_path / "index", pictures, model, processor, 3, stop_after_six)
    assert len(load_index(tmp_path / "index").names) == 6 and reports == [(0, 10), (3, 10), (6, 10)]
    changes = update_index(tmp_path / "index", pictures, model, processor, 3)
    names = load_index(tmp_path / "index").names
    assert len(names) == len(set(names)) == 10 and changes.new == 4


def test_what_is_no_picture_stops_nothing(folder, model_and_processor, tmp_path, monkeypatch):
    """Names that are no text, pipes, folders that may not be read, pictures that the processor cannot bear."""
    model, processor = model_and_processor
    pictures = PictureFolder(folder)
    update_index(tmp_path / "index", pictures, model, processor)
    with open(os.fsencode(folder) + b"/bad\xff.png", "wb"):
        os.mkfifo(folder / "pipe.png")
    (folder / "linked").symlink_to("more")
    make_scene(5, 20).draw().resize((300, 1)).save(folder / "thin.png")
    make_scene(5, 21).draw().save(folder / "zlast.png")
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "closed", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    preprocess = type(processor.image_processor).__call__

    def refuse_thin(self, images, **kwargs):
        if any(image.height == 1 for image in images):
            raise RuntimeError("can't allocate memory")
        return preprocess(self, images, **kwargs)

    monkeypatch.setattr(type(processor.image_processor), "__call__", refuse_thin)
    changes = update_index(tmp_path / "index", pictures, model, processor)
    index = load_index(tmp_path / "index")
    assert changes == (2, 0, 0) and index.unreadable == {"thin.png": "can't allocate memory"}
    assert "more/3.jpg" in index.names and "zlast.png" in index.names and len(index.names) == 11
    assert pictures.closed_folders == {"more"} and pictures.others == {
        "with a name that is not UTF-8": 1,
        "that is a pipe or device": 1,
        "linked folder": 1,
    }


def test_two_programs_share_an_index(folder, model_dir, model_and_processor, tmp_path):
    args = arguments(model_dir, tmp_path)
    args.images = folder
    one, other = (Searcher(*model_and_processor, args) for _ in range(2))
    one.update()
    other.update()
    make_scene(5, 30).draw().save(folder / "new.png")
    one.update()
    other.update()  # for which nothing is left to do
    assert other.changes == (0, 0, 0) and len(other.index.names) == 11
    with FileLock(one.folder / ".lock"):
        one.update()
    assert "another program is indexing" in format_status(one) and "11 pictures of before" in format_status(one)

    # an update that fails has dropped what is gone, and the page knows
    (folder / "0.png").unlink()
    make_scene(5, 31).draw().save(folder / "newer.png")
    with pytest.MonkeyPatch.context() as monkeypatch:

        def fail(*_):
            raise OSError("the disk is gone")

        monkeypatch.setattr("search.index.embed_batch", fail)
        one.update()
        assert "the disk is gone" in format_status(one) and "0.png" not in one.index.names
    one.update()
    assert one.changes == (1, 0, 0) and len(one.index.names) == 11 and "11 pictures in" in format_status(one)

    # one that stands there twice, as left by two programs of which one was killed
    (number,) = (number for number, listed in read_lists(one.folder).items() if "newer.png" in listed)
    for path in shard_paths(one.folder, number):
        shutil.copy(path, str(path).replace(f"{number:06d}", "000099"))
    other.update()
    assert sorted(other.index.names) == sorted(one.index.names)


def test_what_is_indexed_can_be_searched_meanwhile(folder, model_dir, model_and_processor, tmp_path, monkeypatch):
    monkeypatch.setattr("search.index.SHARD_SIZE", 3)
    monkeypatch.setattr("search.searcher.SHARD_SIZE", 3)
    args = arguments(model_dir, tmp_path)
    args.images = folder
    searcher = Searcher(*model_and_processor, args)
    seen, write = [], Status.__new__

    def note(cls, *values):
        seen.append((len(searcher.index.names), *values[1:3]))
        return write(cls, *values)

    monkeypatch.setattr(Status, "__new__", note)
    searcher.update()
    searchable = [number for number, *_ in seen]
    assert searchable[0] == 0 and sorted(searchable) == searchable and len(set(searchable)) >= 3
    assert all(number <= done for number, done, total in seen if total == 10)

    # a later update too, and whatever happens in it, it comes to its end
    for number in range(24):
        make_scene(7, number).draw().save(folder / f"later {number:02}.png")
    seen.clear()
    searcher.update()
    assert len({number for number, *_ in seen}) >= 3 and len(searcher.index.names) == 34
    make_scene(7, 30).draw().save(folder / "last.png")
    with pytest.MonkeyPatch.context() as broken:

        def fail(*_):
            raise MemoryError

        broken.setattr("search.index.embed_batch", fail)
        searcher.update()
    assert not searcher.status.is_updating and searcher.status.problem == "MemoryError"
    searcher.start_update(min_seconds_ago=60)
    assert searcher.thread is None
    searcher.start_update()
    searcher.thread.join()


def test_pictures_of_the_page_are_made_once(folder, model_dir, model_and_processor, tmp_path):
    large = make_scene(5, 40).draw().resize((3000, 2000))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    large.save(folder / "large.jpg", exif=exif)
    small = PictureFolder(folder).read("large.jpg", 480)
    expected = PictureFolder(folder).read("large.jpg")
    expected.thumbnail((480, 480))
    assert small.size == expected.size == (320, 480)
    difference = np.abs(np.asarray(small, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.mean() < 2

    args = arguments(model_dir, tmp_path)
    args.images = folder
    searcher = Searcher(*model_and_processor, args)
    searcher.update()
    first = searcher.thumbnail("1.png")
    assert searcher.thumbnail("1.png") is first and first.startswith("data:image/png")
    assert searcher.enlarge("large.jpg").startswith("data:image/jpeg")
    make_scene(5, 41).draw().save(folder / "1.png")
    assert searcher.thumbnail("1.png") != first
    (folder / "1.png").unlink()
    assert searcher.thumbnail("1.png") is None
    with pytest.raises(QueryError, match="not in the collection"):
        searcher.enlarge("../photos/2.png")


def test_approximate_search_of_few_pictures_is_exact(folder, model_dir, model_and_processor, tmp_path):
    args = arguments(model_dir, tmp_path)
    args.images, args.index, args.faiss_factory = folder, "faiss", "IVF64,PQ8"
    searcher = Searcher(*model_and_processor, args)
    searcher.update()
    assert "searched exactly: they are too few for IVF64,PQ8" in format_status(searcher)
    results = searcher.search("a boat. a house", None, 10)[1]
    assert sorted(result.fits[0] for result in results) == [number / 9 for number in range(10)]  # in float64
    args.faiss_factory = "HNSV32"
    with pytest.raises(ValueError, match="knows no index `--faiss_factory HNSV32`"):
        Searcher(*model_and_processor, args)


def test_words_that_the_model_does_not_know_are_named(model_and_processor):
    model, processor = model_and_processor
    query = embed_query(model, processor, "A red лодка. <i>qzqz</i> 船")
    assert query.unknown_words == ["лодка", "i", "qzqz", "船"]
    page = format_query(query, 3, 10)
    assert "does not know: лодка, i, qzqz, 船." in page and "3 most similar of 10 pictures" in page
    assert "know" not in format_query(embed_query(model, processor, "a red boat"), 3, 10)


@pytest.mark.parametrize("max_length", [None, 12, 3])
def test_marks_what_is_beyond_the_limit(model_and_processor, max_length):
    _, processor = model_and_processor
    generator = random.Random(0)
    sub_captions = [" ".join(generator.choices([*WORDS, "unbelievable"], k=7)) for _ in range(300)]
    sentences = mark_limit(processor, sub_captions, max_length)
    assert [sentence.text for sentence in sentences] == sub_captions
    read = [sentence.read for sentence in sentences if sentence.read]
    assert not any(sentence.read for sentence in sentences[len(read) :])
    limit = max_length or processor.tokenizer.model_max_length

    def num_tokens(parts: list[str]) -> int:
        return len(processor.tokenizer(join_sub_captions(parts), truncation=False, verbose=False)["input_ids"])

    last = sentences[len(read) - 1] if read else Sentence("", sub_captions[0])
    next_word = (last.unread or sentences[len(read)].unread).split()[0]
    longer = [*read[:-1], f"{read[-1]} {next_word}"] if last.unread and read else [*read, next_word]
    assert num_tokens(read) <= limit < num_tokens(longer)
    assert mark_limit(processor, sub_captions[:1], 100) == [Sentence(sub_captions[0], "")]


def test_percentiles_by_counting():
    torch.manual_seed(0)
    references = torch.randn(50, 4).round(decimals=1)  # with equals
    found = percentiles(references[:9], references)
    for picture in range(9):
        for sentence in range(4):
            lower = sum(value < references[picture, sentence] - 1e-4 for value in references[:, sentence])
            assert found[picture, sentence] == pytest.approx(lower / 49)
    assert percentiles(torch.ones(1, 2), torch.ones(1, 2)).isnan().all()


def test_query_of_text_and_picture(model_and_processor):
    model, processor = model_and_processor
    image = make_scene(5, 0).draw()
    text = "A red boat.\nThe ground is sand. a house"
    of_text, of_image = embed_query(model, processor, text), embed_query(model, processor, " . ", image)
    both = embed_query(model, processor, text, image)
    torch.testing.assert_close(both.embedding.norm(), torch.tensor(1.0))
    torch.testing.assert_close(
        both.embedding * (of_text.embedding + of_image.embedding).norm(), of_text.embedding + of_image.embedding
    )
    assert [sentence.text for sentence in both.sentences] == ["A red boat", "The ground is sand", "a house"]
    assert of_image.sentences == []
    torch.testing.assert_close(of_image.embedding, image_embeds(model, processor, [image])[0])
    with pytest.raises(QueryError, match="nothing to search for"):
        embed_query(model, processor, " \n. ")


@pytest.mark.parametrize("sentence_score", ["alone", "left_out"])
def test_scores_of_sentences(model_and_processor, sentence_score):
    model, processor = model_and_processor
    images = [make_scene(6, number).draw() for number in range(30)]
    index = Index([str(number) for number in range(30)], image_embeds(model, processor, images))
    parts = ["a red boat", "the ground is sand", "a house of blue", "a tree of photo"]
    # of the third one a word is read
    query = embed_query(model, processor, ". ".join(parts), None, sentence_score, max_length=12)
    results = search_index(index, query, 30)
    assert [sentence.unread for sentence in query.sentences] == ["", "", "house of blue", "a tree of photo"]

    def similarities(texts: list[str]) -> torch.Tensor:
        return index.embeds @ embed_corpus(model, processor, texts, max_length=12).t()

    whole = similarities([". ".join(parts)])[:, 0]
    assert [result.similarity for result in results] == pytest.approx(
        whole.sort(descending=True).values.tolist(), abs=1e-6
    )
    if sentence_score == "alone":
        scores = similarities(parts)
    else:
        without = [f"{parts[1]}. a", f"{parts[0]}. a", f"{parts[0]}. {parts[1]}"]
        scores = whole[:, None] - similarities(without)
    for result in results:
        own = scores[int(result.name)]
        fits = [(scores[:, column] < own[column] - 1e-6).sum().item() / 29 for column in range(scores.shape[1])]
        assert result.fits == pytest.approx([*fits, None][:4], abs=1.01 / 29)  # a rounding may exchange two
    assert embed_query(model, processor, "a boat", None, "left_out").sentence_embeds.norm() == pytest.approx(1)
    only_first = embed_query(model, processor, ". ".join(parts), None, "left_out", max_length=5)
    assert only_first.sentence_embeds.any(dim=1).tolist() == [True, False, False, False]


def test_sample_stands_for_a_large_collection(monkeypatch):
    monkeypatch.setattr("search.index.NUM_REFERENCES", 400)
    embeds = torch.nn.functional.normalize(torch.randn(3000, 8, generator=torch.manual_seed(0)), dim=-1)
    index = Index([str(number) for number in range(3000)], embeds)
    query = embeds[:1] + 0.1
    results = search_index(index, Query(query[0], [Sentence("a", "")], query), 600)
    exact = percentiles((embeds @ query.t())[[int(result.name) for result in results]], embeds @ query.t())
    fits = torch.tensor([result.fits for result in results])
    assert 0 < (fits - exact).abs().max() < 0.1


def test_searcher_of_a_folder(folder, model_dir, model_and_processor, tmp_path):
    args = arguments(model_dir, tmp_path)
    args.images = folder
    searcher = Searcher(*model_and_processor, args)
    with pytest.raises(QueryError, match="Nothing is indexed yet"):
        searcher.search("a boat", None, 3)
    assert "No pictures in" in format_status(searcher)
    searcher.status = Status(True, 3, 10, None)
    assert "Indexing: 3 of 10 pictures" in format_status(searcher)
    (folder / "<b>.png").write_bytes(b"no picture")
    searcher.start_update()
    searcher.thread.join()
    status = format_status(searcher)
    assert "10 pictures in" in status and "1 file that cannot be read" in status and "&lt;b&gt;.png" in status

    _, results = searcher.search("", str(folder / "more" / "3.jpg"), 4)
    text = "A boat. It is 3.5 m long."
    assert [sentence.text for sentence in searcher.search(text, None, 1)[0].sentences] == [
        "A boat",
        "It is 3",
        "5 m long",
    ]
    searcher.splitter = "sentences"
    assert [sentence.text for sentence in searcher.search(text, None, 1)[0].sentences] == [
        "A boat",
        "It is 3.5 m long",
    ]
    query, alike = searcher.similar("more/3.jpg", 3)
    assert alike[0].name == "more/3.jpg" and len(alike) == 3 and query.sentences == []
    assert results[0].name == "more/3.jpg" and results[0].similarity == pytest.approx(1, abs=1e-5)
    assert len(results) == 4 and results[0].fits == []
    picture = searcher.heat_map("more/3.jpg", "a red boat")
    assert picture.size == (224, 224)
    with pytest.raises(QueryError, match="not in the collection"):
        searcher.heat_map("../secret.png", "a red boat")
    (folder / "2.png").unlink()
    with pytest.raises(QueryError, match="cannot be read any more"):
        searcher.heat_map("2.png", "a red boat")

    query, results = searcher.search("<script>a</script>. " + "the ground is sand. " * 100, None, 10)
    page = format_results(query, results, lambda name: None, "alone", 10)
    assert "<script>" not in page and page.count('class="card"') == 10
    assert (
        page.count('aria-pressed="false"') == 10 * 60 and page.count("93 more sentences, the first 52 of them") == 10
    )
    assert "of 401 words" in format_query(query, 10, 10)

    # another model has an index of its own; the same one finds its own again
    again = Searcher(*model_and_processor, args)
    again.update()
    assert again.changes == (0, 0, 1) and again.folder == searcher.folder
    args.dtype = "bfloat16"
    assert Searcher(*model_and_processor, args).folder != searcher.folder
    args.images = tmp_path / "nothing"
    with pytest.raises(ValueError, match="is no folder"):
        Searcher(*model_and_processor, args)


def test_searcher_of_a_data_set_and_of_saved_embeddings(model_dir, model_and_processor, tmp_path, monkeypatch):
    scenes = load_scenes(20, seed=5)
    scenes.add_column("name", [f"scene {7 * number % 20}" for number in range(20)]).save_to_disk(tmp_path / "data")
    scenes[11]["image"].save(tmp_path / "query.png")
    args = arguments(model_dir, tmp_path, "--dataset_name", tmp_path / "data")
    of_rows = Searcher(*model_and_processor, args)
    of_rows.update()
    assert of_rows.search("", str(tmp_path / "query.png"), 1)[1][0].name == "11"
    of_rows.update()
    assert of_rows.changes == (0, 0, 0) and len(of_rows.index.names) == 20
    draw_scenes(tmp_path / "files", 3, seed=5)
    of_files = arguments(model_dir, tmp_path, "--dataset_name", "imagefolder", "--data_dir", tmp_path / "files")
    of_files.eval_split = "train"
    pictures = Searcher(*model_and_processor, of_files).pictures
    before = pictures.scan()
    assert before == {name: pictures.stamp(name) for name in before}
    scenes[9]["image"].resize((70, 70)).save(tmp_path / "files" / "0001.png")
    after = {name: pictures.stamp(name) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["1"] and after == pictures.scan()

    named = {"model_name_or_path": model_dir, "dataset_name": tmp_path / "data", "output_dir": tmp_path / "embeddings"}
    named |= {"device": "cpu", "id_column": "name"}
    argv = [str(part) for name, value in named.items() for part in (f"--{name}", value)]
    monkeypatch.setattr("sys.argv", ["embed_dataset.py", *argv])
    embed_dataset()
    args = arguments(model_dir, tmp_path)
    args.embeddings_dir = tmp_path / "embeddings"
    saved = Searcher(*model_and_processor, args)
    (result,) = saved.search("", str(tmp_path / "query.png"), 1)[1]
    assert result.name == f"scene {7 * 11 % 20}"
    assert saved.pictures.read(result.name).tobytes() == scenes[11]["image"].tobytes()
    saved.start_update()
    assert saved.thread is None

    exact = saved.search("a red boat. the ground is sand", None, 8)[1]
    args.index = "faiss"
    approximate = Searcher(*model_and_processor, args)
    assert approximate.index.faiss is not None and "approximately (HNSW32)" in format_status(approximate)
    assert [
        (result.name, result.fits) for result in approximate.search("a red boat. the ground is sand", None, 8)[1]
    ] == [(result.name, result.fits) for result in exact]


def test_classification(model_and_processor, tmp_path):
    model, processor = model_and_processor
    image = make_scene(5, 0).draw()
    labels = classify_image(model, processor, image, "red boat\n\nblue house\ngreen car ", "a photo of a {}")
    inputs = processor(
        images=image,
        text=[f"a photo of a {name}" for name in ("red boat", "blue house", "green car")],
        return_tensors="pt",
    )
    expected = dict(
        zip(("red boat", "blue house", "green car"), model(**inputs).logits_per_image[0].softmax(-1).tolist())
    )
    assert {label.name: label.probability for label in labels} == pytest.approx(expected, abs=1e-5)
    assert labels[0].probability == max(label.probability for label in labels)
    for arguments_, message in (
        ((None, "a", "{}"), "no picture yet"),
        ((image, " \n", "{}"), "no labels yet"),
        ((image, "a\nb, c\na", "{}"), "more often: a"),
        ((image, "a", "a photo"), "needs {}"),
        ((image, "red\n" + "a " * 200, "{}"), "than the model reads: a a"),
    ):
        with pytest.raises(QueryError, match=message):
            classify_image(model, processor, *arguments_)
    (tmp_path / "text.png").write_text("a text")
    with pytest.raises(QueryError, match="not a picture"):
        read_query_image(str(tmp_path / "text.png"))


def test_drawn_scenes_are_a_data_set(tmp_path):
    draw_scenes(tmp_path / "scenes", 5, seed=3)
    dataset = load_dataset("imagefolder", data_dir=str(tmp_path / "scenes"), split="train")
    assert dataset[4]["caption"] == make_scene(3, 4).caption and len(dataset) == 5
    assert dataset[4]["image"].tobytes() == make_scene(3, 4).draw().tobytes()
    assert not (tmp_path / "scenes.partial").exists()
