"""The model: equal to the original implementation, its properties, and what users do with it."""

import itertools
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.utils import logging

from modeling_lotlip.convert_lotlip_to_hf import WORD_TABLE, config_from_checkpoint, from_theirs, to_theirs
from modeling_lotlip.modeling_lotlip import (
    LotlipCaptionEmbeddings,
    LotlipModel,
    LotlipTextModel,
    LotlipTextModelWithProjection,
    LotlipVisionModel,
    LotlipVisionModelWithProjection,
    image_text_contrastive_loss,
)
from tests.conftest import TINY_REFERENCE, needs_tiny_reference, tiny_config


# Of `tiny_config`
WIDTH = 32
VOCAB_SIZE = 64
IMAGE_SIZE = 32


# Fresh models. At an initializer range of 0.02 all texts of such small models embed nearly alike.
def new_config(num_corner_tokens=2, vision_projection_dim=None, **kwargs):
    fields = {"num_corner_tokens": num_corner_tokens, "initializer_range": 0.1, "max_position_embeddings": 40}
    config = tiny_config(dropout=0.0, **fields | kwargs)
    config.vision_config.projection_dim = vision_projection_dim
    return config


def new_model(num_corner_tokens=2, vision_projection_dim=None, seed=0, **kwargs):
    torch.manual_seed(seed)
    return LotlipModel(new_config(num_corner_tokens, vision_projection_dim, **kwargs)).eval()


def new_text_model(num_corner_tokens=2, seed=0, **kwargs):
    torch.manual_seed(seed)
    return LotlipTextModel(new_config(num_corner_tokens, **kwargs).text_config).eval()


