"""Retrieval: what is embedded, counted and ranked; numbers by hand are in tests/encoder/test_dual_encoders.py."""

import hashlib
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers.utils import logging

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.data.arguments import CaptionArguments, CaptionFileArguments
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.reader import Item, RowInfo, RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.evaluation import retrieval
from modeling_lotlip.evaluation.retrieval import (
    EmbeddedCaptions,
    EmbeddedDataset,
    EmbeddedPart,
    ImageEmbeddingCache,
    embed_dataset,
    evaluate_retrieval,
    format_benchmarks,
    format_recalls,
    join_embedded_parts,
    load_benchmarks,
    measure_retrieval,
    rank_by_tokens,
    token_similarities,
)
from modeling_lotlip.modeling_variants_lotlip import late_interaction
from tests.conftest import tiny_config
from tests.helpers.data_files import write_lines
from tests.helpers.dual_encoders import flatten
from tests.helpers.images import NO_IMAGE, replace_values


def test_distinct_short_captions_and_images_without_captions(encoder, caplog):
    short = ["a red boat", "a red boat", "a car", "", None, "a car"]
    long = ["a red. a boat", None, None, "blue. ", "a. ..", "sea"]
    dataset = load_scenes(6, seed=1).remove_columns(["caption", "long_captions"])
    dataset = dataset.add_column("caption", short).add_column("long_captions", long)
    results = evaluate_retrieval(encoder, dataset, batch_size=4, distinct_short_captions=True)
    assert (results["short_num_images"], results["long_num_images"]) == (2, 4)
    assert "2 of 6 images have no long caption" in caplog.text
    results = evaluate_retrieval(encoder, dataset, batch_size=4)
    assert (results["short_num_images"], results["short_num_captions"]) == (4, 2)
    assert "always found" not in caplog.text
    assert "whatever is found" not in caplog.text
    evaluate_retrieval(encoder, dataset.select([0, 1]), batch_size=4)
    assert "All images have the same short caption: whatever is found is right." in caplog.text
    assert "There are 4 images with long captions, and so each is among the first 10" in caplog.text
    evaluate_retrieval(encoder, dataset.select([0]), batch_size=4)
    assert "One image with long captions is always found: evaluate more than one." in caplog.text


@pytest.mark.parametrize("format_type", ["torch", "numpy", "pandas", None])
def test_the_format_of_a_dataset_changes_no_result(encoder, tmp_path, format_type):
    dataset = load_scenes(4, seed=1).add_column("id", [3, 4, 5, 6])
    rows = [{"key": key, "caption": "a red boat. the sea is blue."} for key in (4, 5)]
    files = CaptionFileArguments([write_lines(tmp_path / "captions.jsonl", rows)], key_column="id")
    formatted = dataset.with_format(format_type, columns=["image", "id"])
    found = evaluate_retrieval(encoder, formatted, caption_files=files)
    assert found == evaluate_retrieval(encoder, dataset, caption_files=files)


@pytest.mark.parametrize(
    ("empty", "message"),
    [
        ("caption", "None of 3 images has a short caption, though `--caption_column caption` is there"),
        ("long_captions", "None of 3 images has a long caption, though there is `--long_captions_column`"),
    ],
)
@pytest.mark.parametrize("value", [None, "", " "])
def test_captions_that_no_image_has_are_said_not_to_be_measured(encoder, caplog, empty, message, value):
    logging.get_logger("transformers").warning_once.cache_clear()
    dataset = load_scenes(3, seed=1).map(lambda row: {empty: value if empty == "caption" else [value]})
    evaluate_retrieval(encoder, dataset)
    evaluate_retrieval(encoder, dataset)  # as in training
    assert caplog.text.count(message) == 1


def test_captions_that_are_not_read_are_not_said_to_be_missing(encoder, caplog):
    dataset = load_scenes(3, seed=1).remove_columns("caption")
    evaluate_retrieval(encoder, dataset)
    assert "None of 3 images" not in caplog.text


