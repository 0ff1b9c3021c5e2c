"""How long texts are."""

from pathlib import Path

import pytest
from datasets import Dataset
from transformers import BertTokenizer

from modeling_lotlip import LotlipTokenizer
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.evaluation import statistics
from modeling_lotlip.evaluation.statistics import TextLengths, count_tokens, load_tokenizer, measure_texts, summarize
from tests.conftest import WORDS


@pytest.fixture
def vocab_dir(tmp_path) -> Path:
    folder = tmp_path / "bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", '"', "'", "##s", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return folder


def test_batches_change_nothing(monkeypatch, vocab_dir):
    rows = Dataset.from_dict({"long_captions": [["a boat. " * n, "sand"] for n in range(1, 8)]})
    reader = RowReader(rows.column_names, CaptionArguments())
    measured = []
    for size in (1, 3, 1000):
        monkeypatch.setattr(statistics, "ROWS_PER_BATCH", size)
        measured.append(measure_texts(rows, reader, load_tokenizer(str(vocab_dir))))
    assert measured[0] == measured[1] == measured[2]
    assert measured[0].keys() == {"long"} and measured[0]["long"].num_images == 7
    assert measured[0]["long"].tokens[:4] == [3, 1, 6, 1] and measured[0]["long"].sub_captions[:4] == [1, 1, 2, 1]


def test_nothing_to_measure(vocab_dir):
    rows = Dataset.from_dict({"caption": [None, " "]})
    with pytest.raises(ValueError, match="No image has a caption"):
        measure_texts(rows, RowReader(rows.column_names, CaptionArguments()), load_tokenizer(str(vocab_dir)))


def test_lotlip_tokenizer_counts_as_bert_does(tmp_path, vocab_dir):
    bert = BertTokenizer.from_pretrained(vocab_dir)
    LotlipTokenizer(vocab=bert.get_vocab()).save_pretrained(tmp_path / "lotlip")
    # curly quotes, an entity and a separator, all of which LoTLIP's would change
    texts = ["“a boat”. the sea &amp; sand.\u00a0 it’s blue… ", "a [SEP] b", "A Boat CARS", "a photo " * 200]
    counts = [count_tokens(load_tokenizer(str(folder)), texts) for folder in (tmp_path / "lotlip", vocab_dir)]
    assert counts[0] == counts[1] == [len(bert.tokenize(text)) for text in texts]
    assert counts[0][2] == 4  # of lower-case words


def test_a_limit_is_not_beyond_itself():
    results = summarize(TextLengths(num_images=3, sub_captions=[1, 2, 3, 6], tokens=[77, 78, 256, 257]))
    assert results["share_beyond"] == {"77": 0.75, "128": 0.5, "192": 0.5, "256": 0.25}
    assert (results["num_images"], results["num_texts"], results["max_tokens"]) == (3, 4, 257)
    assert (results["sub_captions_per_text"], results["tokens_per_text"]) == (3, 167)
