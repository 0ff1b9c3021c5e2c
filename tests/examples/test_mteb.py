"""LoTLIP under MTEB: its own tasks and ours, on miniatures of their datasets."""

import dataclasses
import json
import shutil
import sys

import datasets
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from examples import evaluate_on_mteb
from examples.evaluate_on_mteb import format_scores, load_mteb_encoder, load_tasks
from modeling_lotlip import DualEncoder, LotlipModel, LotlipProcessor
from modeling_lotlip.data.benchmarks import load_benchmark
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.evaluation.mteb_tasks import TASKS
from modeling_lotlip.evaluation.retrieval import evaluate_retrieval
from tests.data.test_benchmarks import BENCHMARKS, MAKERS, three_images, write  # noqa: F401
from tests.helpers.methods import PooledModel, make_like


NUM_SCENES = 12
# texts in the small model's words, all different
TEXTS = []
for thing in ("boat", "car", "house", "tree"):
    TEXTS += [f"a red {thing}", f"a green {thing}", f"a blue {thing}"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """`datasets` takes a folder of the same name and card for the one that it has read before."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def own_model(model_dir, tmp_path_factory):
    """The small model in a folder whose name is its own."""
    return shutil.copytree(model_dir, tmp_path_factory.mktemp("models") / "my-model")


@pytest.fixture(scope="module")
def scenes():
    return load_scenes(NUM_SCENES, seed=5)


@pytest.fixture
def streets(tmp_path, monkeypatch, scenes):
    """A folder with Urban1k of a few scenes."""
    small = dataclasses.replace(BENCHMARKS["urban1k"], num_images=NUM_SCENES, num_texts=NUM_SCENES)
    monkeypatch.setitem(BENCHMARKS, "urban1k", small)
    folder = tmp_path / "data" / "urban1k"
    for number, scene in enumerate(scenes):
        text = f"{scene['caption']}. {scene['long_captions'][0]}"
        write(folder / "caption" / f"{number:02d}.txt", text)
        (folder / "image").mkdir(exist_ok=True)
        scene["image"].save(folder / "image" / f"{number:02d}.jpg", format="JPEG")
    return tmp_path / "data"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, own_model):
    """Runs the command; gives what it prints and what it writes."""

    def run(*arguments, models=(own_model,)):
        file = tmp_path / "table.json"
        argv = ["--model_name_or_path", *models, "--device", "cpu"]
        argv += ["--output_dir", tmp_path / "results", "--output_file", file, *arguments]
        monkeypatch.setattr(sys, "argv", ["evaluate_on_mteb.py", *map(str, argv)])
        evaluate_on_mteb.main()
        return capsys.readouterr().out, json.loads(file.read_text())["rows"]

    return run


def test_long_text_tasks_give_the_recall_of_the_evaluation(own_model, streets, run):
    tasks = ["Urban1kT2IRetrieval", "Urban1kI2TRetrieval"]
    table, rows = run("--tasks", *tasks, "--data_root", streets)
    assert [row["task"] for row in rows] == tasks
    for row in rows:
        assert row["model"] == "local/my-model"
        assert row["language"] == "default"
        assert row["metric"] == "recall_at_1"

    encoder = DualEncoder.from_pretrained(own_model, device="cpu")
    dataset = load_benchmark("urban1k", streets / "urban1k")
    expected = evaluate_retrieval(encoder, dataset, group_equal_captions=False)
    for row, direction in zip(rows, ("t2i", "i2t")):
        assert 100 * row["score"] == pytest.approx(expected[f"long_{direction}_recall@1"], abs=1e-3)
        assert f"| {row['task']} | default | recall_at_1 | {100 * row['score']:.1f} |" in table
    assert expected["long_t2i_recall@1"] > 0  # not equal by being nothing

    # what is there is not computed again, and names no folder of this machine
    results = list((streets.parent / "results").rglob("Urban1k*Retrieval.json"))
    assert len(results) == 2
    assert not any(str(streets) in file.read_text() for file in results)
    changed = json.loads(results[0].read_text())
    changed["scores"]["test"][0]["main_score"] = 0.125
    results[0].write_text(json.dumps(changed))
    table, _ = run("--tasks", *tasks, "--data_root", streets)
    assert "| recall_at_1 | 12.5 |" in table


@pytest.mark.parametrize("difference", ["weights", "image_mean"])
def test_models_in_folders_of_one_name_have_their_own_results(own_model, streets, run, tmp_path, difference):
    folders = [tmp_path / name / "best" for name in "ab"]
    model = LotlipModel.from_pretrained(own_model)
    processor = LotlipProcessor.from_pretrained(own_model)
    for folder in folders:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        if difference == "weights":
            model.text_projection.weight.data.mul_(-1)
        else:
            processor.image_processor.image_mean = [0.9, 0.1, 0.5]
    options = ["--tasks", "Urban1kT2IRetrieval", "--data_root", streets]
    _, rows = run(*options, models=folders[:1])
    assert rows[0]["model"] == "local/best"
    (file,) = (tmp_path / "results").rglob("Urban1kT2IRetrieval.json")
    kept = json.loads(file.read_text())
    kept["scores"]["test"][0]["main_score"] = 0.125  # of 12 texts, so none can have it
    file.write_text(json.dumps(kept))
    table, rows = run(*options, models=folders)
    assert [row["model"] for row in rows] == list(map(str, folders))
    assert str(folders[1]) in table
    assert rows[0]["score"] == 0.125 != rows[1]["score"]


@pytest.mark.parametrize("changed", [{"dtype": "bfloat16"}, {"max_length": 8}, {"truncate_dim": 16}], ids=str)
def test_a_model_that_is_run_otherwise_has_its_own_results(own_model, changed):
    as_it_is = load_mteb_encoder(str(own_model), InferenceArguments(device="cpu"))
    otherwise = load_mteb_encoder(str(own_model), InferenceArguments(device="cpu", **changed))
    assert as_it_is.mteb_model_meta.revision != otherwise.mteb_model_meta.revision


def test_other_pictures_of_the_same_texts_have_their_own_results(streets, run, tmp_path):
    other = shutil.copytree(streets, tmp_path / "other")
    images = sorted((other / "urban1k" / "image").iterdir())
    contents = [image.read_bytes() for image in images]
    for image, content in zip(images, contents[1:] + contents[:1]):
        image.write_bytes(content)
    hidden = other / "urban1k" / ".cache"
    options = ["--tasks", "Urban1kI2TRetrieval", "--data_root"]
    run(*options, streets)
    (file,) = (tmp_path / "results").rglob("Urban1kI2TRetrieval.json")
    kept = json.loads(file.read_text())
    kept["scores"]["test"][0]["main_score"] = 0.125
    file.write_text(json.dumps(kept))
    _, rows = run(*options, other)
    assert rows[0]["score"] != 0.125
    assert len(list((tmp_path / "results").rglob("Urban1kI2TRetrieval.json"))) == 2
    hidden.mkdir()
    (hidden / "notes").write_text("of a download")
    run(*options, other)
    assert len(list((tmp_path / "results").rglob("Urban1kI2TRetrieval.json"))) == 2
    _, rows = run(*options, streets)
    assert rows[0]["score"] == 0.125


def test_files_behind_links_count_and_links_may_lead_back(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"one")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "image").symlink_to(tmp_path / "images")
    (tmp_path / "data" / "back").symlink_to(tmp_path / "data")
    before = evaluate_on_mteb.hash_files(tmp_path / "data")
    assert evaluate_on_mteb.hash_files(tmp_path / "data") == before
    (tmp_path / "images" / "a.jpg").write_bytes(b"three")
    assert evaluate_on_mteb.hash_files(tmp_path / "data") != before


def test_long_texts_are_embedded_as_long_captions(own_model, scenes):
    """By a model that embeds these in another way."""
    encoder = load_mteb_encoder(str(own_model), InferenceArguments(device="cpu"))
    model = make_like(encoder.encoder.model, PooledModel)
    own = DualEncoder(model, LotlipProcessor.from_pretrained(own_model))
    texts = list(scenes["caption"])
    rows = DataLoader(Dataset.from_dict({"text": texts}), batch_size=4)
    embeds = {}
    for name in ("Urban1kT2IRetrieval", "Flickr30kT2IRetrieval"):
        task = TASKS[name]() if name in TASKS else evaluate_on_mteb.find_task(name)
        adapter = evaluate_on_mteb.MtebEncoder(own, encoder.mteb_model_meta)
        part = {"hf_split": "test", "hf_subset": "default"}
        embeds[name] = adapter.encode(rows, task_metadata=task.metadata, **part)
    long, short = embeds.values()
    torch.testing.assert_close(long, own.encode_text(texts, convert_to_tensor=True, is_long=True))
    torch.testing.assert_close(short, own.encode_text(texts, convert_to_tensor=True))
    assert not torch.allclose(long, short)


def test_a_text_with_its_image_is_refused(own_model, scenes):
    rows = Dataset.from_dict({"text": list(scenes["caption"]), "image": list(scenes["image"])})
    encoder = load_mteb_encoder(str(own_model), InferenceArguments(device="cpu"))
    metadata = TASKS["Urban1kT2IRetrieval"]().metadata
    with pytest.raises(ValueError, match="Urban1kT2IRetrieval has rows of .*'image', 'text'"):
        encoder.encode(DataLoader(rows), task_metadata=metadata, hf_split="test", hf_subset="default")


@pytest.mark.usefixtures("three_images")
def test_every_benchmark_has_two_tasks(tmp_path):
    made = {name: make for name, make in MAKERS.items() if name not in ("coco", "flickr30k")}
    for name, make in made.items():
        make(tmp_path / name)
    (tmp_path / "sharegpt4v-10k").symlink_to(tmp_path / "sharegpt4v-1k")
    tasks = load_tasks(["long-text"], tmp_path)
    assert len(tasks) == 10 == len(TASKS)
    for task in tasks:
        task.load_data()
        metadata = task.metadata
        assert metadata.category.upper() in metadata.name
        data = task.dataset["default"]["test"]
        texts = data["corpus"]
        images = data["queries"]
        if metadata.category == "t2i":
            texts = data["queries"]
            images = data["corpus"]
        pairs = zip(data["queries"]["id"], data["corpus"]["id"], strict=True)
        assert data["relevant_docs"] == {query: {answer: 1} for query, answer in pairs}
        assert len(texts) == 3
        assert images[0]["image"].size == (4, 3)
    dci = tasks[0].dataset["default"]["test"]
    assert dci["queries"]["text"] == ["A a. It is big", "It is big", "A c"]  # as in the paper


def test_a_task_without_its_folder_is_an_error():
    with pytest.raises(FileNotFoundError, match="IIWT2IRetrieval needs `data_dir`.*imageinwords"):
        TASKS["IIWT2IRetrieval"]().load_data()


def test_a_root_without_the_folder_of_a_task_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"--data_root {tmp_path} has no folder 'iiw'"):
        load_tasks(["IIWT2IRetrieval"], tmp_path)


def test_a_language_that_a_task_has_not_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="No subsets were found for Multi30kT2IRetrieval .*swa"):
        load_tasks(["Multi30kT2IRetrieval"], tmp_path, ["swa"])


def make_copy(folder, images):
    """Makes a copy of Crossmodal-3600 as on the Hub: Parquet files, and a card that names them."""
    repository = folder / "mteb" / "xm3600"
    (repository / "default").mkdir(parents=True)
    columns = {
        "image_id": [f"{number:016x}" for number in range(NUM_SCENES)],
        "image": images,
        "image_locale": ["en"] * NUM_SCENES,
    }
    names = ("captions", "captions_tokenized", "captions_tokenized_lowercase")
    files = []
    for language, end in (("de", ""), ("en", " sand")):
        captions = dict.fromkeys(names, [[text + end] for text in TEXTS])
        files.append({"split": language, "path": f"default/{language}.parquet"})
        Dataset.from_dict(columns | captions).to_parquet(repository / files[-1]["path"])
    card = [{"config_name": "default", "data_files": files}]
    (repository / "README.md").write_text(f"---\nconfigs: {json.dumps(card)}\n---\n")


def test_other_data_of_a_copy_has_its_own_results(scenes, tmp_path, run):
    images = list(scenes["image"])
    make_copy(tmp_path / "a", images)
    make_copy(tmp_path / "b", images[1:] + images[:1])
    scores = []
    for name in "ab":
        options = ["--tasks", "XM3600T2IRetrieval", "--languages", "deu", "--data_root", tmp_path / name]
        scores.append(run(*options)[1][0]["score"])
    assert scores[0] != scores[1]


def test_languages_from_a_copy(own_model, scenes, tmp_path, run):
    """Of one model two languages are kept: one is shown, and so is another model that has none."""
    make_copy(tmp_path / "hub", list(scenes["image"]))
    tasks = ["XM3600T2IRetrieval", "XM3600I2TRetrieval"]
    options = ["--tasks", *tasks, "--data_root", tmp_path / "hub", "--languages"]
    _, rows = run(*options, "deu", "eng")
    scores = {(row["task"], row["language"]): row["score"] for row in rows}
    to_image, to_text = tasks
    assert scores.keys() == {(to_image, "de"), (to_image, "en"), (to_text, "de"), (to_text, "en")}

    other = shutil.copytree(own_model, tmp_path / "other")
    table, rows = run(*options, "eng", models=(own_model, other))
    assert {row["model"] for row in rows} == {"local/my-model", "local/other"}
    assert {row["language"] for row in rows} == {"en"}
    assert "| de |" not in table
    rows = [row for row in rows if row["model"] != "local/other" or row["task"] != to_image]
    score = f"{100 * scores[to_image, 'en']:.1f}"
    assert f"| {to_image} | en | ndcg_at_10 | {score} |  |" in format_scores(rows)
