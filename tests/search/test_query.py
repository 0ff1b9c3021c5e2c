"""What is searched for, what is found, and how well it fits each sentence."""

import random
import re

import pytest
import torch

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.encoder.dual_encoder import DualEncoder
from modeling_lotlip.encoder.preprocessing import Preprocessing
from modeling_lotlip.search.query import Query, QueryError, count_read_words
from modeling_lotlip.search.searcher import Searcher
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.utils.sub_captions import mark_sub_captions
from tests.conftest import WORDS
from tests.helpers.embeddings import embed_images, make_table


@pytest.fixture
def open_table(encoder, tmp_path):
    """Makes a searcher of embeddings, which are called by their numbers."""

    def open_searcher(embeds: torch.Tensor, max_length: int | None = None, **measured: float) -> Searcher:
        table = make_table(tmp_path, embeds, **measured)
        return Searcher(DualEncoder(encoder.model, encoder.processor, max_length=max_length), table)

    return open_searcher


def test_words_that_the_model_does_not_know_are_named(open_table):
    searcher = open_table(torch.eye(4))
    query = searcher.embed("A red лодка. <i>qzqz</i> 船")
    assert query.unknown_words == ["лодка", "i", "qzqz", "船"]
    assert searcher.embed("a red boat").unknown_words == []


@pytest.mark.parametrize("text", ["лодка", "Qzqz. 船!\n", "🚗 🚗", "\u200b", "\ufeff"])
def test_a_text_of_which_the_model_knows_nothing_is_refused(text, open_table):
    with pytest.raises(QueryError, match=re.escape(f"knows no word of {text.strip()!r}")):
        open_table(torch.eye(4)).embed(text)


def test_half_of_a_surrogate_pair_is_refused(open_table):
    with pytest.raises(QueryError, match="or no Unicode text: write it in UTF-8"):
        open_table(torch.eye(4)).embed("a red boat \ud83d")


@pytest.mark.parametrize("max_length", [None, 12, 3])
def test_counts_what_is_within_the_limit(encoder, max_length):
    processor = encoder.processor
    words = random.Random(0).choices([*WORDS, "unbelievable"], k=2000)
    num_read = count_read_words(Preprocessing(processor, max_length=max_length), words)
    lengths = [
        len(processor.tokenizer(" ".join(words[:number]), truncation=False, verbose=False)["input_ids"])
        for number in (num_read, num_read + 1)
    ]
    assert lengths[0] <= (max_length or processor.tokenizer.model_max_length) < lengths[1]
    assert count_read_words(Preprocessing(processor, max_length=100), words[:7]) == 7


@pytest.mark.parametrize("splitter, num_sentences", [("paper", 3), ("sentences", 2)])
def test_a_query_is_split_as_the_captions_of_the_table_were(encoder, tmp_path, splitter, num_sentences):
    settings = {"kinds": ["image"], "sub_caption_splitter": splitter}
    searcher = Searcher(encoder, EmbeddingTable.create(tmp_path, 4, settings))
    text = "a boat is 3.5 m long. the sea is blue."
    query = searcher.embed(text)
    assert len(query.sentences) == num_sentences
    expected = encoder.encode_text([mark_sub_captions(text, splitter)], convert_to_tensor=True)[0]
    torch.testing.assert_close(query.embedding, expected, rtol=0, atol=1e-5)


def test_query_of_text_and_image(open_table, encoder):
    searcher = open_table(torch.eye(4))
    image = make_scene(5, 0).draw()
    text = "A red boat.\nThe ground is sand. a house"
    of_text = searcher.embed(text)
    of_image = searcher.embed(" . ", image)
    both = searcher.embed(text, image)
    mean = torch.nn.functional.normalize(of_text.embedding + of_image.embedding, dim=0)
    torch.testing.assert_close(both.embedding, mean)
    torch.testing.assert_close(of_image.embedding, embed_images(encoder, [image])[0])
    assert both.sentences == ["A red boat", "The ground is sand", "a house"]
    assert of_image.sentences == []
    assert not both.is_truncated
    assert [query.is_text for query in (of_text, of_image, both)] == [True, False, False]


def test_a_query_of_nothing_is_refused(open_table):
    with pytest.raises(QueryError, match="nothing to search for"):
        open_table(torch.eye(4)).embed(" \n. ")


def test_the_similarity_with_a_sentence_is_that_of_it_alone(open_table, encoder):
    """Each sentence alone, also those that are beyond the limit of the whole text."""
    embeds = embed_images(encoder, [make_scene(6, number).draw() for number in range(30)])
    searcher = open_table(embeds, max_length=12)
    parts = ["a red boat", "the ground is sand", "a house of blue", "a tree of photo"]
    query = searcher.embed(". ".join(parts))
    assert len(query.words) == 15
    assert query.num_read < 15
    assert query.is_truncated
    results = searcher.search(query, 30)

    def similarities(texts: list[str]) -> torch.Tensor:
        return embeds @ searcher.encoder.encode_text(texts, convert_to_tensor=True).t()

    whole = similarities([". ".join(parts)])[:, 0].sort(descending=True).values
    alone = similarities(parts)
    assert [result.similarity for result in results] == pytest.approx(whole.tolist(), abs=1e-6)
    for result in results:
        assert result.sentence_similarities == pytest.approx(alone[int(result.key)].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    "measured, is_text, expected",
    [
        ({"score_threshold": 0.4, "copy_threshold": 1.0}, True, [False, False, True, True]),
        ({"score_threshold": 0.4, "copy_threshold": 1.0}, False, [False] * 4),
    ],
)
def test_results_of_a_text_below_the_threshold_are_weak(measured, is_text, expected, open_table):
    searcher = open_table(torch.eye(4), **measured)
    query = Query(torch.tensor([0.8, 0.5, 0.3, 0.1]), is_text=is_text)
    assert [result.is_below_threshold for result in searcher.search(query, 4)] == expected
