"""The options of a command reach what they are for; models and data are not loaded."""

import importlib
import inspect
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from datasets import Dataset

from modeling_lotlip.data.reader import RowCounts
from modeling_lotlip.data.shards import PackCounts
from modeling_lotlip.encoder import dual_encoder
from modeling_lotlip.utils.arguments import parse
from tests.helpers.data_files import write_lines


ROWS = Dataset.from_dict(
    {"picture": ["a.png"], "caption": ["a boat"], "long_captions": ["Red."], "label": [0], "id": ["7"]}
)
ENCODER = SimpleNamespace(
    model=None,
    processor=None,
    computation=None,
    describe=lambda: {"model": "m"},
    check_single_embeddings=lambda: None,
)


# Where a command imports a function from
MODULES = {
    "data.loading": ["load_split"],
    "encoder.dual_encoder": ["load_encoder"],
    "encoder.fastest": ["hint_at_auto"],
    "evaluation.classification": ["evaluate_zero_shot", "format_classification"],
    "evaluation.retrieval": [
        "embed_dataset",
        "evaluate_retrieval",
        "format_benchmarks",
        "format_recalls",
        "load_benchmarks",
    ],
    "evaluation.sensitivity": ["flatten_results", "format_sensitivity", "measure_sensitivity"],
    "evaluation.statistics": ["format_statistics", "load_tokenizer", "measure_texts", "summarize_lengths"],
    "data.shards": ["write_shards"],
    "table.embed": ["embed_to_table", "load_named_data", "name_data", "note_model"],
    "table.export": ["export_embeddings"],
    "captioning.filter": ["filter_captions", "format_report"],
    "training.loop": ["run"],
    "utils.files": ["write_results"],
    "utils.terminal": ["print_tables"],
}


def find_module(function: str) -> ModuleType:
    """The module of a function that a command imports when it runs."""
    for name, functions in MODULES.items():
        if function in functions:
            return importlib.import_module(f"modeling_lotlip.{name}")
    raise LookupError(function)


class Recorder:
    """Stands for functions that a command calls, and keeps the arguments of their calls by name."""

    def __init__(self, monkeypatch, command: str):
        self.monkeypatch = monkeypatch
        self.module = importlib.import_module(f"modeling_lotlip.commands.{command}")
        self.calls = {}

    def replace(self, **results: object) -> None:
        """Replaces functions by ones that return these results."""
        for name, result in results.items():
            self.replace_one(name, result)

    def replace_encoder(self) -> None:
        """Has any model, which is none."""
        self.monkeypatch.setattr(dual_encoder, "check_model_is_there", lambda name: None)
        self.replace(load_encoder=ENCODER, hint_at_auto=None)

    def replace_one(self, name: str, result: object) -> None:
        module = find_module(name)
        signature = inspect.signature(getattr(module, name))

        def note(*arguments: object, **options: object) -> object:
            bound = signature.bind(*arguments, **options)
            bound.apply_defaults()
            self.calls[name] = bound.arguments
            return result

        self.monkeypatch.setattr(module, name, note)

    def run(self, *argv: str) -> None:
        """Runs the command."""
        self.module.run(*parse(self.module.ARGUMENTS, list(argv), prog="lotlip"))

    def get(self, function: str, *names: str) -> list:
        """The values of some arguments of the last call of a function."""
        return [self.calls[function][name] for name in names]


@pytest.fixture
def record(monkeypatch):
    return lambda command: Recorder(monkeypatch, command)


DATA = ["--dataset_name", "org/photos", "--max_eval_samples", "3", "--eval_split", "val"]
DATA += ["--image_column", "picture"]
MODEL = ["--model", "m", "--batch_size", "5"]
WORKERS = ["--dataloader_num_workers", "2"]
GROUPING = ("distinct_short_captions", "group_equal_captions")


