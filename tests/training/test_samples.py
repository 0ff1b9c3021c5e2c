import io
import json
from pathlib import Path

import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, Value, load_dataset
from torchvision.transforms.v2 import RandomResizedCrop

from modeling_lotlip import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.reader import RowCounts, RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.models import find_image_size
from modeling_lotlip.training.samples import (
    NO_FILE_CAPTION,
    CaptionedImages,
    SampleCollator,
    StreamBatchSampler,
    count_hard_negatives,
    count_rows,
)
from tests.conftest import launch


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
    assert flat[0] != flat[1] and flat[0] != sorted(flat[0])
    other = StreamBatchSampler(stream(shards, seed=1), 8, batches.accelerator)
    assert numbers(list(other)) != orders[0], "another seed, another order"
    batches.epoch, batches.first_batch = 0, 3
    assert numbers(list(batches)) == orders[0][3:], "going on is going through the rest, in the same order"


STREAM = {"max_train_steps": 8, "streaming": True, "shuffle_buffer_size": 20, "eval_split": "train"}


def test_a_stream_goes_on_with_as_many_samples(train, shards, tokenizer):
    options = {**STREAM, "max_train_steps": 2, "dataset_name": shards, "tokenizer_name": tokenizer}
    options |= {"max_eval_samples": 8, "checkpointing_steps": 1}
    with pytest.raises(ValueError, match="A stream gives no vocabulary: name a tokenizer with `--tokenizer_name`"):
        train("run", **options | {"tokenizer_name": None})
    train("run", **options)
    with pytest.raises(ValueError, match="max_train_samples = 44, this run has 40"):
        train("run", **options, max_train_samples=40, resume_from_checkpoint="latest")


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_a_stream_without_overlap_or_loss(shards, tmp_path, num_processes):
    """By shards where their number divides, else by rows; the last batches are padded."""
    script = tmp_path / "share.py"
    script.write_text(
        "import json, sys\n"
        "from accelerate import Accelerator\n"
        "from modeling_lotlip.training.samples import StreamBatchSampler\n"
        "from pathlib import Path\n"
        "from tests.training.test_samples import numbers, stream\n"
        "accelerator = Accelerator(cpu=True)\n"
        "batches = StreamBatchSampler(stream(Path(sys.argv[1])), 5, accelerator)\n"
        "told = [list(batches)]\n"
        "places = [key[1] for keys in told[0] for key in keys if not key[2]]\n"
        "told = [accelerator.num_processes, [len(keys) for keys in told[0]], numbers(told[0]), places]\n"
        "Path(f'{sys.argv[2]}.{accelerator.process_index}').write_text(json.dumps(told))\n"
        "accelerator.wait_for_everyone(); accelerator.end_training()\n"
    )
    done = launch(num_processes, str(script), str(shards), str(tmp_path / "told"))
    assert done.returncode == 0, done.stderr
    told = [json.loads((tmp_path / f"told.{process}").read_text()) for process in range(num_processes)]
    assert all(number == num_processes for number, *_ in told)
    assert all(sizes == told[0][1] for _, sizes, *_ in told), "as many rows in every process's batch"
    assert sorted(number for _, _, own, _ in told for batch in own for number in batch) == list(range(44))
    places = [place for *_, own in told for place in own]
    assert len(set(places)) == len(places), "rows are numbered over all processes"


def bad_rows() -> Dataset:
    """Rows of which the first is good and every other is bad in a way of its own."""
    good = load_scenes(1, seed=8)[0]
    png, bomb = io.BytesIO(), io.BytesIO()
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
    assert drawn[0]["read"] == ("row 0", None, None) and drawn[0]["short_caption"] == "a boat"
    for index, sample in enumerate(drawn[1:], start=1):
        assert sample["short_caption"] == "" and f"row {index} " in sample["read"][1][1] + " "
    causes = [sample["read"][1][0] for sample in drawn[1:]]
    assert causes[3] == "unreadable image (DecompressionBombError)"
    assert all(cause.startswith("unreadable image") for cause in causes[:4])
    assert causes[4:] == ["no image or wrong type", "no caption"]
    assert "read" not in samples[0, 1, True], "padding is not counted"
    of_a_shard = samples[0, 5, False, {"image": None, "caption": "a boat", "__key__": "shard/7"}]
    assert of_a_shard["read"][1][1].startswith("row 5 ('shard/7') has no image")


