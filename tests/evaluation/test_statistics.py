"""How long texts are, and the data table of the paper."""

import hashlib
import json

import pandas as pd
import PIL.Image
import pytest
from datasets import Dataset
from transformers import BertConfig, BertTokenizer

import lotlip
from modeling_lotlip import LotlipTokenizer
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.evaluation import statistics
from modeling_lotlip.evaluation.statistics import (
    TextLengths,
    count_tokens,
    load_tokenizer,
    measure_texts,
    summarize_lengths,
)
from modeling_lotlip.utils.sub_captions import mark_sub_captions
from tests.helpers.commands import read_error
from tests.helpers.data_files import write_lines


def test_batches_change_nothing(monkeypatch, vocab_dir):
    rows = Dataset.from_dict({"long_captions": [["a boat. " * n, "sand"] for n in range(1, 8)]})
    reader = RowReader(rows.column_names, CaptionArguments())
    measured = []
    for size in (1, 3, 1000):
        monkeypatch.setattr(statistics, "ROWS_PER_BATCH", size)
        measured.append(measure_texts(rows, reader, load_tokenizer(str(vocab_dir))))
    assert measured[0] == measured[1] == measured[2]
    assert measured[0].keys() == {"long"}
    assert measured[0]["long"].num_images == 7
    assert measured[0]["long"].tokens[:4] == [3, 1, 6, 1]
    assert measured[0]["long"].sub_captions[:4] == [1, 1, 2, 1]


def test_the_format_of_a_dataset_changes_no_length(vocab_dir):
    rows = Dataset.from_dict({"caption": ["a boat", "sand"], "long_captions": [["a boat."], ["a car. sand."]]})
    reader = RowReader(rows.column_names, CaptionArguments())
    tokenizer = load_tokenizer(str(vocab_dir))
    formatted = rows.with_format("numpy", columns=["long_captions"])
    assert measure_texts(formatted, reader, tokenizer) == measure_texts(rows, reader, tokenizer)


def test_data_without_captions_are_refused(vocab_dir):
    rows = Dataset.from_dict({"caption": [None, " "]})
    reader = RowReader(rows.column_names, CaptionArguments())
    with pytest.raises(ValueError, match="No image has a caption"):
        measure_texts(rows, reader, load_tokenizer(str(vocab_dir)))


def test_lotlip_tokenizer_counts_as_bert_does(tmp_path, vocab_dir):
    bert = BertTokenizer.from_pretrained(vocab_dir)
    LotlipTokenizer(vocab=bert.get_vocab()).save_pretrained(tmp_path / "lotlip")
    # curly quotes, an entity and a separator, all of which LoTLIP's would change
    texts = [
        "“a boat”. the sea &amp; sand.\u00a0 it’s blue… ",
        "a [SEP] b",
        "A Boat CARS",
        "a photo " * 200,
    ]
    expected = [len(bert.tokenize(text)) for text in texts]
    assert expected[2] == 4  # of lower-case words
    for folder in (tmp_path / "lotlip", vocab_dir):
        assert count_tokens(load_tokenizer(str(folder)), texts) == expected


def test_a_limit_is_not_beyond_itself():
    results = summarize_lengths(TextLengths(num_images=3, sub_captions=[1, 2, 3, 6], tokens=[77, 78, 256, 257]))
    assert results["share_beyond"] == {"77": 0.75, "128": 0.5, "192": 0.5, "256": 0.25}
    assert (results["num_images"], results["num_texts"], results["max_tokens"]) == (3, 4, 257)
    assert (results["sub_captions_per_text"], results["tokens_per_text"]) == (3, 167)


@pytest.mark.parametrize(
    "text",
    ["boat " * 124, "boat " * 125, "a boat. " * 41, "a boat. " * 42, "boat " * 128],
    ids=["fits", "one too many", "sub-captions fit", "sub-captions do not", "of the paper's limit"],
)
def test_what_the_model_truncates_is_counted(vocab_dir, text):
    """`[CLS]`, `[SEP]` and two corner tokens leave 124 of 128 positions, and a `[SEP]` is behind each sub-caption."""
    rows = Dataset.from_dict({"long_captions": [text]})
    reader = RowReader(rows.column_names, CaptionArguments())
    measured = measure_texts(rows, reader, load_tokenizer(str(vocab_dir)))
    tokenizer = LotlipTokenizer(vocab=BertTokenizer.from_pretrained(vocab_dir).get_vocab())
    (ids,) = tokenizer([mark_sub_captions(text)], truncation=False)["input_ids"]
    expected = float(len(ids) > tokenizer.model_max_length)
    assert summarize_lengths(measured["long"])["fraction_truncated"]["128"] == expected


