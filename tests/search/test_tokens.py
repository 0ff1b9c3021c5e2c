"""Search by a model that compares all tokens of a text with all of a picture."""

import json
import re

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

import lotlip
from modeling_lotlip import LotlipConfig, LotlipTokenWiseModel
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.arguments import InferenceArguments
from modeling_lotlip.embedding.batches import embed_images, embed_texts, tokenize
from modeling_lotlip.embedding.features import prepare_images
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.token_wise import rank_by_tokens, similarity_blocks_of_tokens
from modeling_lotlip.search.filters import Filter
from modeling_lotlip.search.index import Index, describe_effort
from modeling_lotlip.search.query import QueryError, embed_query
from modeling_lotlip.search.rendering import format_results, format_status
from tests.conftest import as_token_wise
from tests.helpers.commands import read_error


# one for each picture of the folder
TEXTS = ["a red boat", "A house. The ground is sand", "a blue car near a tree", "sea", "a green tree. The sea is blue"]
TEXTS += ["photo of a yellow car", "house", "the red ground", "a boat of sand", "tree. car. boat. house. sea"]


@pytest.fixture(scope="module")
def token_wise_dir(model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("token_wise")
    config = as_token_wise(LotlipConfig.from_pretrained(model_dir))
    torch.manual_seed(0)
    LotlipTokenWiseModel(config).save_pretrained(folder)
    AutoProcessor.from_pretrained(model_dir).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model_and_processor(token_wise_dir):
    """In place of the model with single embeddings."""
    return load_model(str(token_wise_dir), InferenceArguments(device="cpu"), takes_tokens=True)


@torch.no_grad()
def embed_all(model, processor, folder, names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of pictures and of `TEXTS`, zero at padding."""
    pictures = [Image.open(folder / name).convert("RGB") for name in names]
    images = embed_images(model, prepare_images(processor, pictures))
    return images, embed_texts(model, tokenize(processor, TEXTS))


def test_ranks_are_those_of_the_evaluation_and_of_lancedb(open_folder, folder, model_and_processor):
    searcher = open_folder()
    searcher.update()
    assert searcher.status.problem is None and len(searcher.index) == 10 and not searcher.index.is_due
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    images, texts = embed_all(*model_and_processor, folder, names)
    ((_, _, expected),) = similarity_blocks_of_tokens(images, texts)
    _, ranks = rank_by_tokens(images, texts, range(10))
    searcher.splitter = "sentences"
    for row, text in enumerate(TEXTS):
        answer = searcher.search(text, None, 10)
        found = {result.name: result.similarity for result in answer.results}
        assert list(found) == [names[place] for place in expected[row].argsort(descending=True).tolist()]
        assert [found[name] for name in names] == pytest.approx(expected[row].tolist(), abs=2e-3)  # as float16
        assert list(found).index(names[row]) == ranks.better[row]
        assert not any(result.is_weak or result.copies or result.sentence_similarities for result in answer.results)
        # another program asks LanceDB itself
        query = answer.query.embedding
        rows = searcher.index.table.search(query.numpy()).distance_type("cosine").limit(10).to_arrow()
        assert rows["name"].to_pylist() == list(found)
        theirs = 1 - torch.tensor(rows["_distance"].to_pylist()) / len(query)
        assert theirs.tolist() == pytest.approx(list(found.values()), abs=1e-4)
    similar = searcher.similar("more/3.jpg", 3).results
    assert similar[0].name == "more/3.jpg" and similar[0].similarity == pytest.approx(1, abs=1e-5)
    by_picture = searcher.search("", str(folder / "more/3.jpg"), 1).results
    assert by_picture[0].name == "more/3.jpg"


def test_the_page_tells_what_such_a_model_cannot(open_folder, folder):
    searcher = open_folder()
    (folder / "broken.png").write_bytes(b"no picture")
    searcher.update()
    assert "compared token by token" in format_status(searcher) and "broken.png" in format_status(searcher)
    answer = searcher.search("A red boat. The ground is sand.", None, 4)
    html = format_results(answer, searcher.thumbnail, 10)
    assert len(re.findall('class="card"', html)) == 4 and "sentence" not in html
    with pytest.raises(QueryError, match="not by both"):
        searcher.search("a boat", str(folder / "1.png"), 3)
    for ask in (
        lambda: searcher.classify(str(folder / "1.png"), "boat\ncar", "a {}"),
        lambda: searcher.heat_map("1.png", "sea"),
    ):
        with pytest.raises(ValueError, match="no single embedding"):
            ask()


def test_an_index_of_tokens_is_kept_up_to_date_and_filtered(open_folder, folder, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.search.update.WRITE_SIZE_OF_TOKENS", 4)
    searcher = open_folder()
    searcher.update()
    first = searcher.index.embedding("0.png")
    assert first.shape == (17, 32) and searcher.index.embedding("none.png") is None
    make_scene(5, 30).draw().save(folder / "0.png")
    (folder / "1.png").write_bytes(b"no picture")
    (folder / "2.png").unlink()
    searcher.update()
    assert searcher.changes == (0, 2, 1) and len(searcher.index) == 8
    assert not torch.allclose(searcher.index.embedding("0.png"), first) and list(searcher.index.unreadable) == [
        "1.png"
    ]
    those = Filter(folder="more")
    assert [result.name for result in searcher.search("sea", None, 5, those).results] == ["more/3.jpg"]
    assert Index.open(searcher.index.folder).of_tokens and "token by token" in describe_effort(searcher.index)


def test_equal_pictures_come_by_their_names(tmp_path):
    index = Index.make(tmp_path, 8, {}, of_tokens=True)
    tokens = torch.nn.functional.normalize(torch.randn(2, 5, 8, generator=torch.manual_seed(0)), dim=-1)
    names = [f"{number:03}" for number in torch.randperm(150).tolist()]
    index.write([{"name": name, "embedding": tokens[0]} for name in names])
    index.write([{"name": "other", "embedding": tokens[1]}])
    found = index.search(tokens[0][:3], 151)
    assert found.names == [*sorted(names), "other"] and found.embeds is None
    assert index.search(tokens[0][:3], 2).names == sorted(names)[:2]


@pytest.fixture
def search(folder, token_wise_dir, tmp_path, capsys):
    """Runs `lotlip search`; what it prints."""

    def run(*arguments: str) -> tuple[str, str]:
        options = ["--model", str(token_wise_dir), "--device", "cpu"]
        assert lotlip.main(["search", *arguments, *options]) == 0
        output = capsys.readouterr()
        return output.out, output.err

    return run


def test_the_command_finds_the_same_in_a_folder_and_in_its_index(search, folder, token_wise_dir, tmp_path, capsys):
    out, err = search(
        str(folder), *TEXTS, "--index_dir", str(tmp_path / "indices"), "--output_file", str(tmp_path / "found.json")
    )
    assert "10 pictures in" in err and err.count("compared token by token") == 1 and "Weak" not in out
    results = json.loads((tmp_path / "found.json").read_text())
    assert results["recall"] == 1 and [len(query["results"]) for query in results["queries"]] == [5] * len(TEXTS)
    (index_dir,) = (tmp_path / "indices").iterdir()
    again, err = search("--embeddings", str(index_dir), *TEXTS)
    assert err.count("compared token by token") == 1
    assert [line.split()[:2] for line in again.splitlines()] == [line.split()[:2] for line in out.splitlines()]


def test_embeddings_of_another_model_are_refused(model_dir, token_wise_dir, tmp_path, capsys):
    single = tmp_path / "single"
    lotlip.main(["embed", "--model", str(model_dir), "--output_dir", str(single), "--max_eval_samples", "4"])
    arguments = ("--embeddings", single, "--model", token_wise_dir, "--device", "cpu")
    assert "other weights" in read_error(capsys, "search", *arguments, "sea")


def test_a_query_is_of_tokens(model_and_processor):
    query = embed_query(*model_and_processor, "A red boat. The sea.", splitter="paper")
    assert query.embedding.shape == (8, 32) and len(query.sentences) == 2 and len(query.sentence_embeds) == 0