def compute_hits(similarities: torch.Tensor, matches: torch.Tensor) -> torch.Tensor:
    """The probability of each row that its first is a match, where of equals, such as copies, any may come first."""
    best = torch.where(matches, similarities, -torch.inf).amax(dim=1, keepdim=True)
    is_better = (similarities > best + 1e-6).any(dim=1)
    is_equal = (similarities - best).abs() < 1e-6
    fraction = (matches & is_equal).sum(dim=1) / is_equal.sum(dim=1)
    return torch.where(is_better, 0.0, fraction)


@pytest.mark.parametrize("folder", ["model_dir", "token_wise_dir"])
def test_all_images_of_a_caption_are_right_answers(folder, request):
    """Equal captions are one text, which is found with any of its images; a benchmark's are each a text of its own."""
    folder = request.getfixturevalue(folder)
    encoder = load_encoder(str(folder), LoadingArguments(device="cpu"))
    captions = [
        ["a red boat", "sea"],
        ["a car"],
        ["a red  boat "],
        ["sand", "a red boat"],
        ["a car"],
        ["sand", "sand"],
    ]
    dataset = load_scenes(6, seed=1).remove_columns(["caption", "long_captions"])
    dataset = dataset.add_column("caption", captions)
    reader = RowReader(dataset.column_names, CaptionArguments())
    embedded = embed_dataset(encoder, dataset, reader)
    images = embedded.image_embeds
    texts = embedded.captions["short"].embeds
    if images.dim() == 3:
        i2t = late_interaction(images, texts).t()
        t2i = late_interaction(texts, images)
    else:
        t2i = i2t = texts @ images.t()

    all_texts, owners = flatten(captions)
    separate = torch.from_numpy(owners)[:, None] == torch.arange(6)
    images_of = {}
    first = {}
    for row, text in enumerate(all_texts):
        words = " ".join(text.split())
        first.setdefault(words, row)
        images_of.setdefault(words, torch.zeros(6, dtype=torch.bool))
        images_of[words] |= separate[row]
    shared = torch.stack(list(images_of.values()))
    assert shared.sum(dim=1).tolist() == [3, 1, 2, 2]
    recalls = []
    for grouped, rows, is_match, num_shared in (
        (True, list(first.values()), shared, 3),
        (False, list(range(len(owners))), separate, None),
    ):
        results = evaluate_retrieval(encoder, dataset, group_equal_captions=grouped, batch_size=4)
        assert results["short_num_captions"] == len(rows)
        assert results.get("short_num_shared_captions") == num_shared
        hits = {"t2i": compute_hits(t2i[rows], is_match), "i2t": compute_hits(i2t[rows].t(), is_match.t())}
        for direction, expected in hits.items():
            recall = results[f"short_{direction}_recall@1"]
            assert recall == pytest.approx(100 * expected.mean().item(), abs=1e-4)
            recalls.append(recall)
    assert recalls[:2] != recalls[2:]
    assert max(recalls) > 0


def test_parts_of_processes_are_joined_in_order():
    """Of streams each process numbers its rows from 0; the second one can read nothing."""

    def part(*rows: tuple[int, str, int, float], num_unreadable: int = 0) -> EmbeddedPart:
        items = []
        embeds = []
        for row, modality, index, value in rows:
            items.append(Item(RowInfo(row, row, f"label {row}"), modality, f"{value}", index))
            embeds.append(torch.tensor([[value]]))
        return EmbeddedPart(items, embeds, num_unreadable)

    first = part((1, "image", 0, 1.0), (0, "short", 1, 0.5), (0, "image", 0, 0.0), (0, "short", 0, 0.25))
    last = part((0, "long", 0, 2.5), (0, "image", 0, 2.0), num_unreadable=1)
    joined = join_embedded_parts([first, part(num_unreadable=2), last])
    assert joined.image_embeds.tolist() == [[0.0], [1.0], [2.0]]
    assert joined.num_unreadable == 3
    assert joined.labels == ["label 0", "label 1", "label 0"]
    assert joined.captions["short"].texts == ["0.25", "0.5"]
    assert joined.captions["short"].images.tolist() == [0, 0]
    assert joined.captions["long"].images.tolist() == [2]
    assert joined.captions["long"].embeds.tolist() == [[2.5]]