def random_captions(batch_size, low=2, high=12, seed=0):
    """Texts of random lengths, as a list of 1-D tensors without padding."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(low, high, (batch_size,), generator=generator)
    return [torch.randint(1, VOCAB_SIZE, (int(length),), generator=generator) for length in lengths]


def pad(captions, length=None, filler=0):
    """Captions to a batch. An absent one (None) is a row of padding."""
    length = length or max(len(caption) for caption in captions if caption is not None)
    input_ids = torch.full((len(captions), length), filler)
    attention_mask = torch.zeros(len(captions), length, dtype=torch.long)
    for row, caption in enumerate(captions):
        if caption is not None:
            input_ids[row, : len(caption)] = caption
            attention_mask[row, : len(caption)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def random_images(batch_size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)


def normalize(embeds):
    return nn.functional.normalize(embeds, dim=-1)


def float64_scale(model):
    """The scale of the logits of a model."""
    return model.logit_scale.detach().double().exp()


def assert_close(actual, expected, atol=1e-5):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def without_corner_positions(x, num_corner_tokens=2):
    return torch.cat([x[..., :1], x[..., num_corner_tokens + 1 :]], dim=-1)


# ---- the original implementation


@needs_tiny_reference
def test_image_tower_logits_and_gradients_equal_the_reference():
    """Of the text tower and the loss: tests/reference."""
    tiny = TINY_REFERENCE
    checkpoint = torch.load(tiny / "model.pt", weights_only=True)
    architecture = json.loads((tiny / "open_clip_config.json").read_text())
    num_words = len(checkpoint[WORD_TABLE]) - architecture["text_cfg"]["num_corner_token"]
    config = config_from_checkpoint(checkpoint, architecture, num_words)
    model = LotlipModel(config).eval()
    model.load_state_dict(from_theirs(config, checkpoint, "lotlip").state_dict())
    pixel_values = load_file(tiny / "pixel_values.safetensors")["pixel_values"]
    expected = load_file(tiny / "expected.safetensors")
    input_ids = without_corner_positions(expected["input_ids_128"])[:6]
    attention_mask = without_corner_positions(expected["attention_mask_2d_128"])[:6]
    with torch.no_grad():
        images = model.get_image_features(pixel_values)
        outputs = model(input_ids, pixel_values, attention_mask)
    assert_close(images.pooler_output, expected["image_features"])
    assert_close(images.last_hidden_state[:2], expected["vision_last_hidden_state_first2"])
    assert_close(outputs.logits_per_image, expected["logits_per_image_7_images_first_6_texts"])

    batch = load_file(tiny / "loss.safetensors")
    input_ids = without_corner_positions(batch["input_ids"])
    model(input_ids, batch["pixel_values"], (input_ids != 0).long(), return_loss=True).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    norms = {name: gradient.norm().item() for name, gradient in to_theirs(gradients, "lotlip").items()}
    expected = json.loads((tiny / "loss.json").read_text())["grad_norm_of_parameter"]
    assert norms == pytest.approx(expected, rel=1e-4, abs=1e-8)


# ---- who sees whom


def visible(length, num_corner_tokens, is_masked, padding=0):
    """The rule of the paper, written out: (query, key) over [CLS], the corners, the text."""
    kinds = ["cls"] + ["corner"] * num_corner_tokens + ["text"] * (length - 1 + padding)
    seen = torch.zeros(len(kinds), len(kinds), dtype=torch.bool)
    for query, key in itertools.product(range(len(kinds)), repeat=2):
        hidden = kinds[key] == "corner" or (kinds[query] == "corner" and kinds[key] == "cls")
        seen[query, key] = query == key or not (hidden and is_masked)
        if key >= num_corner_tokens + length:
            seen[query, key] = False
    return seen


def seen_by_gradient(model, length, padding=0):
    """Which token's input moves which token's output, in a model of one layer."""
    generator = torch.Generator().manual_seed(1)
    embeds = torch.randn(1, length + padding, WIDTH, generator=generator, requires_grad=True)
    attention_mask = torch.tensor([[1] * length + [0] * padding])
    outputs = model(inputs_embeds=embeds, attention_mask=attention_mask, output_corner_tokens=True)
    states = outputs.last_hidden_state
    inputs = [embeds]
    if outputs.corner_hidden_states is not None:
        states = torch.cat([states[:, :1], outputs.corner_hidden_states, states[:, 1:]], dim=1)
        inputs.append(model.embeddings.corner_tokens)
    rows = []
    for query in range(states.shape[1]):
        first_unit = states[0, query, 0]  # the sum over a layer norm's output is a constant
        gradients = torch.autograd.grad(
            first_unit, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        moved = [(gradient.reshape(-1, WIDTH).abs().amax(dim=-1) > 0) for gradient in gradients]
        rows.append(torch.cat([moved[0][:1], *moved[1:], moved[0][1:]]))
    return torch.stack(rows)


@pytest.mark.parametrize("is_masked", [True, False])
@pytest.mark.parametrize("num_corner_tokens", [0, 1, 3])
def test_who_sees_whom(num_corner_tokens, is_masked):
    length = 4
    padding = 2
    for attn_implementation in ("eager", "sdpa"):
        model = new_text_model(num_corner_tokens, num_hidden_layers=1, corner_attention_mask=is_masked)
        model.set_attn_implementation(attn_implementation)
        seen = seen_by_gradient(model, length, padding)[: num_corner_tokens + length]
        expected = visible(length, num_corner_tokens, is_masked, padding)[: num_corner_tokens + length]
        assert torch.equal(seen, expected), attn_implementation


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
@pytest.mark.parametrize(("num_corner_tokens", "is_masked"), [(0, True), (1, True), (4, True), (2, False)])
def test_padding_and_the_batch_change_no_embedding(num_corner_tokens, is_masked, attn_implementation):
    model = new_text_model(num_corner_tokens, corner_attention_mask=is_masked)
    model.set_attn_implementation(attn_implementation)
    captions = random_captions(5)
    with torch.no_grad():
        batched = model(**pad(captions, length=17, filler=7), output_corner_tokens=True)
        tight = model(**pad(captions), output_corner_tokens=True)
        plain = model(**pad(captions))
        alone = [model(caption[None], output_corner_tokens=True) for caption in captions]
    for row, (caption, own) in enumerate(zip(captions, alone)):
        for outputs in (batched, tight, plain):
            assert_close(outputs.pooler_output[row], own.pooler_output[0])
            assert_close(outputs.last_hidden_state[row, : len(caption)], own.last_hidden_state[0])
        if num_corner_tokens > 0:
            assert_close(batched.corner_pooler_output[row], own.corner_pooler_output[0])
            assert_close(batched.corner_hidden_states[row], own.corner_hidden_states[0])
    assert (plain.corner_hidden_states is None) == (is_masked or num_corner_tokens == 0)


def test_backends_that_cannot_hide_corner_tokens_refuse():
    AttentionInterface.register("without_a_mask", sdpa_attention_forward)
    model = new_text_model()
    captions = pad(random_captions(3))
    with torch.no_grad():
        expected = model(captions["input_ids"]).pooler_output
        model.set_attn_implementation("without_a_mask")
        assert_close(model(captions["input_ids"]).pooler_output, expected)
        # padding would be read as text
        with pytest.raises(ValueError, match="'without_a_mask'` has no function of masks"):
            model(**captions)
        with pytest.raises(ValueError, match="'without_a_mask'.*set_attn_implementation"):
            model(**captions, output_corner_tokens=True)
        # flash attention need not be installed for its mask
        for mask in (captions["attention_mask"], torch.ones_like(captions["attention_mask"])):
            model.config._attn_implementation = "flash_attention_2"
            with pytest.raises(ValueError, match="'flash_attention_2'.*set_attn_implementation"):
                model(captions["input_ids"], mask, output_corner_tokens=True)


# ---- embeddings


def test_positions_leave_room_for_the_corner_tokens():
    """With positions given and no corners computed, any number of corners is a BERT."""
    plain = new_text_model(0)
    model = new_text_model(3)
    model.load_state_dict(plain.state_dict(), strict=False)
    captions = pad(random_captions(4))
    positions = torch.arange(captions["input_ids"].shape[1])[None]
    shifted = torch.where(positions > 0, positions + 3, positions)
    with torch.no_grad():
        found = model(**captions, position_ids=positions)
        assert_close(found.pooler_output, plain(**captions).pooler_output)
        expected = plain(**captions, position_ids=shifted)
        assert_close(model(**captions).pooler_output, expected.pooler_output)
        found = model(**captions, position_ids=shifted, output_corner_tokens=True)
        expected = model(**captions, output_corner_tokens=True)
        assert_close(found.corner_pooler_output, expected.corner_pooler_output)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_float32(tmp_path, dtype):
    model = new_model(vision_projection_dim=WIDTH)
    model.save_pretrained(tmp_path)
    half = LotlipModel.from_pretrained(tmp_path, dtype=dtype)
    inputs = {**pad(random_captions(6)), "pixel_values": random_images(6), "return_loss": True}
    with torch.no_grad():
        expected = model(**inputs)
        outputs = half(**inputs)
    assert outputs.text_embeds.dtype == outputs.image_embeds.dtype == dtype
    for name in ("text_embeds", "image_embeds"):
        assert nn.functional.cosine_similarity(outputs[name].float(), expected[name]).min() > 0.999
    assert outputs.loss.dtype == torch.float32
    assert outputs.loss.item() == pytest.approx(expected.loss.item(), rel=0.05)


def test_the_loss_under_autocast_is_that_of_float32():
    """Of the towers' bfloat16 outputs; the gradients of bfloat16 logits are off by some hundredths."""
    model = new_model(vision_projection_dim=WIDTH)
    batch_size = 5
    captions = pad(random_captions(batch_size))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**captions, pixel_values=random_images(batch_size), return_loss=True)
        text = outputs.text_model_output
        image = outputs.vision_model_output.pooler_output
    assert text.pooler_output.dtype == image.dtype == torch.bfloat16
    embeds = [text.pooler_output, text.corner_pooler_output, image]
    leaves = [tensor.detach().float().requires_grad_() for tensor in embeds]
    texts = normalize(torch.cat([leaves[0][:, None], leaves[1]], dim=1))
    images = normalize(leaves[2])
    loss = image_text_contrastive_loss(images, texts, model.logit_scale.exp())

    assert outputs.text_embeds.dtype == outputs.logits_per_image.dtype == torch.float32
    assert_close(outputs.text_embeds, texts[:, 0], atol=1e-6)
    logits = texts[:, 0] @ images.T * model.logit_scale.exp()
    assert_close(outputs.logits_per_text, logits, atol=1e-5)
    assert outputs.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    expected = torch.autograd.grad(loss, leaves + [model.logit_scale])
    found = torch.autograd.grad(outputs.loss, embeds + [model.logit_scale])
    for gradient, expected_gradient in zip(found[:3], expected[:3]):
        # what reaches a bfloat16 tensor is rounded once
        assert torch.equal(gradient, expected_gradient.bfloat16())
    assert_close(found[3], expected[3], atol=1e-6)


