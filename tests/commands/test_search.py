"""`lotlip search`: images found by descriptions, and the errors where that cannot be."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import lotlip
from modeling_lotlip.commands.search import WEAK
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.encoder import dual_encoder, fastest
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.backends import openvino
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.encoder.fastest import Computation, Measured
from modeling_lotlip.table import vector_index
from modeling_lotlip.table.measurements import Measurements
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.utils.terminal import printable
from tests.helpers.commands import read_error
from tests.helpers.embeddings import embed_images


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Eight images, one in a folder of its own, one that is broken, and a file that is none."""
    folder = tmp_path_factory.mktemp("images") / "photos"
    (folder / "more").mkdir(parents=True)
    for index in range(8):
        make_scene(5, index).draw().save(folder / (f"more/{index}.png" if index == 3 else f"{index}.png"))
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "film.mov").write_bytes(b"")
    return folder


@pytest.fixture
def search(images, model_dir, tmp_path, monkeypatch, capsys):
    """Runs the command in a folder with `photos`, and returns its status, standard output and standard error."""
    shutil.copytree(images, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, model: Path | None = model_dir) -> tuple[int, str, str]:
        options = [] if model is None else ["--model", str(model)]
        if "--forget" not in arguments:
            options += ["--device", "cpu"]
        if "--embeddings" not in arguments:
            options += ["--index_dir", "indices"]
            if "--dtype" not in arguments and "--forget" not in arguments:
                options += ["--backend", "torch", "--dtype", "float32"]
        try:
            status = lotlip.main(["search", *arguments, *options])
        except SystemExit as exit:
            status = exit.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def without_line(out: str) -> list[str]:
    """The lines of an output but for that above weak results."""
    return [line for line in out.splitlines() if WEAK not in line]


def rank_by_hand(model_dir: Path, folder: Path, text: str) -> list[tuple[float, str]]:
    """Similarities and paths of all images, the most similar first."""
    encoder = load_encoder(str(model_dir), InferenceArguments(device="cpu"))
    paths = [path for path in sorted(folder.rglob("*.png")) if path.name != "broken.png"]
    embeds = embed_images(encoder, [Image.open(path) for path in paths])
    similarities = (embeds @ encoder.encode_text([text], convert_to_tensor=True)[0]).tolist()
    return sorted(zip(similarities, [str(path) for path in paths]), reverse=True)


def test_ranks_similarities_and_paths_of_several_texts(search, model_dir, tmp_path):
    status, out, err = search("photos", "a red boat", "A house. The ground is sand", "--k", "3")
    assert status == 0
    lines = without_line(out)
    assert len(lines) == 8
    assert lines[0] == "a red boat"
    assert lines[4] == "A house. The ground is sand"
    for start, text in ((1, "a red boat"), (5, "A house. The ground is sand")):
        expected = rank_by_hand(model_dir, Path("photos"), text)
        for rank, line in enumerate(lines[start : start + 3], start=1):
            shown_rank, similarity, path = line.split()
            assert int(shown_rank) == rank
            assert path == expected[rank - 1][1]
            assert float(similarity) == pytest.approx(expected[rank - 1][0], abs=1e-4)
    assert "8 images in photos." in err
    assert "Updated: 8 new, 1 that cannot be read." in err
    # with the cause, which may name a remedy, as of HEIC
    assert "Left out, 1 that cannot be read as an image: broken.png (it is none of JPEG, PNG," in err
    assert "Other files, left out: 1 .mov." in err


def test_results_are_written_by_the_ending(search):
    ask = ("photos", "a red лодка", "a house", "--k", "2", "--output_file")
    status, out, _ = search(*ask, "out/found.json")
    assert status == 0
    assert "The model does not know: лодка." in out
    results = json.loads(Path("out/found.json").read_text())
    assert results["num_images"] == 8
    assert list(results["unreadable"]) == ["broken.png"]
    first, second = results["queries"]
    assert first["query"] == "a red лодка"
    assert first["unknown_words"] == ["лодка"]
    assert not first["truncated"]
    assert [hit["rank"] for hit in second["results"]] == [1, 2]
    for hit in second["results"]:
        assert hit["path"] == str(Path.cwd() / "photos" / hit["key"])
        assert f"photos/{hit['key']}" in out
        assert hit["weak"] in (True, False)
        assert hit["copies"] == []
    search(*ask, "out/found.csv")
    table = list(csv.DictReader(Path("out/found.csv").read_text().splitlines()))
    assert [(row["query"], row["rank"]) for row in table][1:3] == [("a red лодка", "2"), ("a house", "1")]
    assert all(Path(row["path"]).is_file() and row["copies"] == "[]" for row in table)


