"""Splitters of long captions, from the data arguments to the tokens."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from modeling_lotlip import LotlipTokenizer
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.samples import RowCaptionSampler
from modeling_lotlip.utils.sub_captions import (
    SPLITTERS,
    join_sub_captions,
    mark_query,
    split_marked,
    split_sentences,
    split_sub_captions,
)
from tests.conftest import SHARED, SPECIAL_TOKENS


TEXT = "A boat of Mr. Hill, 3.5 m long, lies at St. John's pier. What a sea! It is 5 p.m. on the clock.\nFog. The end"
SENTENCES = [
    "A boat of Mr.\u00a0Hill, 3.5 m long, lies at St.\u00a0John's pier",
    "What a sea!",
    "It is 5 p.m.\u00a0on the clock",
    "Fog",
    "The end",
]


def open_reader(columns: list[str], splitter: str) -> RowReader:
    return RowReader(columns, CaptionArguments(sub_caption_splitter=splitter))


@pytest.fixture(scope="module")
def tokenizers() -> tuple[LotlipTokenizer, BertTokenizer]:
    words = [*SPECIAL_TOKENS, *".,!?'\"();:-/%", *"0123456789"]
    vocab = {word: index for index, word in enumerate(dict.fromkeys([*words, *TEXT.lower().split()]))}
    return LotlipTokenizer(vocab=vocab, model_max_length=2000), BertTokenizer(vocab=vocab)


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_a_separator_stands_behind_each_sub_caption_and_nowhere_else(tokenizers, splitter):
    lotlip, bert = tokenizers
    texts = [TEXT, "Version 2.0. e.g. this one", "I. M. Pei built it. He did."]
    for path in (SHARED / "data" / "flags").glob("*/metadata.jsonl"):  # none where the folder is not there
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                texts += json.loads(line)["long_captions"]
    for text in texts:
        parts = split_sub_captions(text, splitter)
        expected = [lotlip.cls_token_id]
        for part in parts:  # BERT's tokens of the part, in which it sees the no-break space as a space
            expected += [
                *bert(part.replace("\u00a0", " "), add_special_tokens=False)["input_ids"],
                lotlip.sep_token_id,
            ]
        assert lotlip(join_sub_captions(parts))["input_ids"] == expected


def test_sentences_end_at_full_stops_but_not_at_abbreviations():
    assert split_sub_captions(TEXT, "sentences") == SENTENCES
    assert [part.rstrip(".").replace(". ", ".\u00a0") for part in split_sentences(TEXT)] == SENTENCES
    assert len(split_sub_captions(TEXT)) == 9
    with pytest.raises(ValueError, match="must be one of .*'words'"):
        split_sub_captions(TEXT, "words")


@given(st.text() | st.lists(st.sampled_from(["A boat", ". ", "Mr.", "\n", "</s>", "?", " ", "3.5"])).map("".join))
def test_no_character_is_lost(text):
    def characters(text: str) -> str:
        return "".join(text.replace("</s>", "").replace(".", "").split())

    for splitter in SPLITTERS:
        parts = split_sub_captions(text, splitter)
        assert all(part == part.strip() != "" for part in parts)
        assert characters("".join(parts)) == characters(text)
        assert split_marked(join_sub_captions(parts)) == parts


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_training_splits_as_asked(splitter):
    reader = open_reader(["caption", "long_captions"], splitter)
    sampler = RowCaptionSampler(reader, ObjectiveArguments(), seed=0)
    sampled = sampler.sample({"caption": "A boat", "long_captions": [TEXT]}, index=0, epoch=0)
    assert sampled.long == [join_sub_captions(split_sub_captions(TEXT, splitter))]


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_training_draws_consecutive_sub_captions_without_the_numbers_of_a_list(splitter):
    reader = open_reader(["long_captions"], splitter)
    sampler = RowCaptionSampler(reader, ObjectiveArguments(num_sub_captions=2), seed=0)
    sampled = {sampler.sample_sub_captions(TEXT, random.Random(seed)) for seed in range(40)}
    parts = [part for part in split_sub_captions(TEXT, splitter) if not part.isdecimal()]
    assert sampled == {join_sub_captions(list(pair)) for pair in zip(parts, parts[1:])}


@pytest.mark.parametrize(
    ("text", "marked"),
    [(" A boat. ", "A boat."), ("A boat.Sea.", "A boat. Sea"), ("A boat\nSea", "A boat. Sea"), (" ", "")],
    ids=["one sentence", "two sentences", "two lines", "nothing"],
)
def test_a_query_of_one_sentence_stays_as_it_was_typed(text, marked):
    assert mark_query(text, "paper") == marked


def test_a_caption_of_list_numbers_alone_is_none_to_sample():
    reader = RowReader(["image", "long_captions"], CaptionArguments(), image_column="image")
    sampler = RowCaptionSampler(reader, ObjectiveArguments(), seed=0)
    row = {"long_captions": ["1.", "A boat. The sea.", "2. 3."]}
    sampled = {sampler.sample(row, index, 0).long[0] for index in range(20)}
    assert sampled == {"A boat. The sea"}