# ---- the loss and the forms of text


def plain_loss(image_embeds, text_embeds, present, scale):
    """The loss in float64, slot by slot and row by row, with the rows and columns of absent captions taken out."""
    losses = []
    for slot in range(text_embeds.shape[1]):
        rows = present[:, slot].nonzero()[:, 0].tolist()
        if len(rows) < 2:
            continue
        logits = scale * text_embeds[:, slot].double() @ image_embeds.double().T
        total = 0.0
        for row in rows:
            of_text = logits[row, rows].logsumexp(0) - logits[row, row]
            of_image = logits[rows, row].logsumexp(0) - logits[row, row]
            total += 0.5 * (of_text + of_image)
        losses.append(total / len(rows))
    if not losses:
        return 0.0
    return float(sum(losses) / len(losses))


@pytest.mark.parametrize("seed", range(3))
def test_loss_is_the_plain_one(seed):
    generator = torch.Generator().manual_seed(seed)
    batch_size = 6
    slots = 4
    image_embeds = normalize(torch.randn(batch_size, 8, generator=generator))
    text_embeds = normalize(torch.randn(batch_size, slots, 8, generator=generator))
    present = torch.rand(batch_size, slots, generator=generator) > 0.4
    present[:, 2] = torch.arange(batch_size) == 3  # one pair is no contrast
    image_embeds.requires_grad_()
    text_embeds.requires_grad_()
    scale = torch.tensor(14.0)
    loss = image_text_contrastive_loss(image_embeds, text_embeds, scale, present)
    expected = plain_loss(image_embeds.detach(), text_embeds.detach(), present, scale)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    loss.backward()
    assert image_embeds.grad.isfinite().all()
    assert not text_embeds.grad[~present].any()
    assert text_embeds.grad[:, :2][present[:, :2]].any()