def test_options_of_classify(record, tmp_path):
    recorder = record("classify")
    results = {"top1": 1.0}
    recorder.replace_encoder()
    recorder.replace(load_split=ROWS, evaluate_zero_shot=results)
    recorder.replace(format_classification="table", print_tables=None, write_results=None)
    output = str(tmp_path / "results.json")
    options = ["--class_names", "boat", "--templates", "a {}", "--output_file", output]
    recorder.run(*MODEL, *DATA, *WORKERS, *options)
    assert recorder.get("load_split", "split", "max_samples") == ["val", 3]
    names = ("class_names", "templates", "image_column", "label_column", "batch_size", "num_workers")
    assert recorder.get("evaluate_zero_shot", *names) == [["boat"], ["a {}"], "picture", "label", 5, 2]
    written = {"dataset": "org/photos", "model": "m", "templates": ["a {}"], "top1": 1.0}
    assert recorder.get("write_results", "path", "results", "table", "rows") == [
        Path(output),
        written,
        "table",
        [written],
    ]


def test_classify_refuses_a_column_of_labels_that_is_not_there(record):
    recorder = record("classify")
    recorder.replace(load_split=ROWS)
    with pytest.raises(ValueError, match="`--label_column color` is not a column of the dataset, which has"):
        recorder.run(*DATA, "--label_column", "color")


@pytest.mark.parametrize("models", [["m"], ["m", "n", "m"]])
def test_options_of_evaluate(record, tmp_path, models):
    recorder = record("evaluate")
    recorder.replace_encoder()
    recorder.replace(load_split=ROWS, evaluate_retrieval={"recall": 1.0})
    recorder.replace(format_recalls="table", print_tables=None, write_results=None)
    output = str(tmp_path / "results.json")
    options = [
        "--sub_caption_splitter",
        "sentences",
        "--caption_files",
        "a.jsonl",
        "--key_column",
        "id",
        "--output_file",
        output,
    ]
    recorder.run("--model", *models, "--batch_size", "5", *DATA, *WORKERS, *options)
    assert recorder.get("load_split", "split", "max_samples", "key_column") == ["val", 3, "id"]
    names = ("image_column", *GROUPING, "batch_size", "num_workers")
    assert recorder.get("evaluate_retrieval", *names) == ["picture", False, True, 5, 2]
    captions, files = recorder.get("evaluate_retrieval", "captions", "caption_files")
    assert captions.sub_caption_splitter == "sentences"
    assert files.key_column == "id"
    row = {"dataset": "org/photos", "model": "m", "sub_caption_splitter": "sentences", "recall": 1.0}
    results, rows = recorder.get("write_results", "results", "rows")
    assert rows == [row] * len(set(models))
    assert results == (row if len(models) == 1 else {"rows": rows})


def test_scenes_are_evaluated_with_each_short_caption_once(record):
    recorder = record("evaluate")
    recorder.replace_encoder()
    recorder.replace(load_split=ROWS, evaluate_retrieval={})
    recorder.replace(format_recalls="table", print_tables=None)
    recorder.run(*MODEL)
    assert recorder.get("evaluate_retrieval", *GROUPING) == [True, True]


def test_a_benchmark_is_evaluated_caption_by_caption(record, tmp_path):
    recorder = record("evaluate")
    recorder.replace_encoder()
    recorder.replace(load_benchmarks={"iiw": ROWS}, evaluate_retrieval={})
    recorder.replace(format_benchmarks="table", print_tables=None, write_results=None)
    output = str(tmp_path / "results.json")
    options = ["--benchmark", "iiw", "--data_dir", str(tmp_path), "--allow_partial"]
    options += ["--output_file", output]
    recorder.run(*MODEL, *options)
    assert recorder.get("load_benchmarks", "names", "data_dir", "allow_partial") == [["iiw"], str(tmp_path), True]
    assert recorder.get("evaluate_retrieval", *GROUPING) == [False, False]
    (results,) = recorder.get("write_results", "results")
    assert [row["published_num_images"] for row in results["rows"]] == [612]


