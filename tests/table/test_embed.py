import hashlib
import json
import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value

import lotlip
from modeling_lotlip import DualEncoder, LotlipModel, LotlipProcessor
from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.encoder.arguments import KINDS, StoreArguments
from modeling_lotlip.encoder.batches import Batch, sort_texts
from modeling_lotlip.encoder.preprocessing import Preprocessing
from modeling_lotlip.table import embed as module
from modeling_lotlip.table.embed import describe_missing, embed_background, embed_to_table
from modeling_lotlip.table.storage import EmbeddingTable
from tests.conftest import SERVER, WORDS, run_together
from tests.helpers.commands import read_error, to_argv
from tests.helpers.data_files import write_images, write_lines
from tests.helpers.images import NO_IMAGE, refuse_to_open, replace_values, save_images
from tests.reliability.commands import run_quietly


NUM_ROWS = 23


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """Rows with names, up to three short captions, some blank, and up to two long ones of very different lengths."""
    generator = random.Random(0)

    def text(longest: int) -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(1, longest)))

    rows = []
    for number, scene in enumerate(load_scenes(NUM_ROWS, seed=4)):
        long = [f"{text(9)}. {text(30)}.\n{text(9)}" for _ in range(number % 3)]
        short = [text(5), None, text(5), " "][: number % 5]
        name = f"name {(7 * number) % NUM_ROWS}"
        rows.append({"image": scene["image"], "caption": short, "long_captions": long, "name": name})
    texts = List(Value("string"))
    features = Features(image=Image(), caption=texts, long_captions=texts, name=Value("string"))
    folder = tmp_path_factory.mktemp("data")
    Dataset.from_list(rows, features=features).save_to_disk(folder)
    return folder


@pytest.fixture
def embed(model_dir, data_dir, tmp_path):
    """Runs the command in this process, and returns its output folder."""

    def run(name: str, *options: object) -> Path:
        status = lotlip.main(arguments(model_dir, data_dir, tmp_path / name, *options))
        assert status == 0
        return tmp_path / name

    return run


@pytest.fixture
def refuse(model_dir, data_dir, tmp_path, capsys):
    """Runs the command, which refuses it, and returns what it says."""
    return lambda name, *options: read_error(capsys, *arguments(model_dir, data_dir, tmp_path / name, *options))


def arguments(model_dir: Path, data_dir: Path, output_dir: Path, *options: object) -> list[str]:
    argv = to_argv(
        "embed",
        model_name_or_path=model_dir,
        dataset_name=data_dir,
        output_dir=output_dir,
        device="cpu",
        batch_size=3,
        tokens_per_batch=64,
        dataloader_num_workers=0,
    )
    return [*argv, *map(str, options)]


def read(folder: Path) -> list[dict]:
    """The embeddings of a table, in the order of the data."""
    columns = ["row", "key", "kind", "position", "truncated", "embedding"]
    rows = []
    for part in EmbeddingTable(folder).read(columns):
        rows += part.to_pylist()
    return sorted(rows, key=lambda row: (row["row"], KINDS.index(row["kind"]), row["position"]))


def keys(rows: list[dict]) -> list[tuple]:
    return [(row["key"], row["kind"], row["position"], row["truncated"]) for row in rows]


def assert_same(rows: list[dict], expected: list[dict], atol: float = 1e-5) -> None:
    assert keys(rows) == keys(expected)
    embeds = torch.tensor([row["embedding"] for row in rows])
    expected_embeds = torch.tensor([row["embedding"] for row in expected])
    torch.testing.assert_close(embeds, expected_embeds, rtol=0, atol=atol)


def without_images(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["kind"] != "image"]


@pytest.fixture(scope="module")
def expected(model_dir, data_dir) -> list[dict]:
    """The embeddings one by one, in the order of the data."""
    model = LotlipModel.from_pretrained(model_dir).eval()
    processor = LotlipProcessor.from_pretrained(model_dir)
    rows = []

    def add(number: int, kind: str, index: int, features: torch.Tensor, truncated: bool) -> None:
        embedding = (features / features.norm()).tolist()
        row = {"row": number, "key": str(number), "kind": kind, "position": index}
        rows.append({**row, "truncated": truncated, "embedding": embedding})

    with torch.no_grad():
        for number, row in enumerate(Dataset.load_from_disk(data_dir)):
            pixel_values = processor.image_processor(row["image"], return_tensors="pt")["pixel_values"]
            add(number, "image", 0, model.get_image_features(pixel_values).pooler_output[0], False)
            for kind, column in (("short", "caption"), ("long", "long_captions")):
                for index, text in enumerate(row[column]):
                    if text is None or not text.strip():
                        continue
                    text = text.replace(".\n", ". ")
                    ids = processor.tokenizer(text, truncation=False, return_tensors="pt")["input_ids"]
                    is_cut = ids.shape[1] > 30
                    if is_cut:  # the last token is the one that ends a text
                        ids = torch.cat([ids[:, :29], ids[:, -1:]], dim=1)
                    add(number, kind, index, model.get_text_features(ids).pooler_output[0], is_cut)
    return rows