def embed_alone(model, caption, output_corner_tokens):
    """The normalized slots of one caption, computed without any other."""
    outputs = model.get_text_features(caption[None], output_corner_tokens=output_corner_tokens)
    slots = [outputs.pooler_output]
    if output_corner_tokens and outputs.corner_pooler_output is not None:
        slots.extend(outputs.corner_pooler_output.unbind(1))
    return nn.functional.normalize(torch.cat(slots), dim=-1)


@pytest.mark.parametrize(("num_corner_tokens", "is_masked"), [(2, True), (0, True), (1, False)])
@pytest.mark.parametrize("num_long_captions", [0, 1, 3])
def test_short_and_long_captions(num_long_captions, num_corner_tokens, is_masked):
    """With absent ones, against captions embedded one by one."""
    model = new_model(num_corner_tokens, corner_attention_mask=is_masked, seed=num_long_captions)
    batch_size = 5
    short = random_captions(batch_size, high=6)
    long = [random_captions(num_long_captions, low=5, high=14, seed=10 + image) for image in range(batch_size)]
    short[3] = None
    if num_long_captions > 0:
        long[0][0] = None
    if num_long_captions == 3:
        for image in range(1, batch_size):  # one image alone has a third long caption
            long[image][2] = None

    absent = torch.zeros(num_corner_tokens + 1, WIDTH)
    expected = []
    present = []
    with torch.no_grad():
        for image in range(batch_size):
            slots = [absent[:1]]
            if short[image] is not None:
                slots = [embed_alone(model, short[image], False)]
            there = [short[image] is not None]
            for caption in long[image]:
                if caption is None:
                    slots.append(absent)
                else:
                    slots.append(embed_alone(model, caption, True))
                there.extend([caption is not None] * (num_corner_tokens + 1))
            expected.append(torch.cat(slots))
            present.append(there)
    expected = torch.stack(expected)
    present = torch.tensor(present)

    pixel_values = random_images(batch_size)
    captions = []
    for image in range(batch_size):
        captions += [short[image], *long[image]]
    inputs = {name: x.unflatten(0, (batch_size, -1)) for name, x in pad(captions).items()}
    with torch.no_grad():
        outputs = model(**inputs, pixel_values=pixel_values, return_loss=True)
    assert_close(outputs.text_embeds, expected)
    scale = model.logit_scale.detach().double().exp()
    loss = plain_loss(outputs.image_embeds, expected, present, scale)
    assert outputs.loss.item() == pytest.approx(loss, abs=1e-5)
    logits = expected[:, 0] @ outputs.image_embeds.T * model.logit_scale.detach().exp()
    assert_close(outputs.logits_per_text, logits, atol=1e-4)
    assert_close(outputs.logits_per_image, outputs.logits_per_text.T, atol=0)