def test_options_may_stand_between_texts_and_more_texts_in_a_file(search):
    Path("texts.txt").write_text("a tree\n\n  a blue car  \n")
    status, out, _ = search("photos", "--k", "1", "a red boat. " * 100, "--texts_file", "texts.txt")
    assert status == 0
    assert [line.strip() for line in without_line(out)[2::2]] == ["a tree", "a blue car"]
    assert out.splitlines()[0].endswith(" (truncated)")
    Path("texts.txt").write_text("\n")
    status, _, err = search("photos", "--texts_file", "texts.txt")
    assert status == 2
    assert "--texts_file texts.txt holds no text" in err


def test_what_another_program_has_indexed_is_searched_meanwhile(search, caplog):
    status, _, _ = search("photos", "a boat")
    assert status == 0
    make_scene(5, 20).draw().save("photos/new.png")
    with EmbeddingTable(next(Path("indices").iterdir())).writing():
        status, out, err = search("photos", "a boat", "--k", "2")
    assert status == 0
    assert len(without_line(out)) == 3
    assert "8 images in photos." in err
    assert "What is indexed so far is searched: " in caplog.text
    assert "is written by process" in caplog.text


def test_results_are_of_the_folder_and_the_days_that_are_asked_for(search):
    exif = Image.Exif()
    exif[0x0132] = "2024:05:31 12:00:00"
    make_scene(5, 20).draw().save("photos/more/taken.jpg", exif=exif)
    status, out, err = search("photos", "a red boat", "--folder", "more/")
    found = sorted(line.split()[2] for line in without_line(out)[1:])
    assert status == 0
    assert found == ["photos/more/3.png", "photos/more/taken.jpg"]
    days = ["--taken_from", "2024-05-31", "--taken_to", "2024-05-31"]
    status, out, err = search("photos", "a red boat", *days, "--output_file", "found.json")
    written = json.loads(Path("found.json").read_text())
    assert (written["folder"], written["taken_from"], written["taken_to"]) == (None, "2024-05-31", "2024-05-31")
    assert (written["num_images"], written["num_searched"], written["num_undated"]) == (9, 1, 8)
    assert [line.split()[2] for line in without_line(out)[1:]] == ["photos/more/taken.jpg"]
    (index,) = Path("indices").iterdir()
    _, out, _ = search("--embeddings", str(index), "a red boat", *days)
    assert without_line(out)[1].endswith("more/taken.jpg")


def test_copies_are_one_result_that_can_be_unfolded(search):
    make_scene(5, 1).draw().save("photos/1 again\n.png")
    same = {str(Path.cwd() / "photos" / name) for name in ("1.png", "1 again\n.png")}
    status, out, err = search("photos", "a red boat", "--k", "50", "--output_file", "found.json")
    results = json.loads(Path("found.json").read_text())["queries"][0]["results"]
    assert f"all 9 images are shown as {len(results)} results, with their copies." in err
    (result,) = [hit for hit in results if hit["path"] in same]
    assert {result["path"], *(copy["path"] for copy in result["copies"])} >= same
    assert sum(1 + len(hit["copies"]) for hit in results) == 9
    assert f"{printable(result['key'])}   (+ {len(result['copies'])} nearly the same)" in out
    status, out, _ = search("photos", "a red boat", "--k", "50", "--all_copies")
    assert len(without_line(out)) == 10
    assert "nearly the same" not in out


@pytest.mark.parametrize("threshold, num_above, lines_of_weak", [(-2.0, 8, []), (2.0, 0, [1])])
def test_weak_results_stand_below_a_line(search, monkeypatch, threshold, num_above, lines_of_weak):
    measured = Measurements(score_threshold=threshold, copy_threshold=2.0, num_rows=8)
    monkeypatch.setattr("modeling_lotlip.search.searcher.read_measurements", lambda table, kind: measured)
    ask = ("photos", "a red boat", "--k", "8", "--all_copies", "--output_file", "found.csv")
    status, out, _ = search(*ask)
    assert status == 0
    assert [number for number, line in enumerate(out.splitlines()) if WEAK in line] == lines_of_weak
    rows = list(csv.DictReader(Path("found.csv").read_text().splitlines()))
    assert [row["weak"] for row in rows] == ["False"] * num_above + ["True"] * (8 - num_above)


def test_the_recall_that_is_shown_is_that_of_the_filter(search, monkeypatch):
    monkeypatch.setattr(vector_index, "NUM_EXACT", 4)
    status, _, err = search("photos", "a boat", "--output_file", "found.json")
    assert status == 0
    assert "8 images in photos, searched approximately: 100.0% of the first 10 are those of exact search" in err
    status, _, err = search("photos", "a boat", "--folder", "more", "--output_file", "found.json")
    assert status == 0
    assert "8 images in photos, of which 1 is in the folder more." in err
    assert json.loads(Path("found.json").read_text())["recall"] == 1.0