@pytest.mark.parametrize(
    "image_projection, dim, dtype, min_cosine",
    [
        (None, 32, "float32", 0.99999),
        (24, 24, "float32", 0.99999),
        (24, 24, "bfloat16", 0.99),
    ],
)
def test_embeddings_with_and_without_an_image_projection(
    image_projection, dim, dtype, min_cosine, model_dir, evaluation_dir, tmp_path
):
    config = tiny_config()
    config.vision_config.projection_dim = image_projection
    config.text_config.projection_dim = dim
    config.projection_dim = dim
    torch.manual_seed(0)
    model = LotlipModel(config).eval()
    processor = LotlipProcessor.from_pretrained(model_dir)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), LoadingArguments(dtype=dtype, device="cpu"))
    dataset = Dataset.load_from_disk(evaluation_dir)
    reader = RowReader(dataset.column_names, CaptionArguments())
    embedded = embed_dataset(encoder, dataset, reader, batch_size=4)
    captions = embedded.captions["short"]
    with torch.no_grad():
        pixels = processor.image_processor(list(dataset["image"]), return_tensors="pt")
        images = model.get_image_features(**pixels).pooler_output
        tokens = processor.tokenizer(captions.texts, padding=True, return_tensors="pt")
        texts = model.get_text_features(**tokens).pooler_output
    for expected, embeds in ((images, embedded.image_embeds), (texts, captions.embeds)):
        assert embeds.shape[1] == dim
        assert torch.nn.functional.cosine_similarity(expected, embeds).min() > min_cosine


@pytest.mark.parametrize("streaming", [False, True])
def test_what_goes_in_is_used_or_counted(streaming, encoder, evaluation_dir, caplog):
    """Rows are images of a gallery, unreadable, or said to be without such a caption."""
    damages = {4: {"image": NO_IMAGE}, 7: {"caption": []}}
    rows = replace_values(Dataset.load_from_disk(evaluation_dir), damages)
    damaged = rows
    if streaming:
        damaged = rows.to_iterable_dataset()
    results = evaluate_retrieval(encoder, damaged, batch_size=3, group_equal_captions=False)
    assert results["num_unreadable_images"] == 1
    readable = rows.select([row for row in range(10) if row != 4])
    for kind, column in (("short", "caption"), ("long", "long_captions")):
        missing = sum(not row[column] for row in readable)
        assert results[f"{kind}_num_images"] + missing + 1 == len(rows)
        assert f"{missing} of 9 images have no {kind} caption" in caplog.text
        assert results[f"{kind}_num_captions"] == sum(len(row[column]) for row in readable)


def test_images_in_the_cache_are_not_read_again(encoder, evaluation_dir):
    rows = replace_values(Dataset.load_from_disk(evaluation_dir), {4: {"image": NO_IMAGE}})
    reader = RowReader(rows.column_names, CaptionArguments())
    cache = ImageEmbeddingCache()
    first = embed_dataset(encoder, rows, reader, batch_size=4, image_cache=cache)
    without_images = replace_values(rows, {row: {"image": NO_IMAGE} for row in range(len(rows))})
    later = embed_dataset(encoder, without_images, reader, batch_size=4, image_cache=cache)
    assert later.num_unreadable == 1
    assert torch.equal(later.image_embeds, first.image_embeds)
    for kind, captions in first.captions.items():
        assert later.captions[kind].texts == captions.texts
        assert torch.equal(later.captions[kind].images, captions.images)
        torch.testing.assert_close(later.captions[kind].embeds, captions.embeds, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["image_embeds", "text_embeds"])
def test_tokens_that_are_not_finite_are_not_ranked(name):
    embeds = {"image_embeds": torch.ones(2, 3, 4), "text_embeds": torch.ones(2, 3, 4)}
    embeds[name][1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match=rf"`{name}\[1\]` holds NaN"):
        rank_by_tokens(text_to_image=[0, 1], **embeds)


