"""Small parts of an encoder, each by itself: windows of texts, limits, and what a tower is checked with."""

from types import SimpleNamespace

import pytest
import torch
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling_lotlip.encoder import batches
from modeling_lotlip.encoder.backends.openvino import sample_inputs, sort_inputs
from modeling_lotlip.encoder.backends.pytorch import pooled_features
from modeling_lotlip.encoder.batches import Batch, TextWindows, Unreadable, name_item, sign_file, warn_of_unreadable
from modeling_lotlip.encoder.contract import Temperature, find_temperature
from modeling_lotlip.encoder.families import (
    FAMILIES,
    UNKNOWN_FAMILY,
    Family,
    count_positions,
    find_family,
    find_text_limit,
    with_text_limit,
)
from modeling_lotlip.encoder.fastest import Computation
from modeling_lotlip.encoder.loading import check_device, is_dual_encoder


class Plain:
    """A preprocessing of tokens that are there already."""

    def unpad(self, inputs):
        yield from ({"input_ids": row[row != 0]} for row in inputs["input_ids"])

    def pad(self, texts):
        rows = [text["input_ids"] for text in texts]
        return {"input_ids": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)}


def make_batch(first: int, lengths: list[int], modality: str = "text") -> Batch:
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = 1
    return Batch(list(range(first, first + len(lengths))), {"input_ids": ids}, modality)


def test_a_window_of_texts_is_sorted_when_it_is_full(monkeypatch):
    monkeypatch.setattr(batches, "BATCHES_PER_WINDOW", 2)
    windows = TextWindows(Plain(), tokens_per_batch=10)
    assert list(windows.add(make_batch(0, [9, 2]))) == []
    assert list(windows.add(make_batch(2, [8], "long"))) == [], "long captions have a window of their own"
    first, *others = windows.add(make_batch(3, [9]))
    entries = list(first.entries)
    for batch in others:
        entries += batch.entries
    assert sorted(entries) == [0, 1, 3]
    (last,) = windows.finish()
    assert (last.entries, last.modality) == ([2], "long")
    assert list(windows.finish()) == []


def test_a_file_is_signed_by_its_size_and_both_times():
    status = SimpleNamespace(st_size=3, st_mtime_ns=2**63, st_ctime_ns=-(2**64))
    assert sign_file(status) == {"size": 3, "modified": 2**63 - 1, "changed": -(2**63 - 1)}


@pytest.mark.parametrize(
    ("key", "row", "name"),
    [
        (3, {"image": None}, "row 3"),
        (SimpleNamespace(row_index=4, key="b"), {"image": None}, "row 4"),
        (3, {"file_name": "a.png"}, "a.png"),
        (SimpleNamespace(row_index=4, key="b.png"), "image", "b.png"),
        (3, "image", "3"),
    ],
)
def test_an_image_that_is_left_out_has_the_name_of_its_row(key, row, name):
    assert name_item(key, row) == name


def test_an_image_that_is_left_out_is_one_line(caplog):
    warn_of_unreadable([Unreadable(0, "a\n.png", "it is torn.")])
    assert [record.message for record in caplog.records] == [
        "The image of a\\n.png cannot be read and is left out: it is torn."
    ]


# ---- families


class Positions(torch.nn.Module):
    def __init__(self, num_positions: int | None, num_corner_tokens: int = 0, padding_idx: int | None = None):
        super().__init__()
        self.config = PreTrainedConfig(num_corner_tokens=num_corner_tokens)
        if num_positions is not None:
            self.config.max_position_embeddings = num_positions
            self.position_embeddings = torch.nn.Embedding(num_positions, 1, padding_idx=padding_idx)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Positions(40), 40),
        (Positions(40, num_corner_tokens=2), 38),
        (Positions(40, padding_idx=1), 38),
        (Positions(None), None),
    ],
)
def test_positions_are_those_that_a_text_can_have(model, expected):
    assert count_positions(model, UNKNOWN_FAMILY) == expected


def make_processor(limit: int, **init_kwargs: int) -> SimpleNamespace:
    return SimpleNamespace(tokenizer=SimpleNamespace(model_max_length=limit, init_kwargs=init_kwargs))


