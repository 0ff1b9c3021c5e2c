import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, Value, load_dataset
from torchvision.transforms.v2 import RandomResizedCrop

from modeling_lotlip import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.models import find_image_size
from modeling_lotlip.training.order import StreamBatchSampler
from modeling_lotlip.training.samples import CaptionedImages, Cause, Outcome, Sample, SampleCollator, SampleCounts
from tests.helpers.images import NO_IMAGE, replace_values


def stream(folder: Path, seed: int = 0):
    files = sorted(str(file) for file in folder.glob("*.parquet"))
    rows = undecoded(load_dataset("parquet", data_files=files, split="train", streaming=True), "image")
    return rows.shuffle(seed=seed, buffer_size=20)


@pytest.fixture
def batches(shards, make_accelerator):
    return StreamBatchSampler(stream(shards), 8, make_accelerator())


def numbers(batches: list[list[tuple]]) -> list[list[int]]:
    return [[key[3]["number"] for key in keys if not key[2]] for keys in batches]


def test_an_epoch_of_a_stream_has_every_row_once_in_an_order_of_its_own(batches, shards):
    orders = []
    for epoch in range(2):
        batches.epoch = epoch
        epoch_batches = list(batches)
        assert [len(keys) for keys in epoch_batches] == [8] * 5 + [4]
        assert all(isinstance(key[3]["image"], dict) for keys in epoch_batches for key in keys), "decoded by workers"
        orders.append(numbers(epoch_batches))
    flat = [[number for batch in order for number in batch] for order in orders]
    assert all(sorted(order) == list(range(44)) for order in flat)
    assert flat[0] != flat[1]
    assert flat[0] != sorted(flat[0])
    other = StreamBatchSampler(stream(shards, seed=1), 8, batches.accelerator)
    assert numbers(list(other)) != orders[0], "another seed, another order"
    batches.epoch = 0
    batches.first_batch = 3
    assert numbers(list(batches)) == orders[0][3:], "going on is going through the rest, in the same order"


def test_a_stream_goes_on_with_as_many_samples(train, shards, tokenizer):
    options = {"streaming": True, "dataset_name": shards, "tokenizer_name": tokenizer, "shuffle_buffer_size": 20}
    options |= {"max_train_steps": 2, "eval_split": "train", "max_eval_samples": 8, "checkpointing_steps": 1}
    with pytest.raises(ValueError, match="A stream gives no vocabulary: name a tokenizer with `--tokenizer_name`"):
        train("run", **options | {"tokenizer_name": None})
    train("run", **options)
    with pytest.raises(ValueError, match="max_train_samples = 44, this run has 40"):
        train("run", **options, max_train_samples=40, resume_from_checkpoint="latest")


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_a_stream_without_overlap_or_loss(shards, num_processes):
    """By shards where their number divides, else by rows; the last batches are padded. Here threads are processes."""
    barrier = Barrier(num_processes, timeout=60)
    told = [None] * num_processes

    def gather(process: int, own: torch.Tensor) -> torch.Tensor:
        told[process] = own
        barrier.wait()
        gathered = torch.cat(told)
        barrier.wait()
        return gathered

    def read(process: int) -> list[list[tuple]]:
        accelerator = SimpleNamespace(process_index=process, num_processes=num_processes, device=torch.device("cpu"))
        accelerator.gather = partial(gather, process)
        return list(StreamBatchSampler(stream(shards), 5, accelerator))

    with ThreadPoolExecutor(num_processes) as threads:
        shares = list(threads.map(read, range(num_processes)))
    sizes = [[len(keys) for keys in share] for share in shares]
    assert all(own == sizes[0] for own in sizes), "as many rows in every process's batch"
    own = [key for share in shares for keys in share for key in keys if not key[2]]
    assert sorted(key[3]["number"] for key in own) == list(range(44))
    assert len({key[1] for key in own}) == 44, "rows are numbered over all processes"