@pytest.mark.parametrize("num_corner_tokens", [0, 2])
def test_one_caption_per_image(num_corner_tokens):
    model = new_model(num_corner_tokens, vision_projection_dim=WIDTH)
    captions = random_captions(4)
    captions[1] = None
    inputs = {**pad(captions), "pixel_values": random_images(4)}
    outputs = model(**inputs, return_loss=True)
    with torch.no_grad():
        slots = []
        for caption in captions:
            if caption is None:
                slots.append(torch.zeros(num_corner_tokens + 1, WIDTH))
            else:
                slots.append(embed_alone(model, caption, True))
        slots = torch.stack(slots)
        assert_close(model(**inputs).logits_per_text, outputs.logits_per_text)
        assert model(**inputs).loss is None
    assert_close(outputs.text_embeds.detach(), slots[:, 0])
    present = torch.tensor([[True], [False], [True], [True]]).expand(-1, num_corner_tokens + 1)
    scale = model.logit_scale.detach().double().exp()
    loss = plain_loss(outputs.image_embeds.detach(), slots, present, scale)
    assert outputs.loss.item() == pytest.approx(loss, abs=1e-5)
    outputs.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_no_contrast_is_no_loss():
    """A batch in which no slot has two pairs has the loss 0 and gradients without NaN."""
    model = new_model()
    captions = random_captions(3)
    outputs = model(**pad([captions[0], None, None]), pixel_values=random_images(3), return_loss=True)
    outputs.loss.backward()
    assert outputs.loss.item() == 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


IDS = torch.ones(2, 3, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"input_ids": IDS[:, 0].repeat(1, 8)}, r"40 tokens, but the position table ends at 38"),
        ({"input_ids": IDS, "attention_mask": IDS[:, 0]}, r"`attention_mask` .*, got \(2, 5\)"),
        ({"input_ids": IDS, "position_ids": IDS[0]}, r"`position_ids` .*, got \(3, 5\)"),
        ({"input_ids": IDS[:, :0]}, r"`input_ids` .*with a caption at least.*got \(2, 0, 5\)"),
        ({}, "`input_ids`"),
        ({"input_ids": IDS[:, 0], "pixel_values": torch.zeros(2, 3, 48, 32)}, r"48\*32.*32\*32"),
        ({"input_ids": IDS[:, 0], "pixel_values": torch.zeros(2, 1, 32, 32)}, "Expected 3 but got 1"),
        ({"input_ids": IDS[:, 0], "pixel_values": None}, "`pixel_values`"),
        ({"input_ids": IDS[:1, 0], "return_loss": True}, "texts for 1 images and `pixel_values` of 2"),
    ],
)
def test_wrong_inputs_are_named(inputs, match):
    with pytest.raises(ValueError, match=match):
        new_model()(**{"pixel_values": random_images(2), **inputs})


@pytest.mark.parametrize("output_corner_tokens", [True, False])
@pytest.mark.parametrize("shape", [(2, 1, 5, 5), (2, 5, 5), (2, 4), (2, 6), (1, 5), (3, 5)])
def test_masks_of_other_shapes_than_that_of_padding_are_refused(shape, output_corner_tokens):
    mask = torch.ones(shape)
    with pytest.raises(ValueError, match=r"`attention_mask` must be of shape \(batch_size, length\)"):
        new_model().get_text_features(IDS[:, 0], mask, output_corner_tokens=output_corner_tokens)
    with pytest.raises(ValueError, match=r"`attention_mask` must be of shape \(batch_size, length\)"):
        new_model()(IDS[:, 0], random_images(2), mask)