def test_a_moved_folder_is_searched_at_once_and_its_old_index_forgotten(search, model_dir, caplog):
    status, _, _ = search("photos", "a boat")
    assert status == 0
    (old,) = Path("indices").iterdir()
    Path("photos").rename("moved")
    status, _, err = search("moved", "a boat")
    assert status == 0
    assert "Updated: 8 moved or copied, 1 that cannot be read." in err
    source = Path.cwd() / "photos"
    assert f"The folder {source} is not there" in caplog.text
    assert f"lotlip search --forget {source}" in caplog.text
    status, out, _ = search("--forget", "photos")
    assert status == 0
    assert out == f"Deleted the index {old} of the model {model_dir}.\n"
    assert not old.exists()
    caplog.clear()
    status, _, _ = search("moved", "a boat")
    assert status == 0
    assert "is not there" not in caplog.text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("photos", "--forget", "photos"), "--forget photos searches nothing: leave out PHOTOS and TEXT."),
        (("--forget", "photos"), "there is no index of it in indices, but of []. Name one of these."),
        (("--forget", "photos", "--folder", "more"), "--folder has no effect with --forget"),
        (("--forget", "photos", "--dtype", "bfloat16"), "--dtype has no effect with --forget"),
        (
            ("--forget", "photos", "--output_file", "a.json"),
            "--output_file has no effect with --forget: leave it out.",
        ),
    ],
)
def test_what_cannot_be_forgotten_is_said(search, arguments, message):
    status, _, err = search(*arguments)
    assert status == 2
    assert message in err


@pytest.fixture(scope="module")
def embeddings(model_dir, tmp_path_factory) -> Path:
    """Twelve scenes, embedded."""
    folder = tmp_path_factory.mktemp("embedded") / "embeddings"
    options = ["--model", model_dir, "--max_eval_samples", 12, "--output_dir", folder, "--device", "cpu"]
    status = lotlip.main(["embed", *map(str, options)])
    assert status == 0
    return folder


def test_embeddings_of_a_dataset_are_searched(search, embeddings):
    capture = ["--embeddings", str(embeddings), "--output_file", "found.json", "--all_copies"]
    status, out, _ = search(*capture, "a red лодка", "a house", "--k", "3")
    assert status == 0
    assert "The model does not know: лодка." in out
    results = json.loads(Path("found.json").read_text())
    hits = results["queries"][1]["results"]
    lines = [[str(hit["rank"]), f"{hit['similarity']:.4f}", hit["key"]] for hit in hits]
    assert len(hits) == 3
    assert [line.split() for line in without_line(out)[-3:]] == lines

    status, out, err = search(*capture, "a house", "--k", "500", "--kind", "long")
    results = json.loads(Path("found.json").read_text())["queries"][0]["results"]
    assert status == 0
    assert len(results) == 12
    assert "--k 500 is more than there are: all 12 captions are shown." in err
    assert all(hit["position"] == 0 for hit in results)
    assert "   caption 0" in out
    status, _, _ = search(*capture, "a house", "--k", str(2**63))
    assert status == 2


def test_embeddings_are_searched_with_the_model_that_made_them(search, embeddings, model_dir, tmp_path, monkeypatch):
    """As it was used, in whatever folder the search starts, also where the path was relative."""
    expected = search("--embeddings", str(embeddings), "a house")[1]
    shutil.copytree(model_dir, "model")
    options = ["--dtype", "bf16", "--truncate_dim", "16", "--max_eval_samples", "12", "--device", "cpu"]
    status = lotlip.main(["embed", "--model", "model", "--output_dir", "embedded", *options])
    assert status == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, out, _ = search("--embeddings", "../embedded", "a house", model=None)
    assert status == 0
    assert out != expected
    for name, value, told in (("dtype", "float32", "'bfloat16', this run has"), ("truncate_dim", "8", "16, this run")):
        status, _, err = search("--embeddings", "../embedded", "a house", f"--{name}", value, model=None)
        assert status == 2
        assert f"holds embeddings with {name} = {told}" in err