@pytest.mark.parametrize("only", [None, "texts"])
def test_the_format_of_a_dataset_changes_no_key_and_no_caption(encoder, tmp_path, only):
    dataset = load_scenes(3, seed=1).add_column("id", [7, 8, 9])
    formatted = dataset.with_format("torch", columns=["image", "id"])
    store = StoreArguments(tmp_path / "formatted", key_column="id", only=only)
    embed_to_table(encoder, formatted, store)
    embed_to_table(encoder, dataset, replace(store, output_dir=tmp_path / "plain"))
    assert_same(read(tmp_path / "formatted"), read(tmp_path / "plain"))


@pytest.mark.processes
@pytest.mark.parametrize("options", [(), ("--dataloader_num_workers", 2, "--batch_size", 64, "--tokens_per_batch", 1)])
def test_embeddings_equal_those_one_by_one(embed, expected, options, capsys):
    folder = embed("out", "--max_length", 30, *options)
    rows = read(folder)
    assert_same(rows, expected)
    num_truncated = sum(row["truncated"] for row in expected)
    assert 0 < num_truncated < len(expected)
    assert f"{num_truncated} captions were truncated" in capsys.readouterr().out
    assert not list(folder.glob("*-partial"))
    assert EmbeddingTable(folder).notes["num_rows"] == NUM_ROWS
    with EmbeddingTable(folder).writing():  # a later run with nothing to do, which Ctrl-C may end
        assert describe_missing(EmbeddingTable(folder)) == []


def test_captions_of_unknown_words_are_counted(embed, tmp_path, caplog):
    scenes = load_scenes(7, seed=1).select_columns("image")
    scenes.add_column("caption", ["Ένα καράβι", *["a boat"] * 6]).save_to_disk(tmp_path / "scenes")
    embed("out", "--dataset_name", tmp_path / "scenes")
    assert "1 of 7 texts hold only words that the tokenizer of" in caplog.text


def test_keys_kinds_and_storage(embed, expected, data_dir):
    names = Dataset.load_from_disk(data_dir)["name"]
    options = ("--key_column", "name", "--storage_dtype", "float16", "--only", "texts")
    folder = embed("out", "--max_length", 30, *options)
    texts = [{**row, "key": names[row["row"]]} for row in without_images(expected)]
    assert_same(read(folder), texts, atol=1e-3)
    stored_type = EmbeddingTable(folder).table.schema.field("embedding").type
    assert str(stored_type).startswith("fixed_size_list<item: half")
    images = [row for row in expected if row["kind"] == "image"]
    assert_same(read(embed("images", "--only", "images")), images)


@pytest.mark.parametrize("streaming", [(), ("--streaming",)])
def test_images_and_texts_alone_have_the_same_hashes_as_keys(embed, tmp_path, streaming):
    """Also where the rows have paths, and a run of texts would take these for the keys."""
    photos = save_images(tmp_path / "photos", load_scenes(3, seed=4)["image"])
    rows = [{"photo": str(photos / f"{number}.png"), "caption": "a boat"} for number in range(3)]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    options = ("--dataset_name", "json", "--data_files", file, "--eval_split", "train", *streaming)
    options += ("--image_column", "photo", "--key_column", "photo")
    expected = [hashlib.sha256((photos / f"{number}.png").read_bytes()).hexdigest() for number in range(3)]
    for only in ("images", "texts"):
        folder = embed(only, *options, "--only", only)
        assert [row["key"] for row in read(folder)] == expected


