"""`lotlip statistics`: the data table of the paper."""

import csv
import json
import re
from pathlib import Path

import pytest
from transformers import BertConfig

import lotlip
from tests.conftest import WORDS
from tests.helpers.commands import read_error


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command; returns the content of its JSON file."""

    def run(*arguments) -> dict:
        output = tmp_path / "out" / "statistics.json"
        assert lotlip.main(["statistics", *map(str, arguments), "--output_file", str(output)]) == 0
        return json.loads(output.read_text())

    return run


@pytest.fixture
def vocab_dir(tmp_path) -> Path:
    folder = tmp_path / "bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", '"', "'", "##s", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return folder


def test_by_hand(run, tmp_path, vocab_dir, capsys):
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
    assert "3 (images/0.jpg, images/1.jpg, images/2.jpg) of the 3 images" in read_error(
        capsys, "statistics", *arguments
    )
    results = run(*arguments, "--text_only")
    num_tokens = [len("a red boat . the sea is blue . sand < / s > . . . car ##s".split()), 300, 1]
    assert results["num_images"] == results["num_texts"] == 3
    assert results["published_num_images"] == 5000 and results["published_num_texts"] == 5000
    assert results["sub_captions_per_text"] == pytest.approx((4 + 1 + 1) / 3)
    assert results["tokens_per_text"] == pytest.approx(sum(num_tokens) / 3)
    assert results["share_beyond"] == {limit: pytest.approx(1 / 3) for limit in ("77", "128", "192", "256")}
    assert results["captions"] == "long"
    table = capsys.readouterr().out.splitlines()
    assert table[0] == (
        "| data | captions | images | texts | sub-captions per text | tokens per text | > 77 tokens | > 128 tokens | "
        "> 192 tokens | > 256 tokens |"
    )
    mean = sum(num_tokens) / 3
    assert table[2] == f"| docci | long | 3 | 3 | 2.00 | {mean:.2f} | 33.3 % | 33.3 % | 33.3 % | 33.3 % |"
    assert run(*arguments, "--text_only", "--max_eval_samples", 1)["tokens_per_text"] == num_tokens[0]


def test_both_kinds_of_captions_and_images_without(run, tmp_path, vocab_dir, capsys):
    rows = {
        "caption": [["a boat", "a red boat"], "a car", None],
        "long_captions": [["the sea is blue. sand."], None, ["  "]],
    }
    with open(tmp_path / "rows.jsonl", "w") as file:
        for caption, long_captions in zip(*rows.values()):
            captions = [caption] if isinstance(caption, str) else caption
            file.write(json.dumps({"caption": captions, "long_captions": long_captions}) + "\n")
    data = ["--dataset_name", "json", "--data_files", tmp_path / "rows.jsonl", "--eval_split", "train"]
    data += ["--tokenizer_path", vocab_dir]
    for streaming in ([], ["--streaming"]):
        results = run(*data, *streaming)
        assert (results["num_images"], results["num_texts"]) == (1, 1)
        assert (results["sub_captions_per_text"], results["tokens_per_text"]) == (2, 7)
        short = results["short"]
        assert (short["num_images"], short["num_texts"], short["tokens_per_text"]) == (2, 3, pytest.approx(7 / 3))
    for suffix in (".csv", ".md"):
        path = tmp_path / f"table{suffix}"
        assert lotlip.main(["statistics", *map(str, data), "--output_file", str(path)]) == 0
    with open(tmp_path / "table.csv", newline="") as file:
        assert [(row["captions"], row["num_texts"]) for row in csv.DictReader(file)] == [("long", "1"), ("short", "3")]
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark", "iiw"], "--benchmark needs --data_dir"),
        (["--caption_column", "a", "--long_captions_column", "b"], "Neither `--caption_column a` nor"),
    ],
)
def test_arguments_that_do_not_go_together(capsys, arguments, message):
    assert re.search(message, read_error(capsys, "statistics", *arguments))


def test_tokenizers_that_are_not_there(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    BertConfig().save_pretrained(tmp_path / "config")  # of which transformers makes a tokenizer that knows no word
    for name in ("empty", "config", "nothing"):
        path = tmp_path / name
        message = read_error(capsys, "statistics", "--max_eval_samples", 2, "--tokenizer_path", path)
        assert f"`--tokenizer_path {path}` cannot be used" in message