def count_samples(counts: RowCounts, *causes: str | None, max_bad_fraction: float = 0.1, num_samples=30) -> None:
    read = [("row 3", cause and (cause, "the image of row 3 cannot be read"), None) for cause in causes]
    count_rows(counts, read, max_bad_fraction, num_samples)


def test_too_many_bad_samples_end_the_run():
    bad, counts = "unreadable image", RowCounts()
    count_samples(counts, None, bad, NO_FILE_CAPTION, bad, bad)
    with pytest.raises(ValueError, match="4 of 6 samples are bad.*{'unreadable image': 4}.*row 3"):
        count_samples(counts, bad)
    count_samples(RowCounts(), *99 * [bad], None, bad, num_samples=None)  # of a stream: a tenth of the first 1,000
    with pytest.raises(ValueError, match="101 of 102"):
        count_samples(RowCounts(), None, *101 * [bad], num_samples=None)
    with pytest.raises(ValueError, match="100 of 100"):
        count_samples(RowCounts(), *100 * [bad], num_samples=1_000_000)


def test_a_run_with_bad_samples_counts_them(train, tmp_path, caplog):
    scenes = load_scenes(30, seed=9).cast_column("image", Image(decode=False)).to_list()
    scenes[4]["image"] = {"bytes": b"no image", "path": None}
    scenes[9]["caption"], scenes[9]["long_captions"] = None, []
    features = load_scenes(1).features
    Dataset.from_list(scenes, features=features).save_to_disk(tmp_path / "data")
    load_scenes(8, seed=2).save_to_disk(tmp_path / "eval")
    options = {"dataset_name": tmp_path / "data", "train_split": "train", "eval_split": "train[10:20]"}
    train("run", **options, max_train_steps=4, max_bad_fraction=0.1, max_train_samples=None)
    assert "left out: 1, no caption (such as 'row 9')" in caplog.text
    with pytest.raises(ValueError, match="more than `--max_bad_fraction 0.01` allows"):
        train("other", **options, max_train_steps=4, max_train_samples=None)


def draw(hard_negatives: int, num_long_captions: int = 1, **columns) -> list[tuple[str, list[str], str | None]]:
    """The captions drawn in two epochs for three images, of which the last has no long ones."""
    columns = {
        "image": [None] * 3,
        "caption": ["a", "b", "c"],
        "long_captions": [["The red boat is on the left. It has two sails."], ["Waves"], []],
    } | columns
    dataset = Dataset.from_dict(columns)
    reader = RowReader(dataset.column_names, CaptionArguments())
    drawing = ObjectiveArguments(num_long_captions=num_long_captions, hard_negatives=hard_negatives)
    samples = CaptionedImages(dataset, reader, drawing)
    return [samples.draw_captions(index, epoch, dataset[index]) for epoch in range(20) for index in range(3)]


def test_hard_negatives_are_long_captions_with_a_false_detail():
    """The true captions are those that are drawn without them, and an absent caption has no false one."""
    without, drawn = draw(0), draw(2)
    assert [(short, long[:1]) for short, long, _ in drawn] == [(short, long) for short, long, _ in without]
    assert all(len(long) == 3 for _, long, _ in drawn)
    assert all(long[1:] == ["", ""] for _, long, _ in drawn[2::3])
    boats, waves = ({text for _, long, _ in drawn[first::3] for text in long[1:]} for first in (0, 1))
    true = "The red boat is on the left. It has two sails"
    assert true not in boats and "Waves" not in waves
    first, second = true.split(". ")
    assert {true.replace("left", "right"), f"{first}. Waves"} <= boats
    assert any(text.startswith(f"{first}. It has") and "two" not in text for text in boats), "another number"
    assert any(text.endswith(f"on the left. {second}") and "red" not in text for text in boats), "another colour"
    assert waves == {"", "The red boat is on the left", "It has two sails"}, "a sentence of another image, or nothing"