def test_clip_has_no_corner_tokens():
    lengths = TextLengths(3, [1] * 3, [75] * 3, read_tokens=[77, 78, 127], num_corner_tokens=2)
    assert summarize_lengths(lengths)["fraction_truncated"] == {"77": 2 / 3, "128": 1 / 3, "192": 0, "256": 0}


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command; returns the content of its JSON file."""

    def run(*arguments) -> dict:
        output = tmp_path / "out" / "statistics.json"
        status = lotlip.main(["statistics", *map(str, arguments), "--output_file", str(output)])
        assert status == 0
        return json.loads(output.read_text())

    return run


def test_statistics_are_those_that_are_counted_by_hand(run, tmp_path, vocab_dir, capsys):
    texts = [
        "a red boat. the sea is blue.\nsand</s> ... cars",  # 4 sub-captions; </s> and 3 stops are 7 pieces
        "a photo of " * 100,  # longer than any model takes
        "sand",
    ]
    folder = tmp_path / "iiw"
    (folder / "IIW-400").mkdir(parents=True)
    lines = [json.dumps({"image": f"{number}.jpg", "IIW": text}) for number, text in enumerate(texts)]
    (folder / "IIW-400" / "data.jsonl").write_text("\n".join(lines))
    source = ["--benchmark", "iiw", "--data_dir", folder, "--allow_partial", "--text_only"]
    arguments = [*source, "--tokenizer_path", vocab_dir]
    results = run(*arguments)
    num_tokens = [len("a red boat . the sea is blue . sand < / s > . . . car ##s".split()), 300, 1]
    assert results["num_images"] == results["num_texts"] == 3
    assert results["published_num_images"] == results["published_num_texts"] == 612
    assert results["sub_captions_per_text"] == pytest.approx((4 + 1 + 1) / 3)
    assert results["tokens_per_text"] == pytest.approx(sum(num_tokens) / 3)
    third = pytest.approx(1 / 3)
    assert results["share_beyond"] == {"77": third, "128": third, "192": third, "256": third}
    assert results["captions"] == "long"
    table = capsys.readouterr().out.splitlines()
    assert table[0] == (
        "| data | captions | images | texts | sub-captions per text | tokens per text | > 77 tokens | > 128 tokens | "
        "> 192 tokens | > 256 tokens | truncated at 77 | truncated at 128 | truncated at 192 | truncated at 256 |"
    )
    mean = sum(num_tokens) / 3
    assert table[2] == f"| iiw | long | 3 | 3 | 2.00 | {mean:.2f} |" + " 33.3 % |" * 8
    of_the_first = run(*arguments, "--max_eval_samples", 1)
    assert of_the_first["tokens_per_text"] == num_tokens[0]


def test_both_kinds_of_captions_and_images_without(run, tmp_path, vocab_dir, capsys):
    rows = [
        {"caption": ["a boat", "a red boat"], "long_captions": ["the sea is blue. sand."]},
        {"caption": ["a car"], "long_captions": None},
        {"caption": None, "long_captions": ["  ", " . . "]},
    ]
    write_lines(tmp_path / "rows.jsonl", rows)
    data = ["--dataset_name", "json", "--data_files", tmp_path / "rows.jsonl", "--eval_split", "train"]
    data += ["--tokenizer_path", vocab_dir]
    for streaming in ([], ["--streaming"]):
        results = run(*data, *streaming)
        assert (results["num_images"], results["num_texts"]) == (1, 1)
        assert (results["sub_captions_per_text"], results["tokens_per_text"]) == (2, 7)
        short = results["short"]
        assert (short["num_images"], short["num_texts"]) == (2, 3)
        assert short["tokens_per_text"] == pytest.approx(7 / 3)
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split(" | ")[1:4] for line in lines] == [["long", "1", "1"], ["short", "2", "3"]]


@pytest.mark.parametrize("streaming", [[], ["--streaming"]], ids=["rows", "stream"])
def test_a_list_of_rows_in_json_is_measured_as_a_stream_too(run, tmp_path, vocab_dir, streaming):
    rows = [{"image": f"{name}.png", "long_captions": ["a boat."]} for name in "ab"]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = ["--dataset_name", tmp_path / "rows.json", "--eval_split", "train", "--tokenizer_path", vocab_dir]
    assert run(*data, *streaming)["num_images"] == 2


@pytest.mark.parametrize("streaming", [[], ["--streaming"]], ids=["rows", "stream"])
def test_captions_and_images_without_each_other_are_counted_and_named(run, tmp_path, vocab_dir, caplog, streaming):
    """Where there is no stream, captions of no image are, too."""
    rows = [{"id": "1", "caption": "a boat"}, {"id": "2", "caption": "a car"}]
    captions = [{"key": key, "caption": "the sea is blue. sand."} for key in ("2", "3", "4")]
    for name, lines in (("rows", rows), ("long", captions)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = ["--dataset_name", "json", "--data_files", tmp_path / "rows.jsonl", "--eval_split", "train", *streaming]
    files = ["--caption_files", tmp_path / "long.jsonl", "--key_column", "id"]
    results = run(*data, *files, "--tokenizer_path", vocab_dir)
    assert (results["num_images"], results["num_texts"]) == (1, 1)
    assert "Of 2 images 1 have no captions in `--caption_files` (such as '1')." in caplog.text
    unused = "2 of 3 rows of `--caption_files` belong to none of the 2 images (such as '3', '4')."
    assert (unused in caplog.text) == (streaming == [])


def test_rows_with_the_image_of_another_row_are_counted_and_named(run, tmp_path, vocab_dir, caplog):
    lines = ["image,caption", "0.jpg,a boat", "0.jpg,a red boat", "1.jpg,a car"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    results = run("--dataset_name", tmp_path / "rows.csv", "--eval_split", "train", "--tokenizer_path", vocab_dir)
    assert results["num_images"] == 3
    assert "1 of 3 rows have the image of another row, and each counts as an image." in caplog.text


def test_one_bad_cell_leaves_out_no_other_captions_of_its_row(run, tmp_path, vocab_dir, caplog):
    rows = [
        {"id": "1", "caption": "['a car', 'a boat']", "long_captions": "the sea. sand."},
        {"id": "2", "caption": "a boat", "long_captions": "['the sea. sand.']"},
    ]
    captions = [{"key": key, "caption": "the sea is blue. sand."} for key in ("1", "2")]
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    write_lines(tmp_path / "long.jsonl", captions)
    files = ["--caption_files", tmp_path / "long.jsonl", "--key_column", "id"]
    data = ["--dataset_name", tmp_path / "rows.csv", "--eval_split", "train"]
    results = run(*data, *files, "--tokenizer_path", vocab_dir)
    assert results["num_texts"] == 3
    assert results["short"]["num_texts"] == 1
    assert caplog.text.count("The captions of row") == 2


def test_hashed_images_are_found_beside_the_file(run, tmp_path, vocab_dir, caplog):
    (tmp_path / "data").mkdir()
    PIL.Image.new("RGB", (3, 2)).save(tmp_path / "data" / "a.png")
    write_lines(tmp_path / "data" / "rows.jsonl", [{"image": "a.png", "caption": "a boat"}])
    sha256 = hashlib.sha256((tmp_path / "data" / "a.png").read_bytes()).hexdigest()
    write_lines(tmp_path / "long.jsonl", [{"key": sha256, "caption": "the sea is blue. sand."}])
    data = ["--dataset_name", tmp_path / "data" / "rows.jsonl", "--eval_split", "train"]
    files = ["--caption_files", tmp_path / "long.jsonl", "--key_column", "image"]
    results = run(*data, *files, "--tokenizer_path", vocab_dir)
    assert results["num_texts"] == 1
    assert "have no captions in" not in caplog.text


def test_caption_files_of_other_images_are_refused(tmp_path, vocab_dir, capsys):
    (tmp_path / "rows.jsonl").write_text('{"id": "1", "caption": "a boat"}\n')
    (tmp_path / "long.jsonl").write_text('{"key": "2", "caption": "a boat"}\n')
    data = ["--dataset_name", "json", "--data_files", tmp_path / "rows.jsonl", "--eval_split", "train"]
    files = ["--caption_files", tmp_path / "long.jsonl", "--key_column", "id", "--tokenizer_path", vocab_dir]
    error = read_error(capsys, "statistics", *data, *files, "--streaming")
    assert "Of 1 images 1 have no captions in `--caption_files` (such as '1'). Name the right `--key_column`" in error


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)  # of which transformers makes a tokenizer that knows no word
    with pytest.raises(ValueError, match=f"`--tokenizer_path {tmp_path}` cannot be used"):
        load_tokenizer(str(tmp_path))