def test_a_collection_that_is_not_complete_is_said(search, embeddings):
    """Where the run that embeds was ended early."""
    copied = shutil.copytree(embeddings, Path("embeddings"))
    EmbeddingTable(copied).table.delete("row >= 8")
    stored = json.loads((copied / "settings.json").read_text())
    run = {"process": 1, "host": "h", "start": "2026-01-01", "command": "lotlip embed"}
    (copied / "settings.json").write_text(json.dumps(stored | {"run": run}))
    status, _, err = search("--embeddings", "embeddings", "a house")
    assert status == 0
    assert "embeddings is not complete: process 1 on h since" in err
    assert "The same command completes it. 8 of 12 rows are embedded." in err


def test_an_index_is_searched_as_it_is(search):
    """By the model that made it; what is new in the folder is not looked for."""
    expected = without_line(search("photos", "a red boat", "--k", "8", "--all_copies")[1])[1:]
    (index,) = Path("indices").iterdir()
    make_scene(5, 20).draw().save("photos/new.png")
    ask = ("--embeddings", str(index), "a red boat")
    status, out, err = search(*ask, "--k", "50", "--all_copies", model=None)
    assert status == 0
    assert "--k 50 is more than there are: all 8 images are shown." in err
    expected = [line.replace("photos/", f"{Path.cwd()}/photos/") for line in expected]
    assert without_line(out)[1:] == expected
    status, _, err = search(*ask, "--kind", "long")
    assert status == 2
    assert "holds no embeddings of kind long: search for another --kind." in err


def test_images_of_an_object_store_are_named_by_their_urls(search, model_dir, capsys):
    search("photos", "a red boat")
    made = EmbeddingTable(next(Path("indices").iterdir()))
    settings = {**made.settings, "source": "s3://bucket/photos"}
    table = EmbeddingTable.create(Path("from_a_store"), made.dim, settings, made.notes, "float16")
    table.append(
        [
            {"key": key, "embedding": made.embedding(key)}
            for key in vector_index.search(made, torch.ones(made.dim), 8).keys
        ]
    )
    status, out, _ = search("--embeddings", "from_a_store", "a red boat", "--k", "8", "--all_copies")
    assert status == 0
    assert "   s3://bucket/photos/0.png" in out
    assert "   s3://bucket/photos/more/3.png" in out
    error = read_error(capsys, "app", "--embeddings", table.folder, "--model", model_dir)
    assert "which the page cannot show" in error


@pytest.fixture
def fastest_way(monkeypatch, tmp_path):
    """Sets which way to compute a model this machine is fastest in, which is not measured."""
    monkeypatch.setattr(fastest, "HF_ASSETS_CACHE", tmp_path / "assets")
    monkeypatch.setattr(openvino, "HF_ASSETS_CACHE", tmp_path / "assets")

    def set_fastest(computation: Computation) -> None:
        shutil.rmtree(tmp_path / "assets" / "lotlip" / "fastest", ignore_errors=True)

        def measure_all(model, family, sample, computations, towers):
            return [Measured(one, 0.1 if one == computation else 1.0, 1.0) for one in computations]

        monkeypatch.setattr(fastest, "measure_all", measure_all)

    return set_fastest


AUTO = ("--backend", "auto", "--dtype", "auto")


def test_an_index_is_computed_as_it_was_made_and_not_embedded_again(search, fastest_way):
    """Also after the machine has become faster in another way."""
    fastest_way(Computation("openvino", "float32"))
    _, out, err = search("photos", "a red boat", *AUTO)
    assert "Computing in float32 by OpenVINO" in err
    fastest_way(Computation("torch", "bfloat16"))
    _, again, err = search("photos", "a red boat", *AUTO)
    assert again == out
    assert "Computing in float32 by OpenVINO" in err
    assert "new" not in err.partition("Updated")[2]
    (index,) = Path("indices").iterdir()
    assert EmbeddingTable(index).settings["backend"] == "openvino"
    _, _, err = search("photos", "a red boat", "--backend", "torch", "--dtype", "auto")
    assert "Computing in bfloat16 by PyTorch" in err
    assert len(list(Path("indices").iterdir())) == 2


def test_an_index_that_cannot_be_computed_here_is_made_anew_in_another_way(search, fastest_way, monkeypatch, caplog):
    fastest_way(Computation("openvino", "float32"))
    search("photos", "a red boat", *AUTO)
    (index,) = Path("indices").iterdir()
    monkeypatch.setattr(dual_encoder, "find_spec", lambda name: None)
    monkeypatch.setattr(fastest, "find_spec", lambda name: None)
    status, _, err = search("photos", "a red boat", *AUTO)
    assert status == 0
    assert "Computing in float32 by PyTorch" in err
    assert f"The index {index} is not used: This needs openvino" in caplog.text
    status, _, err = search("--embeddings", str(index), "a red boat", model=None)
    assert status == 2
    assert "was computed in float32 by OpenVINO, which cannot be done here" in err