@pytest.mark.parametrize("streaming", [(), ("--streaming",)])
def test_a_key_that_two_rows_have_is_refused(refuse, data_dir, tmp_path, streaming):
    rows = Dataset.load_from_disk(data_dir)
    names = list(rows["name"])
    names[4] = "same"
    names[17] = "same"
    file = tmp_path / "rows.parquet"
    rows.remove_columns("name").add_column("name", names).to_parquet(file)
    source = ("--dataset_name", "parquet", "--data_files", file, "--eval_split", "train")
    message = refuse("out", *source, *streaming, "--key_column", "name")
    assert "`--key_column name` must be different in all rows: rows 4 and 17 have 'same'." in message


def test_images_that_several_rows_name_are_known_by_indices(embed, refuse, tmp_path, caplog):
    """But for a stream, of which it is not known before its end."""
    folder = tmp_path / "photos"
    save_images(folder, load_scenes(2, seed=4)["image"])
    rows = [{"file_name": name, "caption": "a boat"} for name in ("0.png", "1.png", "0.png")]
    write_lines(folder / "metadata.jsonl", rows)
    source = ("--dataset_name", folder, "--eval_split", "train", "--only", "images")
    assert [row["key"] for row in read(embed("rows", *source))] == ["0", "1", "2"]
    assert "3 rows name 2 images, and so the keys are the indices of the rows" in caplog.text
    message = refuse("stream", *source, "--streaming")
    assert "`--key_column file_name` must be different in all rows: rows 0 and 2 have '0.png'" in message


def test_two_images_with_one_hash_as_key_are_refused(refuse, tmp_path):
    same = save_images(tmp_path / "same", [PIL.Image.new("RGB", (8, 8), "red")] * 2)
    rows = [{"image": str(same / name), "caption": "a boat"} for name in ("0.png", "1.png")]
    saved = Dataset.from_list(rows).cast_column("image", Image())
    saved.save_to_disk(tmp_path / "saved")
    source = ("--dataset_name", tmp_path / "saved", "--eval_split", "train", "--key_column", "image")
    assert "must be different in all rows: rows 0 and 1 have" in refuse("out", *source)


def test_a_stream_of_all_splits_is_known_by_its_files(tmp_path):
    file = write_lines(tmp_path / "train.jsonl", [{"image": "a.png", "caption": "a boat"}])
    write_lines(tmp_path / "test.jsonl", [{"image": "b.png", "caption": "a boat"}])
    source = SourceArguments(str(tmp_path), streaming=True)
    before = {split: module.hash_files(source, split) for split in ("all", "train", "test")}
    write_lines(Path(file), [{"image": "a.png", "caption": "another boat"}])
    after = {split: module.hash_files(source, split) for split in ("all", "train", "test")}
    assert before["all"] != after["all"]
    assert before["train"] != after["train"]
    assert before["test"] == after["test"]


def test_a_stream_gives_the_table_of_a_dataset_and_mixes_none(embed, refuse, expected, data_dir, tmp_path):
    file = tmp_path / "streamed" / "test.parquet"
    file.parent.mkdir()
    rows = Dataset.load_from_disk(data_dir)
    rows.to_parquet(file)
    source = ("--dataset_name", "parquet", "--data_files", file, "--streaming", "--eval_split", "train")
    folder = embed("out", "--max_length", 30, *source)
    assert_same(read(folder), expected)
    rows.select(range(1, NUM_ROWS)).to_parquet(file)
    message = refuse("out", "--max_length", 30, *source)
    assert "The data have changed" in message
    assert_same(read(folder), expected)


def test_a_stream_that_nothing_names_is_warned_of(encoder, tmp_path, caplog):
    store = StoreArguments(output_dir=tmp_path / "out", only="texts")
    for texts in (["a boat"], ["a car", "a house"]):
        stream = Dataset.from_list([{"caption": text} for text in texts]).to_iterable_dataset()
        assert "Nothing says" not in caplog.text
        table = embed_to_table(encoder, stream, store)
    assert f"Nothing says whether this stream has the rows that {table.folder} holds" in caplog.text


def test_an_image_file_of_a_stream_that_was_replaced_is_named(embed, refuse, tmp_path):
    photos = save_images(tmp_path / "photos", [scene["image"] for scene in load_scenes(3, seed=4)])
    one = photos / "0.png"
    lines = [{"image": str(one), "caption": "a boat"}, {"image": str(photos / "1.png"), "caption": "a car"}]
    source = ("--dataset_name", write_lines(tmp_path / "rows.jsonl", lines), "--eval_split", "train", "--streaming")
    folder = embed("out", *source)
    before = read(folder)
    os.utime(one, (0, 0))  # its content is that of before
    embed("out", *source)
    assert_same(read(folder), before)
    shutil.copy(photos / "2.png", one)
    message = refuse("out", *source)
    assert f"The data have changed since {folder} was made, as {one}: name another folder" in message