def test_a_model_that_compares_tokens_is_embedded_token_by_token(token_wise_dir, evaluation_dir):
    """Each text as by the model alone, without the padding of its batch, and long captions as they are in training."""
    encoder = load_encoder(str(token_wise_dir), LoadingArguments(device="cpu"))
    dataset = Dataset.load_from_disk(evaluation_dir)
    reader = RowReader(dataset.column_names, CaptionArguments())
    embedded = embed_dataset(encoder, dataset, reader, batch_size=4)
    pixels = encoder.processor.image_processor(list(dataset["image"]), return_tensors="pt")
    with torch.no_grad():
        expected = encoder.model.get_image_token_embeds(**pixels)
    torch.testing.assert_close(embedded.image_embeds, expected, rtol=0, atol=1e-5)
    assert len(embedded.captions["long"].texts) > 5
    for kind, captions in embedded.captions.items():
        for text, embeds in zip(captions.texts, captions.embeds):
            if kind == "long":
                assert "\n" not in text
                assert not text.endswith(".")
            tokens = encoder.processor.tokenizer([text], return_tensors="pt")
            with torch.no_grad():
                (expected,) = encoder.model.get_text_token_embeds(**tokens)
            torch.testing.assert_close(embeds[: len(expected)], expected, rtol=0, atol=1e-5)
            assert not embeds[len(expected) :].any()


def write_captions_by_hash(path: Path, hashes: list[str]) -> CaptionFileArguments:
    """Writes a file with a long caption for each SHA-256 of an image."""
    rows = []
    for index, sha256 in enumerate(hashes):
        rows.append({"sha256": sha256, "caption": f"A boat. The sea. {index}"})
    files = [write_lines(path, rows)]
    return CaptionFileArguments(caption_files=files, file_key_column="sha256", key_column="image")


@pytest.mark.parametrize("streaming", [False, True])
def test_images_without_captions_in_caption_files_are_counted(encoder, tmp_path, caplog, streaming):
    """Also those with captions in a column, and where keys are known only when images are read."""
    logging.get_logger("transformers").warning_once.cache_clear()
    scenes = load_scenes(4, seed=1)
    content = undecoded(scenes, "image")[2]["image"]["bytes"]
    third = hashlib.sha256(content).hexdigest()
    others = ["1" * 64, "2" * 64]
    rows = scenes.to_iterable_dataset() if streaming else scenes
    captions = write_captions_by_hash(tmp_path / "some.jsonl", [third, *others])
    evaluate_retrieval(encoder, rows, caption_files=captions)
    assert "Of 4 images 3 have no captions in `--caption_files` (such as '" in caplog.text
    captions = write_captions_by_hash(tmp_path / "none.jsonl", others)
    with pytest.raises(ValueError, match="Of 4 images 4 have no captions in .* Name the right"):
        evaluate_retrieval(encoder, rows, caption_files=captions)


def test_captions_of_unknown_words_are_counted(encoder, caplog):
    dataset = load_scenes(12, seed=1).remove_columns("caption")
    dataset = dataset.add_column("caption", ["Ένα καράβι", "a boat"] * 6)
    evaluate_retrieval(encoder, dataset, CaptionArguments(long_captions_column=""))
    assert f"6 of 12 texts hold only words that the tokenizer of {encoder.name} " in caplog.text


def test_the_table_of_models_says_how_many_captions_were_truncated():
    row = {"long_num_images": 4, "long_num_captions": 8, "long_truncated": 0.25}
    for k in (1, 5, 10):
        row[f"long_i2t_recall@{k}"] = 50.0
        row[f"long_t2i_recall@{k}"] = 50.0
    assert "| long | 4 | 8 (25 % truncated) | 50.0 |" in format_recalls(row)
    several = format_recalls(row | {"model": "a"}, row | {"model": "b", "long_truncated": 0.0})
    assert "| a | long | 4 | 8 (25 % truncated) | 50.0 |" in several
    assert "| b | long | 4 | 8 | 50.0 |" in several


def test_similarities_of_tokens_are_the_same_in_blocks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(5, 3, 4, generator=generator)
    keys = torch.randn(7, 2, 4, generator=generator)
    expected = late_interaction(queries, keys)
    monkeypatch.setattr(retrieval, "QUERIES_PER_BLOCK", 2)
    for block_size in (1, 24, 36, 1000):
        monkeypatch.setattr(retrieval, "BLOCK_SIZE", block_size)
        torch.testing.assert_close(token_similarities(queries, keys), expected)