@pytest.mark.parametrize(
    ("limit", "family", "expected"),
    [
        (30, UNKNOWN_FAMILY, 30),
        (50, UNKNOWN_FAMILY, 40),
        (30, Family(stale_limit=30), 40),
        (31, Family(stale_limit=30), 31),
    ],
    ids=["tokenizer", "positions", "limit of before the stretch", "another limit"],
)
def test_the_limit_of_texts_is_the_smaller_one_unless_it_is_stale(limit, family, expected):
    assert find_text_limit(Positions(40), make_processor(limit), family) == expected
    assert find_text_limit(Positions(None), make_processor(limit), family) == limit


def test_a_processor_of_another_limit_is_another_one():
    processor = make_processor(30)
    assert with_text_limit(processor, 30) is processor
    limited = with_text_limit(processor, 20)
    assert limited.tokenizer.model_max_length == 20
    assert processor.tokenizer.model_max_length == 30


@pytest.mark.parametrize(
    ("model_type", "name"), [("clip", "CLIP"), ("metaclip_2", "CLIP"), ("fgclip2", "FG-CLIP 2"), ("align", None)]
)
def test_a_family_is_known_by_its_type(model_type, name):
    assert find_family(SimpleNamespace(model_type=model_type)) == FAMILIES.get(name, UNKNOWN_FAMILY)


def test_a_family_is_known_by_its_processor():
    class SiglipOfMineProcessor:
        pass

    assert find_family(None, SiglipOfMineProcessor()) == FAMILIES["SigLIP"]
    assert find_family(None, None) == UNKNOWN_FAMILY


# ---- towers and temperatures


def test_a_tower_is_tried_with_a_text_of_which_half_is_padding():
    mask = torch.ones(2, 3, dtype=torch.long)
    inputs = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]), "attention_mask": mask}
    rows = sample_inputs(inputs, 3)
    assert rows["input_ids"].tolist() == [[1, 2, 3], [4, 5, 6], [1, 2, 3]]
    assert rows["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert inputs["attention_mask"].all(), "what is given stays as it is"


def test_inputs_of_a_tower_are_in_the_order_of_their_names_and_in_float32():
    mask, pixels = sort_inputs(
        {"pixels": torch.ones(1, dtype=torch.bfloat16), "mask": torch.ones(1, dtype=torch.long)}
    )
    assert (mask.dtype, pixels.dtype) == (torch.long, torch.float32)


@pytest.mark.parametrize(
    ("divides", "value", "scale", "clamped"), [(False, 9.0, 8103.08, 4.6052), (True, 0.0001, 10_000.0, 0.001)]
)
def test_a_temperature_scales_and_has_bounds(divides, value, scale, clamped):
    temperature = Temperature("temperature", divides)
    model = torch.nn.Module()
    model.temperature = torch.nn.Parameter(torch.tensor(value))
    assert temperature.scale(model.temperature).item() == pytest.approx(scale, rel=1e-4)
    temperature.clamp(model)
    assert model.temperature.item() == pytest.approx(clamped, rel=1e-3)
    assert find_temperature(model).divides
    assert find_temperature(torch.nn.Module()) is None


def test_a_temperature_that_is_not_trained_stays():
    model = torch.nn.Module()
    model.logit_scale = torch.nn.Parameter(torch.tensor(9.0), requires_grad=False)
    find_temperature(model).clamp(model)
    assert model.logit_scale.item() == 9


@pytest.mark.parametrize(
    ("backend", "dtype", "is_open"),
    [("torch", "float32", False), ("auto", "float32", True), ("torch", "auto", True), ("auto", "auto", True)],
)
def test_what_is_left_to_a_measurement_is_open(backend, dtype, is_open):
    assert Computation(backend, dtype).is_open == is_open


def test_a_dual_encoder_has_features_of_both():
    class Texts:
        get_text_features = None

    class Both(Texts):
        get_image_features = None

    assert not is_dual_encoder(Texts)
    assert is_dual_encoder(Both)


def test_features_of_single_tokens_are_refused():
    with pytest.raises(ValueError, match=r"features of shape \(2, 5, 16\), of each token"):
        pooled_features(BaseModelOutputWithPooling(pooler_output=torch.ones(2, 5, 16)))


@pytest.mark.parametrize("device", ["cuda:99", "nothing"])
def test_a_device_that_is_not_there_is_refused(device):
    check_device("cpu")
    check_device(None)
    with pytest.raises(ValueError, match=f"`--device {device}` cannot be used: .*Leave it out"):
        check_device(device)