@pytest.mark.parametrize("only", [(), ("--only", "texts")])
def test_a_folder_of_pictures_is_known_by_its_files(embed, tmp_path, monkeypatch, only):
    """Each embedding has the path of its picture in the folder, however the folder is named."""
    names = ["a/one.png", "a/two.png", "b/c/one.png", "three.png"]
    write_images(tmp_path / "pictures", names)
    metadata = [{"file_name": name, "caption": "a boat"} for name in reversed(names)]
    write_lines(tmp_path / "pictures" / "metadata.jsonl", metadata)
    monkeypatch.chdir(tmp_path)
    expected = {(name, "short") for name in names}
    if not only:
        expected |= {(name, "image") for name in names}
    by_files = ("imagefolder", "--data_files", "pictures/**", "--key_column", "file_name")
    for out, source in (
        ("one", ("pictures",)),
        ("two", ("imagefolder", "--data_dir", tmp_path / "pictures")),
        ("three", by_files),
    ):
        folder = embed(out, "--dataset_name", *source, "--eval_split", "train", *only)
        found = {(row["key"], row["kind"]) for row in read(folder)}
        assert found == expected, source


@pytest.mark.processes
def test_two_processes_equal_one(expected, model_dir, data_dir, tmp_path):
    argv = arguments(model_dir, data_dir, tmp_path / "two", "--max_length", 30)
    log = run_together(tmp_path / "log", 2, argv)
    assert log.count("holds 23 images") == 1
    assert_same(read(tmp_path / "two"), expected)


def run_and_kill(argv: list[str]) -> None:
    module.GROUP_SIZE = 4
    module.WRITE_SIZE = 1
    written = []
    append = EmbeddingTable.append

    def append_and_kill(self, rows):
        append(self, rows)
        written.append(rows)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    EmbeddingTable.append = append_and_kill
    lotlip.main(argv)


@pytest.mark.processes
def test_a_killed_run_goes_on(expected, embed, model_dir, data_dir, tmp_path):
    """Killed after the second of several writes: these rows stay as they are, and the others follow."""
    argv = arguments(model_dir, data_dir, tmp_path / "killed", "--max_length", 30)
    killed = SERVER.Process(target=run_quietly, args=(tmp_path / "log", argv, False, run_and_kill))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
    survivors = read(tmp_path / "killed")
    assert_same(survivors, [row for row in expected if row["row"] < 8])
    assert len(describe_missing(EmbeddingTable(tmp_path / "killed"))) == 1
    embed("killed", "--max_length", 30)
    rows = read(tmp_path / "killed")
    assert_same(rows, expected)
    assert rows[: len(survivors)] == survivors
    assert describe_missing(EmbeddingTable(tmp_path / "killed")) == []


def test_the_texts_that_a_table_is_measured_by_are_none_of_the_user(encoder, caplog):
    embed_background(DualEncoder(encoder.model, encoder.processor, max_length=4))
    assert "truncated" not in caplog.text


def test_a_table_is_measured_by_whole_texts_whatever_the_limit_of_the_run_is(encoder):
    short = embed_background(DualEncoder(encoder.model, encoder.processor, max_length=4))
    torch.testing.assert_close(short, embed_background(encoder))


def test_refuses_to_mix_settings(embed, refuse, model_dir, data_dir, tmp_path):
    folder = embed("out", "--only", "images")
    assert "kinds = ['image'], this run has ['image', 'short', 'long']" in refuse("out")
    assert "must end in .parquet or .npz" in refuse("out", "--output_file", "vectors.csv")
    before = read(folder)
    embed("out", "--only", "images", "--tokens_per_batch", 32)  # changes nothing that is computed

    # the same model in another folder, then other settings, weights and rows behind the same names
    other = tmp_path / "other"
    model = LotlipModel.from_pretrained(model_dir)
    processor = LotlipProcessor.from_pretrained(model_dir)
    processor.save_pretrained(other)
    model.save_pretrained(other)
    of_other = ("--only", "images", "--model_name_or_path", other)
    embed("out", *of_other)
    processor.tokenizer.model_max_length -= 1
    processor.save_pretrained(other)
    assert "max_length = 126, this run has 125" in refuse("out", *of_other)
    processor.tokenizer.model_max_length += 1
    processor.save_pretrained(other)
    with torch.no_grad():
        model.text_projection.weight[0, 0] += 1e-3
    model.save_pretrained(other)
    assert "with weights = " in refuse("out", *of_other)
    Dataset.load_from_disk(data_dir).select(range(1, NUM_ROWS)).save_to_disk(tmp_path / "less")
    message = refuse("out", "--only", "images", "--dataset_name", tmp_path / "less")
    assert f"with dataset_name = '{data_dir}', this run has '{tmp_path / 'less'}'" in message
    assert read(folder) == before


