"""What is searched for, what is found, and how well it fits each sentence."""

import random

import pytest
import torch

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.batches import embed_corpus
from modeling_lotlip.search.filters import Filter
from modeling_lotlip.search.query import Query, QueryError, Sentence, embed_query, mark_limit, search_table
from modeling_lotlip.sub_captions import join_sub_captions
from tests.conftest import WORDS
from tests.helpers.embeddings import embed_images, make_table


def test_words_that_the_model_does_not_know_are_named(model_and_processor):
    model, processor = model_and_processor
    query = embed_query(model, processor, "A red лодка. <i>qzqz</i> 船")
    assert query.unknown_words == ["лодка", "i", "qzqz", "船"]
    assert embed_query(model, processor, "a red boat").unknown_words == []
    for text in ("лодка", "Qzqz. 船!\n"):
        with pytest.raises(QueryError, match=f"knows no word of '{text.strip()}'"):
            embed_query(model, processor, text)


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


def test_query_of_text_and_image(model_and_processor):
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
    assert of_image.sentences == [] and of_text.is_text and not of_image.is_text and not both.is_text
    torch.testing.assert_close(of_image.embedding, embed_images(model, processor, [image])[0])
    with pytest.raises(QueryError, match="nothing to search for"):
        embed_query(model, processor, " \n. ")


def test_similarities_with_sentences(model_and_processor, tmp_path):
    """Each sentence alone, also those that are beyond the limit of the whole text."""
    model, processor = model_and_processor
    embeds = embed_images(model, processor, [make_scene(6, number).draw() for number in range(30)])
    table = make_table(tmp_path, embeds, [str(number) for number in range(30)])
    parts = ["a red boat", "the ground is sand", "a house of blue", "a tree of photo"]
    # of the third one a word is read
    query = embed_query(model, processor, ". ".join(parts), max_length=12)
    results = search_table(table, query, 30)
    assert [sentence.unread for sentence in query.sentences] == ["", "", "house of blue", "a tree of photo"]

    def similarities(texts: list[str]) -> torch.Tensor:
        return embeds @ embed_corpus(model, processor, texts, max_length=12).t()

    whole = similarities([". ".join(parts)])[:, 0]
    assert [result.similarity for result in results] == pytest.approx(
        whole.sort(descending=True).values.tolist(), abs=1e-6
    )
    alone = similarities(parts)
    for result in results:
        assert result.sentence_similarities == pytest.approx(alone[int(result.key)].tolist(), abs=1e-5)


def test_copies_are_one_result_with_all_of_them_in_it(tmp_path):
    """Twelve images around three directions; of those around the first there are so many that a search goes on."""
    generator = torch.manual_seed(0)
    centres = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1, 0.0], [0.1, 1.0, 0.0], [0.0, 0.1, 1.0]]), dim=-1)
    embeds = centres[[0] * 9 + [1] * 2 + [2]] + 0.01 * torch.randn(12, 3, generator=generator)
    embeds = torch.nn.functional.normalize(embeds, dim=-1)
    names = [f"{number:02}" for number in range(12)]
    table = make_table(tmp_path, embeds, names, score_threshold=0.5, copy_threshold=0.98)
    query = Query(torch.nn.functional.normalize(torch.tensor([1.0, 0.3, 0.1]), dim=0))
    results = search_table(table, query, 3)
    groups = [{result.key, *(copy.key for copy in result.copies)} for result in results]
    assert groups == [set(names[:9]), set(names[9:11]), {names[11]}]
    expected = search_table(table, query, 12, all_copies=True)
    assert len(expected) == 12 and not any(result.copies for result in expected)
    first = [expected[0].key, *(copy.key for copy in results[0].copies)]
    assert first == [result.key for result in expected[:9]]
    assert [result.similarity for result in results] == pytest.approx(
        [next(hit.similarity for hit in expected if hit.key == result.key) for result in results]
    )
    assert [result.key for result in search_table(table, query, 2)] == [result.key for result in results[:2]]


def test_results_of_a_text_below_the_line_are_weak(tmp_path):
    embeds = torch.eye(4)
    table = make_table(tmp_path / "measured", embeds, list("abcd"), score_threshold=0.4, copy_threshold=1.0)
    query = Query(torch.tensor([0.8, 0.5, 0.3, 0.1]), is_text=True)
    assert [result.is_weak for result in search_table(table, query, 4)] == [False, False, True, True]
    assert not any(result.is_weak for result in search_table(table, query._replace(is_text=False), 4))
    unmeasured = make_table(tmp_path, embeds, list("abcd"))
    assert not any(result.is_weak or result.copies for result in search_table(unmeasured, query, 4))


def test_sentences_are_scored_for_the_image_that_stands_for_its_copies(tmp_path):
    embeds = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.6, 0.8], [0.0, 1.0]]), dim=-1)
    table = make_table(tmp_path, embeds, list("abcd"), score_threshold=-1, copy_threshold=0.999)
    query = Query(torch.tensor([1.0, 0.0]), [Sentence("up", "")], torch.tensor([[0.0, 1.0]]), is_text=True)
    found = {result.key: result.sentence_similarities for result in search_table(table, query, 4)}
    assert found == {"a": [0.0], "c": [pytest.approx(0.8)], "d": [1.0]}
    assert [result.key for result in search_table(table, query, 4, Filter(folder="e"))] == []