@pytest.mark.parametrize("padding", [-1e9, -math.inf, torch.finfo(torch.float32).min])
def test_an_additive_mask_is_refused(padding):
    mask = torch.zeros(2, 5)
    mask[1, 3:] = padding
    with pytest.raises(ValueError, match="`attention_mask` must be 1 for tokens and 0 for padding, got values down"):
        new_model().get_text_features(IDS[:, 0], mask)


def test_padding_without_a_mask_is_a_warning(caplog):
    """The library's own: such texts have other embeddings."""
    model = new_model()
    captions = pad([torch.ones(4, dtype=torch.long), torch.ones(2, dtype=torch.long)])
    logging.get_logger("transformers").warning_once.cache_clear()
    with torch.no_grad():
        model.get_text_features(**captions)
        model.get_text_features(captions["input_ids"][:1])
        assert not caplog.records
        model.get_text_features(captions["input_ids"])
    assert "passing in an `attention_mask`" in caplog.text


# ---- embed_images and embed_captions, which forward and training call


def captions_of_own_lengths(batch_size=4, num_long_captions=2):
    """Short and long captions, each padded to its own length; one short and one long caption are absent."""
    short = [None, *random_captions(batch_size - 1, high=6)]
    long = random_captions(batch_size * num_long_captions, low=6, high=14, seed=1)
    long[1] = None
    inputs = {f"short_{name}": tensor for name, tensor in pad(short).items()}
    for name, tensor in pad(long).items():
        inputs[f"long_{name}"] = tensor.unflatten(0, (batch_size, num_long_captions))
    return inputs, short, long