def test_options_of_sensitivity(record, tmp_path):
    recorder = record("sensitivity")
    recorder.replace_encoder()
    recorder.replace(load_split=ROWS, embed_dataset="embedded")
    recorder.replace(measure_sensitivity={"num_texts": 1}, format_sensitivity="table", flatten_results=["rows"])
    recorder.replace(print_tables=None, write_results=None)
    output = str(tmp_path / "results.json")
    options = ["--num_tokens", "4", "8", "--seed", "6", "--sub_caption_splitter", "sentences"]
    captions_file = write_lines(tmp_path / "captions.jsonl", [{"key": "7", "caption": "Red."}])
    options += ["--caption_files", captions_file, "--key_column", "id"]
    recorder.run(*MODEL, *DATA, *WORKERS, *options, "--output_file", output)
    assert recorder.get("load_split", "split", "max_samples", "key_column") == ["val", 3, "id"]
    assert recorder.get("embed_dataset", "batch_size", "num_workers") == [5, 2]
    assert recorder.get("embed_dataset", "reader")[0].columns == ["caption", "long_captions", "id", "picture"]
    assert recorder.get("embed_dataset", "reader")[0].splitter == "sentences"
    assert recorder.get("measure_sensitivity", "num_tokens", "seed") == [[4, 8], 6]
    results = {"dataset": "org/photos", "seed": 6, "models": [{"model": "m", "num_texts": 1}]}
    assert recorder.get("write_results", "results", "rows") == [results, ["rows"]]


def test_options_of_statistics(record, tmp_path):
    recorder = record("statistics")
    recorder.replace(load_split=ROWS, load_tokenizer="tokenizer", print_tables=None)
    recorder.replace(measure_texts={"long": "a", "short": "b"}, summarize_lengths={"num_texts": 1})
    recorder.replace(format_statistics="table", write_results=None)
    captions_file = write_lines(tmp_path / "captions.jsonl", [{"key": "7", "caption": "Red."}])
    options = ["--tokenizer_path", "bert", "--caption_files", captions_file, "--key_column", "id"]
    options += ["--output_file", str(tmp_path / "results.json")]
    recorder.run(*DATA, *options)
    assert recorder.get("load_split", "split", "max_samples", "with_images", "key_column") == ["val", 3, False, "id"]
    assert recorder.get("load_tokenizer", "tokenizer_path") == ["bert"]
    (results,) = recorder.get("write_results", "results")
    conditions = {"tokenizer": "bert", "sub_caption_splitter": "paper"}
    assert (
        results
        == {"dataset": "org/photos", "captions": "long", "num_texts": 1, "short": {"num_texts": 1}} | conditions
    )


def test_options_of_pack(record, tmp_path):
    recorder = record("pack")
    recorder.replace(load_split=ROWS, write_shards=PackCounts(RowCounts(), 1, 0))
    options = ["--shard_size", "7", "--image_format", "png", "--key_column", "id"]
    options += ["--output_dir", str(tmp_path)]
    recorder.run("--dataset_name", "org/photos", "--max_train_samples", "3", "--train_split", "val", *options)
    assert recorder.get("load_split", "split", "max_samples", "key_column") == ["val", 3, "id"]
    names = ("output_dir", "key_column", "image_format", "shard_size")
    assert recorder.get("write_shards", *names) == [tmp_path, "id", "png", 7]


