"""The weights between two models, and which models fit together."""

import copy

import pytest
import torch
from transformers import PreTrainedModel
from transformers.models.clip.modeling_clip import CLIPAttention

from modeling_lotlip import LotlipTokenizer
from modeling_lotlip.encoder.dual_encoder import DualEncoder
from modeling_lotlip.encoder.families import count_positions
from modeling_lotlip.interpolation.weights import (
    check_computation,
    check_models,
    check_same_shapes,
    clone_weights,
    fit_start,
    mix_dims,
    mix_weights,
    warn_of_other_tokens,
    warn_of_same_weights,
)
from modeling_lotlip.training.models import stretch_positions
from tests.helpers.dual_encoders import FAMILIES


TEXTS = ["a red boat", "the sea is blue. a tree"]


def build(family: str) -> DualEncoder:
    model, processor = FAMILIES[family].build()
    return DualEncoder(model, processor, name=family)


def change(model: PreTrainedModel) -> None:
    """Adds noise to all weights, as a training does."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def test_a_mixture_lies_on_the_line_between_both():
    start = {"weight": torch.tensor([0.0, 2.0]), "count": torch.tensor(3)}
    end = {"weight": torch.tensor([1.0, -2.0]), "count": torch.tensor(7)}
    mixed = mix_weights(start, end, 0.25)
    torch.testing.assert_close(mixed["weight"], torch.tensor([0.25, 1.0]))
    assert mixed["count"] == 3
    assert mix_weights(start, end, 0.5)["count"] == 7
    assert mix_weights(start, end, 0.75)["count"] == 7


@pytest.mark.parametrize("alpha", [0, 1])
def test_the_ends_of_the_line_are_the_models_bit_by_bit(alpha):
    generator = torch.Generator().manual_seed(0)
    start = {"weight": torch.randn(100, generator=generator)}
    end = {"weight": torch.randn(100, generator=generator)}
    expected = (start, end)[alpha]
    assert torch.equal(mix_weights(start, end, alpha)["weight"], expected["weight"])


@pytest.mark.parametrize(("alpha", "expected"), [(0, []), (0.5, []), (1, [32, 8])])
def test_a_mixture_with_a_model_that_was_trained_for_no_other_dims_has_none(alpha, expected):
    assert mix_dims((), (32, 8), alpha) == expected
    assert mix_dims((32, 16, 8), (32, 8, 4), alpha) == {0: [32, 16, 8], 0.5: [32, 8], 1: [32, 8, 4]}[alpha]


def test_weights_of_other_names_or_shapes_are_named():
    start = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(ValueError, match="START alone has `b`: only weights of the same names"):
        check_same_shapes(start, {"a": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"`b` is of shape \(3,\) in START and \(4,\) in END"):
        check_same_shapes(start, {"a": torch.zeros(2), "b": torch.zeros(4)})


@pytest.mark.parametrize(("difference", "is_warned"), [(0.0, True), (1e-3, False)])
def test_two_models_of_the_same_weights_are_warned_of(caplog, difference, is_warned):
    start = {"a": torch.zeros(2), "b": torch.ones(3)}
    warn_of_same_weights(start, {"a": torch.zeros(2), "b": torch.ones(3) + difference})
    assert ("START and END have the same weights" in caplog.text) is is_warned


def test_models_of_two_types_are_refused():
    with pytest.raises(ValueError, match="START clip is a CLIPModel and END siglip a SiglipModel: name a model, and"):
        check_models(build("clip"), build("siglip"))


def test_tokenizers_of_other_words_are_refused():
    start = build("clip")
    end = DualEncoder(start.model, copy.deepcopy(start.processor), name="end")
    end.processor.tokenizer.add_tokens(["anotherword"])
    with pytest.raises(ValueError, match="The tokenizers of START clip and END end know different words"):
        check_models(start, end)


@pytest.mark.parametrize(("do_lower_case", "is_warned"), [(True, False), (False, True)])
def test_tokenizers_that_make_other_tokens_of_the_same_words_are_warned_of(caplog, do_lower_case, is_warned):
    start = build("lotlip")
    end = build("lotlip")
    vocab = start.processor.tokenizer.get_vocab()
    end.processor.tokenizer = LotlipTokenizer(vocab=vocab, do_lower_case=do_lower_case)
    check_models(start, end)
    warn_of_other_tokens(start, end)
    assert ("tokens of 'A Boat', which each mixture reads as END does" in caplog.text) is is_warned


@pytest.mark.parametrize("family", ["clip", "vit_bert", "lotlip", "siglip"])
def test_the_start_is_stretched_as_at_the_beginning_of_a_training(family):
    start = build(family)
    end = DualEncoder(copy.deepcopy(start.model), copy.deepcopy(start.processor))
    stretch_positions(end.model, 150)
    num_before = count_positions(start.model, start.family)
    fitted = fit_start(start, end)
    assert count_positions(start.model, start.family) == num_before
    expected = clone_weights(end.model)
    found = clone_weights(fitted)
    check_same_shapes(found, expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_start_with_as_many_positions_is_taken_as_it_is():
    start = build("clip")
    assert fit_start(start, start) is start.model


def test_half_of_the_way_is_another_model():
    start = build("clip")
    end = DualEncoder(copy.deepcopy(start.model), start.processor)
    change(end.model)
    embeds = []
    start_weights = clone_weights(start.model)
    end_weights = clone_weights(end.model)
    for alpha in (0, 0.5, 1):
        end.model.load_state_dict(mix_weights(start_weights, end_weights, alpha))
        embeds.append(end.encode_text(TEXTS, convert_to_tensor=True))
    torch.testing.assert_close(embeds[0], start.encode_text(TEXTS, convert_to_tensor=True))
    assert (embeds[1] - embeds[0]).abs().max() > 1e-3
    assert (embeds[1] - embeds[2]).abs().max() > 1e-3


@pytest.mark.parametrize("tower", ["text", "vision"])
def test_models_that_compute_otherwise_from_the_same_weights_are_refused(tower):
    start = build("clip")
    end = build("clip")
    end.model.load_state_dict(start.model.state_dict())
    check_computation(start.model, end)
    for module in getattr(end.model, f"{tower}_model").modules():
        if isinstance(module, CLIPAttention):
            module.scale *= 1000
    with pytest.raises(ValueError, match="START and END clip compute otherwise from the same weights: their `config"):
        check_computation(start.model, end)


def test_a_model_that_is_none_of_transformers_is_refused():
    start = build("clip")
    end = DualEncoder(start.model, start.processor, name="end")
    end.model = torch.nn.Identity()
    with pytest.raises(ValueError, match="END end is a Identity, whose weights are not mixed"):
        check_models(start, end)


def test_a_start_with_more_positions_than_the_end_is_taken_as_it_is():
    start = build("clip")
    end = DualEncoder(copy.deepcopy(start.model), copy.deepcopy(start.processor))
    stretch_positions(start.model, 150)
    assert fit_start(start, end) is start.model