def test_bad_images_are_left_out_and_named_and_their_captions_kept(
    embed, expected, data_dir, tmp_path, caplog, capsys
):
    bad = {row: {"image": None} for row in (2, 8, 9, 10, 11)}  # 8 to 11: all of a file
    bad[5] = {"image": NO_IMAGE}
    replace_values(Dataset.load_from_disk(data_dir), bad).save_to_disk(tmp_path / "damaged")
    options = ("--max_length", 30, "--dataset_name", tmp_path / "damaged")
    folder = embed("out", *options)
    kept = [row for row in expected if row["kind"] != "image" or row["row"] not in bad]
    assert_same(read(folder), kept)
    assert "The image of row 2" in caplog.text
    assert "The image of torn.png" in caplog.text
    said = capsys.readouterr()
    assert "6 images could not be read" in said.out
    assert "Embedding" in said.err
    # a run that has nothing left to do counts them too
    before = sorted(path.name for path in folder.rglob("data/*.lance"))
    embed("out", *options)
    said = capsys.readouterr()
    assert "6 images could not be read" in said.out
    assert "Embedding" not in said.err
    assert before == sorted(path.name for path in folder.rglob("data/*.lance"))
    # texts alone need no images
    texts = embed("texts", *options, "--only", "texts")
    assert_same(read(texts), without_images(expected))


def test_an_image_that_could_not_be_opened_is_tried_again(embed, tmp_path):
    """By the same command, with its captions, which were kept meanwhile."""
    photos = save_images(tmp_path / "photos", load_scenes(3, seed=4)["image"])
    rows = []
    for number in range(3):
        rows.append({"image": str(photos / f"{number}.png"), "caption": f"a boat {number}"})
    file = write_lines(tmp_path / "rows.jsonl", rows)
    options = ("--dataset_name", "json", "--data_files", file, "--eval_split", "train")
    with pytest.MonkeyPatch.context() as monkeypatch:
        refuse_to_open(monkeypatch, "1.png")
        folder = embed("out", *options)
    kept = [("0", "image"), ("0", "short"), ("1", "short"), ("2", "image"), ("2", "short")]
    assert [(row["key"], row["kind"]) for row in read(folder)] == kept
    assert "Permission denied" in EmbeddingTable(folder).unreadable["1"]
    embed("out", *options)
    assert EmbeddingTable(folder).unreadable == {}
    assert_same(read(folder), read(embed("whole", *options)))


@pytest.fixture
def files(tmp_path) -> tuple:
    """Rows that name three image files, as arguments."""
    photos = save_images(tmp_path / "photos", load_scenes(3, seed=4)["image"])
    rows = [{"image": str(photos / f"{number}.png"), "caption": f"a boat {number}"} for number in range(3)]
    write_lines(tmp_path / "rows.jsonl", rows)
    return "--dataset_name", tmp_path / "rows.jsonl", "--eval_split", "train"


def test_rights_and_times_of_an_image_file_are_no_change(embed, files, tmp_path):
    folder = embed("out", *files)
    before = read(folder)
    os.chmod(tmp_path / "photos/0.png", 0o600)
    os.utime(tmp_path / "photos/1.png", (0, 0))
    embed("out", *files)
    assert_same(read(folder), before)


def test_an_image_file_that_was_replaced_is_named(embed, refuse, files, tmp_path):
    embed("out", *files)
    shutil.copy(tmp_path / "photos/2.png", tmp_path / "photos/1.png")
    message = refuse("out", *files)
    assert f"The data have changed since {tmp_path / 'out'} was made, as {tmp_path / 'photos/1.png'}" in message