def test_options_of_embed(record, tmp_path):
    recorder = record("embed")
    table = SimpleNamespace(notes={}, counts={"image": 1, "short": 1, "long": 1, "truncated": 0, "unreadable": 0})
    recorder.replace_encoder()
    recorder.replace(name_data={"eval_split": "val"}, load_named_data=ROWS)
    recorder.replace(embed_to_table=table, note_model={"model_name_or_path": "m"}, export_embeddings=3)
    output = str(tmp_path / "embeds.npz")
    options = ["--output_dir", str(tmp_path / "out"), "--key_column", "id", "--output_file", output]
    recorder.run(*MODEL, *DATA, *options)
    assert recorder.get("name_data", "split", "max_samples") == ["val", 3]
    assert recorder.get("load_named_data", "options") == [{"with_images": True, "key_column": "id"}]
    names = ("image_column", "batch_size", "source", "notes")
    expected = ["picture", 5, {"eval_split": "val"}, {"model_name_or_path": "m"}]
    assert recorder.get("embed_to_table", *names) == expected
    assert recorder.get("export_embeddings", "path") == [Path(output)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "texts", "--image_column", "picture"], "--image_column has no effect with --only texts"),
        (["--only", "images", "--caption_column", "text"], "--caption_column has no effect with --only images"),
        (["--only", "images", "--long_captions_column", "a"], "--long_captions_column has no effect"),
        (["--only", "images", "--max_length", "9"], "--max_length has no effect with --only images"),
    ],
)
def test_embed_refuses_options_of_what_is_not_embedded(record, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        record("embed").run("--output_dir", str(tmp_path), *options)


def test_embed_fails_where_nothing_could_be_embedded(record, tmp_path):
    recorder = record("embed")
    nothing = dict.fromkeys(["image", "short", "long", "truncated", "unreadable"], 0)
    recorder.replace_encoder()
    recorder.replace(name_data={}, load_named_data=ROWS, note_model={})
    recorder.replace(embed_to_table=SimpleNamespace(notes={"num_rows": 1}, counts=nothing))
    with pytest.raises(ValueError, match="Nothing could be embedded of any row"):
        recorder.run("--output_dir", str(tmp_path))


@pytest.mark.parametrize(
    ("options", "num_unmeasured", "said"),
    [
        ([], 0, ""),
        ([], 2, "2 captions were not compared with an image, and are kept; `--reject_unmeasured` rejects them.\n"),
        (["--reject_unmeasured"], 2, "2 captions were not compared with an image, and are rejected.\n"),
    ],
)
def test_filter_says_what_was_not_compared(record, tmp_path, capsys, options, num_unmeasured, said):
    recorder = record("filter")
    report = {"a": {"num_unmeasured": num_unmeasured, "num_kept": 1}}
    recorder.replace(filter_captions=report, format_report="table", print_tables=None)
    if options:
        options = [*options, "--min_image_text_similarity", "0.1", "--dual_encoder", "m"]
    recorder.run("--captions", "a.parquet", "--output_dir", str(tmp_path), *options)
    assert capsys.readouterr().out == said


def test_filter_says_that_nothing_is_kept(record, tmp_path, capsys):
    recorder = record("filter")
    report = {"a": {"num_unmeasured": 0, "num_kept": 0}}
    recorder.replace(filter_captions=report, format_report="table", print_tables=None)
    recorder.run("--captions", "a.parquet", "--output_dir", str(tmp_path))
    assert capsys.readouterr().out == "No caption is kept: there is nothing to train on.\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--benchmark", "iiw"], "--benchmark needs --data_dir, the folder of its files, and no --dataset_name"),
        (["--benchmark", "iiw", "--data_dir", "a", "--streaming"], "--streaming has no effect on a --benchmark"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "statistics"])
def test_a_benchmark_is_read_by_every_command_as_it_is_published(record, command, options, message):
    with pytest.raises(ValueError, match=message):
        record(command).run(*options)


def test_train_trains_as_its_arguments_say(record, tmp_path, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")  # the memory of this process stays as it is
    recorder = record("train")
    recorder.replace(run=None)
    recorder.run("--output_dir", str(tmp_path), "--seed", "7")
    assert recorder.get("run", "args")[0].seed == 7


def test_sensitivity_runs_in_one_process(record, monkeypatch):
    several = SimpleNamespace(num_processes=2, is_main_process=True)
    monkeypatch.setattr("accelerate.PartialState", lambda **options: several)
    with pytest.raises(ValueError, match="`lotlip sensitivity` runs in one process"):
        record("sensitivity").run()


def test_pack_refuses_a_column_of_keys_that_is_not_there(record, tmp_path):
    recorder = record("pack")
    recorder.replace(load_split=ROWS)
    with pytest.raises(ValueError, match="`--key_column nothing` is not a column of the dataset"):
        recorder.run("--output_dir", str(tmp_path), "--key_column", "nothing")
