"""Embeddings that are no numbers: which, and why."""

import pytest
import torch

from modeling_lotlip.data.reader import Item
from modeling_lotlip.encoder.batches import EmbeddedBatch
from modeling_lotlip.encoder.finite import check_finite_batch, check_nonzero_batch, find_nonfinite_weight


def make_model(**values: float) -> torch.nn.Module:
    """A model of two layers, with values that are set in their first weight."""
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("first", "second", "third")})
    with torch.no_grad():
        for name, value in values.items():
            model[name].weight[1, 0] = value
    return model


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_the_first_weight_that_is_no_number_is_found(value):
    good = make_model()
    assert find_nonfinite_weight(good) is None
    assert find_nonfinite_weight(good, make_model(third=value, second=value)) == "second.weight"


@pytest.mark.parametrize(
    ("values", "cause"),
    [({"second": torch.nan}, "since its weights do, `second.weight` first"), ({}, "a wider `dtype`")],
)
@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4)], ids=["one", "tokens"])
def test_the_first_entry_without_a_finite_embedding_is_named_with_the_cause(values, cause, shape):
    embeds = torch.ones(shape)
    embeds[1:, ..., 2] = -torch.inf
    batch = EmbeddedBatch([Item(name, "image") for name in "abc"], embeds, [])
    with pytest.raises(ValueError, match=f"embedding of file b holds NaN or infinity, .*{cause}"):
        check_finite_batch(batch, make_model(**values), lambda item: f"file {item.row_key}")


def test_a_batch_of_numbers_or_of_nothing_is_right():
    model = make_model(first=torch.nan)
    check_finite_batch(EmbeddedBatch([Item("a", "image")], torch.ones(1, 4), []), model, str)
    check_finite_batch(EmbeddedBatch([], None, []), model, str)


def test_a_text_whose_embedding_has_no_direction_is_named():
    embeds = torch.ones(3, 4)
    embeds[0, 1:] = 0
    items = [Item(name, "text") for name in "abc"]
    check_nonzero_batch(EmbeddedBatch(items, embeds, []), str)
    embeds[1] = 0
    with pytest.raises(ValueError, match="embedding of text b is zero: give a text with words"):
        check_nonzero_batch(EmbeddedBatch(items, embeds, []), lambda item: f"text {item.row_key}")