def test_an_image_that_a_row_has_no_more_is_a_change(embed, refuse, files, tmp_path):
    embed("out", *files)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    write_lines(tmp_path / "rows.jsonl", [rows[0] | {"image": None}, *rows[1:]])
    assert f"The data have changed since {tmp_path / 'out'} was made" in refuse("out", *files)


@pytest.mark.parametrize("form", ["saved", "parquet", "stream"])
def test_a_file_that_was_written_as_an_address_and_replaced_is_named(embed, refuse, tmp_path, form):
    photos = save_images(tmp_path / "photos", load_scenes(3, seed=4)["image"])
    images = [{"path": (photos / f"{number}.png").as_uri(), "bytes": None} for number in range(2)]
    data = Dataset.from_dict({"image": images, "caption": ["a boat", "a car"]})
    if form == "saved":
        data.cast_column("image", Image()).save_to_disk(tmp_path / "data")
    else:
        (tmp_path / "data").mkdir()
        data.to_parquet(tmp_path / "data/rows.parquet")
    options = ("--streaming",) if form == "stream" else ()
    source = ("--dataset_name", tmp_path / "data", "--eval_split", "train", *options)
    embed("out", *source)
    shutil.copy(photos / "2.png", photos / "1.png")
    message = refuse("out", *source)
    assert f"The data have changed since {tmp_path / 'out'} was made, as {photos / '1.png'}" in message


def test_an_embedded_image_file_that_is_not_there_any_more_is_named(embed, files, tmp_path, caplog):
    folder = embed("out", *files)
    before = read(folder)
    (tmp_path / "photos/1.png").unlink()
    embed("out", *files)
    assert f"1 of the image files that were embedded are not there any more, as {tmp_path}/photos/1.png" in caplog.text
    assert_same(read(folder), before)


@pytest.mark.parametrize("options", [(), ("--streaming",)])
@pytest.mark.parametrize("content", [None, b"no image"], ids=["missing", "damaged"])
def test_an_image_file_that_was_missing_or_damaged_is_tried_again_when_it_is_there(
    embed, files, tmp_path, content, options
):
    files = (*files, *options)
    expected = read(embed("whole", *files))
    path = tmp_path / "photos/1.png"
    image = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    folder = embed("out", *files)
    assert list(EmbeddingTable(folder).unreadable) == ["1"]
    path.write_bytes(image)
    embed("out", *files)
    assert EmbeddingTable(folder).unreadable == {}
    assert_same(read(folder), expected)


@pytest.mark.parametrize("options", [(), ("--streaming",)])
@pytest.mark.parametrize("has_metadata", [False, True])
def test_rights_of_an_image_in_a_folder_are_no_change(embed, tmp_path, has_metadata, options):
    photos = save_images(tmp_path / "photos", load_scenes(3, seed=4)["image"])
    source = ("--dataset_name", photos, "--eval_split", "train", "--only", "images", *options)
    if has_metadata:
        write_lines(photos / "metadata.jsonl", [{"file_name": f"{n}.png", "caption": "a boat"} for n in range(3)])
    folder = embed("out", *source)
    before = read(folder)
    os.chmod(photos / "0.png", 0o600)
    embed("out", *source)
    assert_same(read(folder), before)


def test_few_padded_tokens_are_computed(model_dir):
    processor = LotlipProcessor.from_pretrained(model_dir)
    generator = random.Random(2)
    ranges = [(8, 20), (60, 126), (21, 59), (60, 126)]
    lengths = [generator.randint(*ranges[index % 4]) for index in range(512)]
    texts = [" ".join(["red"] * (length - 2)) for length in lengths]
    padded = []
    for start in range(0, 512, 100):
        tokens = processor.tokenizer(texts[start : start + 100], padding=True, return_tensors="pt")
        padded.append(Batch(list(range(start, min(512, start + 100))), dict(tokens), "text"))
    batches = list(sort_texts(padded, Preprocessing(processor), tokens_per_batch=2048))
    entries = []
    for batch in batches:
        entries += batch.entries
    assert sorted(entries) == list(range(512))
    assert sum(batch.inputs["attention_mask"].sum() for batch in batches) == sum(lengths)
    computed = [batch.inputs["input_ids"].numel() for batch in batches]
    assert max(computed) <= 2048
    assert sum(lengths) / sum(computed) > 0.9, "more than a tenth of what is computed is padding"
    assert len(batches) < 1.3 * sum(computed) / 2048, "batches are not filled"