def test_captions_are_embedded_by_name():
    model = new_model()
    inputs, short, long = captions_of_own_lengths()
    with torch.no_grad():
        captions = model.embed_captions(**inputs)
        for row, caption in enumerate(short):
            if caption is not None:
                assert_close(captions.short[row], embed_alone(model, caption, False)[0])
        for index, caption in enumerate(long):
            if caption is not None:
                expected = embed_alone(model, caption, True)
                assert_close(captions.long[index // 2, index % 2], expected[0])
                assert_close(captions.corners[index // 2, index % 2], expected[1:])
    assert captions.short_mask.tolist() == [False, True, True, True]
    assert captions.long_mask.tolist() == [[True, False], [True, True], [True, True], [True, True]]
    assert not captions.short[0].any()
    assert not captions.long[0, 1].any()
    assert not captions.corners[0, 1].any()


def test_only_what_was_given_is_embedded():
    model = new_model()
    inputs, _, _ = captions_of_own_lengths()
    short_alone = model.embed_captions(inputs["short_input_ids"], inputs["short_attention_mask"])
    assert list(short_alone) == ["short", "short_mask"]
    long_alone = model.embed_captions(long_input_ids=inputs["long_input_ids"])
    assert sorted(long_alone) == ["corners", "long", "long_mask"]
    assert long_alone.long_mask.all(), "without an attention mask no caption is absent"
    assert new_model(num_corner_tokens=0).embed_captions(**inputs).corners is None


def test_embeddings_are_of_length_1_in_float32_whatever_the_dtype():
    model = new_model().to(torch.bfloat16)
    inputs, _, _ = captions_of_own_lengths()
    with torch.no_grad():
        captions = model.embed_captions(**inputs)
        images = model.embed_images(random_images(3))
    for embeds in (captions.short[1:], captions.long[1:], captions.corners[1:], images):
        assert embeds.dtype == torch.float32
        assert_close(embeds.norm(dim=-1), torch.ones(embeds.shape[:-1]))


def test_positions_and_types_of_one_kind_of_caption_go_to_it_alone():
    model = new_model()
    inputs, _, _ = captions_of_own_lengths()
    types = torch.ones_like(inputs["long_input_ids"])
    with torch.no_grad():
        plain = model.embed_captions(**inputs)
        typed = model.embed_captions(**inputs, long_token_type_ids=types)
        expected = model.get_text_features(
            inputs["long_input_ids"][1], inputs["long_attention_mask"][1], token_type_ids=types[1]
        )
    assert_close(typed.short, plain.short, atol=0)
    assert_close(typed.long[1], normalize(expected.pooler_output))


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({}, "`short_input_ids`, `long_input_ids` or both"),
        ({"short_input_ids": torch.ones(2, 3, 5)}, r"`short_input_ids` .*\(batch_size, length\), got \(2, 3, 5\)"),
        ({"long_input_ids": torch.ones(2, 5)}, r"`long_input_ids` .*\(batch_size, captions, length\), got \(2, 5\)"),
    ],
)
def test_captions_of_a_wrong_shape_are_named(inputs, match):
    with pytest.raises(ValueError, match=match):
        new_model().embed_captions(**inputs)


class TwoImageTowers(LotlipModel):
    """Adds what a second image tower sees."""

    def __init__(self, config):
        super().__init__(config)
        self.second_tower = LotlipVisionModel(config.vision_config)
        self.post_init()

    def embed_images(self, pixel_values, **kwargs):
        first = super().embed_images(pixel_values, **kwargs)
        second = self.second_tower(pixel_values.flip(-1)).pooler_output
        return normalize(first + second)


class PooledCorners(LotlipModel):
    """A long caption is the mean of its `[CLS]` and its corner tokens."""

    def embed_captions(self, *args, **kwargs):
        captions = super().embed_captions(*args, **kwargs)
        if captions.long is not None:
            pooled = captions.long + captions.corners.sum(dim=2)
            captions.long = normalize(pooled)
            captions.corners = None
        return captions


class WithoutCorners(LotlipModel):
    """Embeds by the towers themselves, with nothing of what [`LotlipModel`] does."""

    def embed_images(self, pixel_values, **kwargs):
        return normalize(self.vision_model(pixel_values).pooler_output)

    def embed_captions(self, short_input_ids=None, short_attention_mask=None, **kwargs):
        embeds = {}
        if short_input_ids is not None:
            outputs = self.text_model(short_input_ids, short_attention_mask)
            embeds["short"] = normalize(self.text_projection(outputs.pooler_output))
            embeds["short_mask"] = torch.ones(len(short_input_ids), dtype=torch.bool)
        if kwargs.get("long_input_ids") is not None:
            ids = kwargs["long_input_ids"]
            outputs = self.text_model(ids.flatten(0, 1), kwargs["long_attention_mask"].flatten(0, 1))
            long = normalize(self.text_projection(outputs.pooler_output))
            embeds["long"] = long.unflatten(0, ids.shape[:2])
            embeds["long_mask"] = torch.ones(ids.shape[:2], dtype=torch.bool)
        return LotlipCaptionEmbeddings(**embeds)


@pytest.mark.parametrize("form", ["one caption", "several captions"])
@pytest.mark.parametrize("model_class", [TwoImageTowers, PooledCorners, WithoutCorners])
def test_forward_and_the_loss_of_a_subclass_are_of_what_it_embeds(model_class, form):
    torch.manual_seed(0)
    model = model_class(new_config()).eval()
    batch_size = 4
    num_captions = 3
    captions = pad(random_captions(batch_size * num_captions))
    if form == "one caption":
        inputs = {name: tensor[:batch_size] for name, tensor in captions.items()}
        named = {f"long_{name}": tensor[:, None] for name, tensor in inputs.items()}
    else:
        shape = (batch_size, num_captions)
        inputs = {name: tensor.unflatten(0, shape) for name, tensor in captions.items()}
        named = {f"short_{name}": tensor[:, 0] for name, tensor in inputs.items()}
        named |= {f"long_{name}": tensor[:, 1:] for name, tensor in inputs.items()}
    pixel_values = random_images(batch_size)
    outputs = model(**inputs, pixel_values=pixel_values, return_loss=True)

    images = model.embed_images(pixel_values).detach()
    embeds = model.embed_captions(**named)
    slots = []
    if embeds.short is not None:
        slots.append(embeds.short)
    for caption in range(embeds.long.shape[1]):
        slots.append(embeds.long[:, caption])
        if embeds.corners is not None:
            slots.extend(embeds.corners[:, caption].unbind(1))
    slots = torch.stack(slots, dim=1).detach()
    scale = model.logit_scale.detach().exp()
    expected = plain_loss(images, slots, torch.ones(slots.shape[:2], dtype=torch.bool), scale.double())
    assert outputs.loss.item() == pytest.approx(expected, abs=1e-5)
    assert_close(outputs.image_embeds.detach(), images)
    assert_close(outputs.logits_per_text.detach(), slots[:, 0] @ images.T * scale, atol=1e-4)
    if form == "several captions":
        assert_close(outputs.text_embeds.detach(), slots)


# ---- compilation, towers and words


@pytest.mark.parametrize("form", ["one caption", "several captions"])
def test_compiled_training_step(form):
    """The whole step in one graph, gradients included."""
    if form == "one caption":
        inputs = pad(random_captions(4))
    else:
        inputs = pad(random_captions(12))
        inputs = {name: x.unflatten(0, (4, -1)) for name, x in inputs.items()}
    inputs["pixel_values"] = random_images(4)
    torch.manual_seed(0)
    config = new_config(vision_projection_dim=WIDTH, num_hidden_layers=1)
    config.vision_config.num_hidden_layers = 1
    model = LotlipModel(config).train()
    model(**inputs, return_loss=True).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    model.zero_grad()
    compiled(**inputs, return_loss=True).loss.backward()
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, expected[name])


def test_text_tower_with_projection_gives_what_the_dual_encoder_gives():
    model = new_model()
    captions = pad(random_captions(3))
    tower = LotlipTextModelWithProjection(model.config.text_config).eval()
    weights = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("text_")}
    tower.load_state_dict(weights)
    with torch.no_grad():
        outputs = tower(**captions, output_corner_tokens=True)
        expected = model.get_text_features(**captions, output_corner_tokens=True)
    assert_close(outputs.text_embeds, expected.pooler_output)
    assert_close(outputs.corner_embeds, expected.corner_pooler_output)