@pytest.mark.parametrize(("names", "folders"), [(["iiw"], [""]), (["iiw", "dci"], ["iiw", "dci"])])
@pytest.mark.parametrize("allow_partial", [True, False])
def test_each_of_several_benchmarks_has_a_folder_of_its_own(tmp_path, monkeypatch, names, folders, allow_partial):
    def load(name, folder, **options):
        return name, folder, options

    monkeypatch.setattr(retrieval, "load_benchmark", load)
    loaded = load_benchmarks(names, tmp_path, allow_partial)
    expected = {}
    for name, folder in zip(names, folders):
        expected[name] = (name, tmp_path / folder, {"allow_partial": allow_partial})
    assert loaded == expected


def test_data_without_captions_are_nothing_to_retrieve():
    with pytest.raises(ValueError, match="No image has a caption: there is nothing to retrieve"):
        measure_retrieval(EmbeddedDataset(torch.eye(2), {}, [], 0))


def test_of_equal_captions_each_image_counts_once():
    texts = ["a  boat", "a boat", "a boat", "sea"]
    captions = EmbeddedCaptions(texts, torch.tensor([0, 0, 1, 2]), torch.eye(3)[[0, 0, 0, 2]], num_truncated=1)
    embedded = EmbeddedDataset(torch.eye(3), {"short": captions}, [], num_unreadable=0)
    grouped = measure_retrieval(embedded)
    assert (grouped["short_num_captions"], grouped["short_num_shared_captions"]) == (2, 1)
    assert grouped["short_truncated"] == 0.25
    assert "num_unreadable_images" not in grouped
    separate = measure_retrieval(embedded, group_equal_captions=False)
    assert separate["short_num_captions"] == 4
    assert "short_num_shared_captions" not in separate
    distinct = measure_retrieval(embedded, distinct_short_captions=True)
    assert (distinct["short_num_captions"], distinct["short_num_images"]) == (2, 2)


def test_a_table_of_short_captions_says_how_many_are_of_several_images():
    row = {"short_num_images": 3, "short_num_captions": 2, "short_num_shared_captions": 1, "short_truncated": 0.0}
    for direction in ("i2t", "t2i"):
        for k in (1, 5, 10):
            row[f"short_{direction}_recall@{k}"] = {"i2t": 10.0, "t2i": 20.0}[direction] + k
    (line,) = format_recalls(row).splitlines()[2:]
    assert line == "| short | 3 | 2 (1 of several images) | 11.0 | 15.0 | 20.0 | 21.0 | 25.0 | 30.0 |"


def make_benchmark_row(model: str, benchmark: str, kind: str, i2t: float, num_images: int = 612) -> dict:
    return {
        "model": model,
        "benchmark": benchmark,
        "published_num_images": 612,
        f"{kind}_num_images": num_images,
        f"{kind}_i2t_recall@1": i2t,
        f"{kind}_t2i_recall@1": i2t + 10,
        f"{kind}_truncated": i2t / 100,
    }


def test_a_table_of_benchmarks_has_a_row_for_each_model_and_says_what_is_partial():
    rows = [
        make_benchmark_row("a", "iiw", "long", 20),
        make_benchmark_row("a", "coco", "short", 40, num_images=611),
        make_benchmark_row("b", "iiw", "long", 50),
        make_benchmark_row("b", "coco", "short", 60, num_images=611),
    ]
    titles, _, first, second = format_benchmarks(rows).splitlines()
    of_coco = "coco (611 of 612 images) I2T | coco (611 of 612 images) T2I"
    assert titles == f"| model | iiw I2T | iiw T2I | {of_coco} | average I2T | average T2I | truncated |"
    assert first == "| a | 20.00 | 30.00 | 40.00 | 50.00 | 30.00 | 40.00 | 30% |"
    assert second == "| b | 50.00 | 60.00 | 60.00 | 70.00 | 55.00 | 65.00 | 55% |"