def test_a_true_caption_is_no_hard_negative():
    """What a rule makes of one caption of an image may be another one of it, whether that is drawn or not."""
    columns = {"long_captions": [["It is left", "It is right"], ["It is left"], []], "caption": [None] * 3}
    for num_long_captions in (1, 2):
        drawn = draw(1, num_long_captions, **columns)
        assert {text for _, long, _ in drawn[0::3] for text in long[num_long_captions:]} == {""}
        assert {text for _, long, _ in drawn[1::3] for text in long[num_long_captions:]} <= {"It is right", ""}
    columns["long_captions"] = [["A boat", "Waves"], ["Waves"], []]
    assert {text for _, long, _ in draw(1, **columns)[0::3] for text in long[1:]} == {""}, "a sentence of both"


def test_a_number_of_a_list_is_no_false_sentence():
    columns = {"long_captions": [["A mast"], ["1. 2."], []], "caption": [None] * 3}
    assert {text for _, long, _ in draw(1, **columns)[0::3] for text in long[1:]} == {""}


def test_hard_negatives_that_are_read_as_a_true_caption_are_left_out_and_counted(tokenizer):
    """The false detail may lie behind the token limit, or be a capital letter."""
    processor = LotlipProcessor(LotlipImageProcessor(), LotlipTokenizer.from_pretrained(tokenizer))
    samples = [
        # two captions, then the first false copies of both, then the second ones
        ["a red boat", "a tree", "a blue boat", "a tree", "A red boat", "a red boat"],
        ["a red boat", "", "a blue boat", "", "", ""],
        [""] * 6,
    ]
    samples = [
        {"vision_output": torch.ones(2), "short_caption": "", "long_captions": captions, "read": (name, None, None)}
        for name, captions in zip("abc", samples)
    ]
    processor.tokenizer.model_max_length = 8
    batch, report = SampleCollator(processor, num_hard_negatives=2)(samples)
    present = batch["attention_mask"].any(dim=-1).int().tolist()
    assert present == [[1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 0, 0], [0] * 6]
    here = [("a", True), ("a", False), ("a", False), ("a", False), ("b", True), ("b", False)]
    assert report["hard_negatives"] == here
    processor.tokenizer.model_max_length = 3  # [CLS] a [SEP]
    batch, report = SampleCollator(processor, num_hard_negatives=2)(samples)
    assert (
        report["hard_negatives"] == [(name, False) for name, _ in here] and batch["attention_mask"][:, 2:].sum() == 0
    )
    assert batch["attention_mask"][:, :2].sum() == 9, "true captions may be equal"

    counts, none = RowCounts(), RowCounts()
    count_hard_negatives(counts, [("a", True)] + [("b", False)] * 1998 + [("c", False)])
    assert str(counts).startswith("1 of 2000 rows are used") and str(counts).endswith("(such as 'b', 'c').")
    count_hard_negatives(none, [("a", False)] * 600)
    with pytest.raises(ValueError, match="None of the first 1200 `--hard_negatives` can be made"):
        count_hard_negatives(none, [("a", False)] * 600)


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
    seen = batch["pixel_values"].amax(dim=(1, 2, 3)) - batch["pixel_values"].amin(dim=(1, 2, 3))
    assert batch["pixel_values"].shape == (10, 3, 32, 32) and seen[9] == 0
    assert seen[:9].min() > 0.9  # the root of 0.9, less half a pixel at either side


def test_a_crop_seeds_no_accelerator(monkeypatch):
    rows = load_scenes(1)
    reader = RowReader(rows.column_names, CaptionArguments())
    samples = CaptionedImages(rows, reader, ObjectiveArguments(), crop=RandomResizedCrop((32, 32), (0.3, 0.9)))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("it seeds every device"))
    before = torch.get_rng_state()
    assert samples[0, 0, False]["image"].tobytes() != samples[1, 0, False]["image"].tobytes()
    assert torch.equal(torch.get_rng_state(), before)