@pytest.mark.parametrize(
    "tower_class",
    [LotlipTextModel, LotlipTextModelWithProjection, LotlipVisionModel, LotlipVisionModelWithProjection],
)
def test_a_tower_alone_leaves_the_other_one_unmentioned(tmp_path, tower_class):
    new_model(vision_projection_dim=WIDTH).save_pretrained(tmp_path)
    _, report = tower_class.from_pretrained(tmp_path, output_loading_info=True)
    assert report["unexpected_keys"] == set()


@pytest.mark.parametrize(
    "name", ["text_adapter.weight", "visual_adapter.weight", "logit_bias", "vision_model.lora_A.weight"]
)
def test_tensors_that_the_whole_model_has_no_use_for_are_reported(tmp_path, name):
    model = new_model()
    model.save_pretrained(tmp_path, state_dict=model.state_dict() | {name: torch.ones(3)})
    _, report = LotlipModel.from_pretrained(tmp_path, output_loading_info=True)
    assert report["unexpected_keys"] == {name}


def test_an_image_tower_without_projection_reports_that_of_the_weights(tmp_path):
    new_model(vision_projection_dim=WIDTH).save_pretrained(tmp_path)
    config = new_config().vision_config
    options = {"config": config, "output_loading_info": True}
    _, report = LotlipVisionModelWithProjection.from_pretrained(tmp_path, **options)
    assert report["unexpected_keys"] == {"visual_projection.weight"}


def test_resized_token_embeddings_leave_the_features_as_they_are(tmp_path):
    model = new_model()
    captions = pad(random_captions(3))
    with torch.no_grad():
        expected = model.get_text_features(**captions, output_corner_tokens=True)
        model.resize_token_embeddings(VOCAB_SIZE + 5)
        model.save_pretrained(tmp_path)
        loaded = LotlipModel.from_pretrained(tmp_path)
        for grown in (model, loaded):
            assert grown.config.text_config.vocab_size == VOCAB_SIZE + 5
            assert grown.text_model.config.vocab_size == VOCAB_SIZE + 5
            outputs = grown.get_text_features(**captions, output_corner_tokens=True)
            assert_close(outputs.pooler_output, expected.pooler_output)
            assert_close(outputs.corner_pooler_output, expected.corner_pooler_output)
        loaded.get_text_features(torch.tensor([[1, VOCAB_SIZE + 4]]))