def bad_rows() -> Dataset:
    """Rows of which the first is good and every other is bad in a way of its own."""
    good = load_scenes(1, seed=8)[0]
    png = io.BytesIO()
    bomb = io.BytesIO()
    good["image"].save(png, "png")
    PIL.Image.new("1", (20_000, 20_000)).save(bomb, "png")
    images = [png.getvalue(), b"no image", png.getvalue()[:200], b"", bomb.getvalue(), None, png.getvalue()]
    features = Features(image=Image(), caption=Value("string"))
    rows = {"image": [image and {"bytes": image, "path": None} for image in images]}
    rows["image"][3] = {"bytes": b"", "path": None}
    rows["caption"] = ["a boat"] * (len(images) - 1) + [" "]
    return Dataset.from_dict(rows, features=features)


def test_bad_samples_take_no_part_and_say_why():
    rows = bad_rows()
    samples = CaptionedImages(rows, RowReader(rows.column_names, CaptionArguments()), ObjectiveArguments())
    drawn = [samples[0, index, False] for index in range(len(samples.images))]
    assert drawn[0].outcome == Outcome("row 0", has_short_caption=True)
    assert drawn[0].short_caption == "a boat"
    for index, sample in enumerate(drawn[1:], start=1):
        assert sample.short_caption == ""
        assert f"row {index}" in sample.outcome.message
    causes = [sample.outcome.cause for sample in drawn[1:]]
    assert causes == 4 * [Cause.UNREADABLE_IMAGE] + [Cause.WRONG_TYPE, Cause.NO_CAPTION]
    assert drawn[4].outcome.reason == "unreadable image (DecompressionBombError)"
    assert samples[0, 1, True].outcome is None, "padding is not counted"
    of_a_shard = samples[0, 5, False, {"image": None, "caption": "a boat", "__key__": "shard/7"}]
    assert of_a_shard.outcome.message == "the image of shard/7 cannot be read: there is no image"


@pytest.mark.parametrize(
    "num_good, num_bad, num_samples, is_refused",  # a tenth may be bad, of a stream of those seen, 1,000 at least
    [(2, 3, 30, False), (2, 4, 30, True), (1, 100, None, False), (1, 101, None, True), (0, 100, 1_000_000, True)],
)
def test_too_many_bad_samples_end_the_run(num_good, num_bad, num_samples, is_refused):
    counts = SampleCounts()
    for _ in range(num_good):
        counts.count(Outcome("row 1", Cause.NO_FILE_CAPTION, unmatched_key="key"))
    for _ in range(num_bad):
        counts.count(Outcome("row 3", Cause.UNREADABLE_IMAGE, error="OSError"))
    if not is_refused:
        counts.check(0.1, num_samples)
        return
    expected = f"More samples are bad than `--max_bad_fraction 0.1` allows.* {num_bad}, unreadable image .*'row 3'"
    with pytest.raises(ValueError, match=expected):
        counts.check(0.1, num_samples)


def test_counts_are_kept_in_a_checkpoint_and_add_up():
    counts = SampleCounts()
    counts.count(Outcome("a", has_short_caption=True, has_long_caption=False))
    counts.count_batch([Outcome("b", Cause.NO_CAPTION)], num_samples=4)
    again = SampleCounts.from_state_dict(counts.state_dict())
    assert again == counts
    total = again + counts
    assert total.rows.num_rows == 4
    assert total.rows.left_out == {"no caption": 2}
    assert total.long_captions.left_out == {"no caption": 2}
    assert total.short_captions.num_used == 2
    assert total.num_padding == 6
    assert total.padding_fraction == 0.6


def test_a_run_with_bad_samples_counts_them(train, tmp_path, caplog):
    no_short = {"caption": None}
    no_long = {"long_captions": []}
    changes = {4: {"image": NO_IMAGE}, 9: no_short | no_long, 11: no_short, 12: no_long}
    replace_values(load_scenes(30, seed=9), changes).save_to_disk(tmp_path / "data")
    options = {"dataset_name": tmp_path / "data", "train_split": "train", "eval_split": "train[10:20]"}
    train("run", **options, max_train_steps=4, max_bad_fraction=0.1, max_train_samples=None)
    for told in (
        "Of the rows of this training, 28 of 30 rows are used; left out: 1, ",
        "1, no caption (such as 'row 9')",
        "Of the short captions of this training, 27 of 28 rows are used; left out: 1, no caption (such as 'row 11')",
        "Of the long captions of this training, 27 of 28 rows are used; left out: 1, no caption (such as 'row 12')",
    ):
        assert told in caplog.text
    with pytest.raises(ValueError, match="than `--max_bad_fraction 0.01` allows"):
        train("other", **options, max_train_steps=4, max_train_samples=None)


def test_a_crop_is_all_that_the_tower_sees(tokenizer):
    """Also where the image processor has a margin, which it would cut off a second time."""
    ramp = PIL.Image.linear_gradient("L").convert("RGB")  # 256 rows, from black to white
    rows = Dataset.from_dict(
        {"image": [ramp], "caption": ["a boat"]}, features=Features(image=Image(), caption=Value("string"))
    )
    image_processor = LotlipImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 32, "width": 32}, image_mean=[0.0] * 3, image_std=[1.0] * 3
    )
    processor = LotlipProcessor(image_processor, LotlipTokenizer.from_pretrained(tokenizer))
    crop = RandomResizedCrop(find_image_size(image_processor), (0.9, 1.0), (1.0, 1.0))
    samples = CaptionedImages(rows, RowReader(rows.column_names, CaptionArguments()), ObjectiveArguments(), 0, crop)
    batch, _ = SampleCollator(processor, are_cropped=True)([samples[epoch, 0, epoch == 9] for epoch in range(10)])
    seen = batch.images["pixel_values"].amax(dim=(1, 2, 3)) - batch.images["pixel_values"].amin(dim=(1, 2, 3))
    assert batch.images["pixel_values"].shape == (10, 3, 32, 32)
    assert seen[9] == 0
    assert seen[:9].min() > 0.9  # the root of 0.9, less half a pixel at either side


def test_captions_of_unknown_words_are_said_once(tokenizer, caplog):
    processor = LotlipProcessor(LotlipImageProcessor(), LotlipTokenizer.from_pretrained(tokenizer))
    image = PIL.Image.new("RGB", (32, 32))
    collate = SampleCollator(processor)
    for text in ("a boat", "Ένα καράβι", "Ένα"):
        collate([Sample(caption, [], image=image) for caption in (text, "the sea", "")])
    assert caplog.text.count("texts hold only words") == 1
    assert f"1 of 2 texts hold only words that the tokenizer of {tokenizer} " in caplog.text


def test_no_token_of_an_absent_caption_counts(tokenizer):
    processor = LotlipProcessor(LotlipImageProcessor(), LotlipTokenizer.from_pretrained(tokenizer))
    image = PIL.Image.new("RGB", (32, 32))
    samples = [Sample("a boat", ["a tree", ""], image=image), Sample("", ["", "the sea"], image=image)]
    batch, _ = SampleCollator(processor)(samples)
    assert batch.short.present.tolist() == [True, False]
    assert batch.long.present.tolist() == [[True, False], [False, True]]
    tokens = processor.tokenizer(["a boat", "a tree", "the sea"])["input_ids"]
    assert batch.num_tokens == sum(map(len, tokens))
    assert batch.short.attention_mask.dtype == torch.int64


def test_a_crop_seeds_no_accelerator(monkeypatch):
    rows = load_scenes(1)
    reader = RowReader(rows.column_names, CaptionArguments())
    samples = CaptionedImages(rows, reader, ObjectiveArguments(), crop=RandomResizedCrop((32, 32), (0.3, 0.9)))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("it seeds every device"))
    before = torch.get_rng_state()
    assert samples[0, 0, False].image.tobytes() != samples[1, 0, False].image.tobytes()
    assert torch.equal(torch.get_rng_state(), before)
