"""What one model does with a text and an image: relevance on cases whose answer is known, and the page of it."""

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import BertTokenizer, CLIPTokenizer

from modeling_lotlip import LotlipTokenizer
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.dual_encoder import DualEncoder, load_encoder
from modeling_lotlip.encoder.families import UNKNOWN_FAMILY
from modeling_lotlip.encoder.preprocessing import Preprocessing
from modeling_lotlip.evaluation.explanation import (
    Explanation,
    encode_png,
    explain,
    find_sub_caption_indices,
    render_page,
)
from modeling_lotlip.evaluation.relevance import (
    denormalize,
    heat_map,
    patch_grid,
    patch_relevance,
    similarities,
    sub_caption_directions,
    token_relevance,
)
from modeling_lotlip.utils.sub_captions import join_sub_captions, split_sub_captions
from tests.conftest import SPECIAL_TOKENS
from tests.helpers.methods import PooledModel, TwoTowersModel, make_like


TEXT = "A red boat. The ground is sand. A green tree"


class LinearEncoder(nn.Module):
    """A text tower that adds up embeddings of tokens."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 6)
        self.device = torch.device("cpu")
        self.text_model = SimpleNamespace(get_input_embeddings=lambda: self.words)

    def get_text_features(self, input_ids):
        return SimpleNamespace(pooler_output=self.words(input_ids).sum(dim=1))


def test_the_relevance_of_tokens_adds_up_to_the_length_of_the_embedding():
    torch.manual_seed(0)
    linear = LinearEncoder()
    input_ids = torch.tensor([[1, 2, 3, 3], [4, 5, 6, 7]])
    length = linear.get_text_features(input_ids).pooler_output.norm(dim=-1)
    encoder = SimpleNamespace(model=linear, family=UNKNOWN_FAMILY)
    relevance = token_relevance(encoder, {"input_ids": input_ids})
    assert torch.allclose(relevance.sum(dim=-1), length)
    assert relevance[0, 2] == relevance[0, 3]
    assert linear.words.weight.grad is None


def test_the_relevance_of_a_token_is_the_slope_along_its_word_embedding(loaded):
    torch.manual_seed(0)
    model, processor = loaded
    model.double().set_attn_implementation("sdpa")  # "eager" rounds the attention to float32
    encoder = DualEncoder(model, processor)
    inputs = encoder.preprocessing.tokenize([TEXT]).inputs
    image = nn.functional.normalize(torch.randn(1, 32, dtype=torch.float64))
    relevance = token_relevance(encoder, inputs, image)
    embeds = model.text_model.get_input_embeddings()(inputs["input_ids"])

    def similarity(scale):
        changed = embeds.clone()
        changed[:, 3] *= scale
        attention_mask = inputs["attention_mask"]
        features = model.get_text_features(inputs_embeds=changed, attention_mask=attention_mask)
        return nn.functional.cosine_similarity(features.pooler_output, image).item()

    slope = (similarity(1 + 1e-5) - similarity(1 - 1e-5)) / 2e-5
    assert relevance[0, 3].item() == pytest.approx(slope, abs=1e-6)


def test_grad_cam_is_that_of_the_equations(loaded):
    """Weights: the mean gradient over the patches; the map: their sum with the activations, where it is positive."""
    model, _ = loaded
    images = torch.randn(2, 3, 32, 32)
    texts = torch.randn(2, 2, 32)
    outputs = model.get_image_features(images[1:].clone().requires_grad_(), output_hidden_states=True)
    states = outputs.hidden_states[-2]
    for text, found in zip(texts[1], patch_relevance(model, images, texts)[1]):
        similarity = nn.functional.normalize(outputs.pooler_output, dim=-1)[0] @ text
        (gradient,) = torch.autograd.grad(similarity, states, retain_graph=True)
        expected = (states[0, 1:] @ gradient[0, 1:].mean(dim=0)).clamp(min=0).reshape(found.shape)
        assert torch.allclose(found, expected, atol=1e-6)
        assert (found > 0).any()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_relevance_of_a_token_is_that_for_the_embeddings_of_a_model_of_ones_own(loaded):
    """Which pools corner tokens with `[CLS]`, in long captions alone."""
    torch.manual_seed(0)
    model, processor = loaded
    pooled = make_like(model, PooledModel)
    encoder = DualEncoder(pooled, processor)
    inputs = encoder.preprocessing.tokenize([TEXT]).inputs
    image = nn.functional.normalize(torch.randn(1, pooled.config.projection_dim))
    words = pooled.text_model.get_input_embeddings().weight
    word = inputs["input_ids"][0, 3]
    similarity = encoder.backend.embed_texts(inputs, is_long=True) @ image[0]
    (gradient,) = torch.autograd.grad(similarity.sum(), words)
    # TEXT has this word once
    expected = (gradient[word] * words[word]).sum().item()
    as_long = token_relevance(encoder, inputs, image, is_long=True)
    as_short = token_relevance(encoder, inputs, image)
    assert as_long[0, 3].item() == pytest.approx(expected, abs=1e-6)
    assert as_short[0, 3].item() != pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="an `embed_captions` of its own, all have length 1"):
        token_relevance(encoder, inputs)


def test_a_model_that_embeds_images_in_its_own_way_has_no_heat_maps(loaded, caplog):
    model, processor = loaded
    encoder = DualEncoder(make_like(model, TwoTowersModel), processor, name="towers")
    explanation = explain(encoder, TEXT, make_scene(seed=1, index=0).draw())
    assert any(explanation.over_text)
    assert len(explanation.similarities) == 4
    assert explanation.over_image is None
    assert "<img" not in render_page([explanation])
    assert "towers has an `embed_images` of its own: no heat maps of it are drawn." in caplog.text
    with pytest.raises(ValueError, match="TwoTowersModel has an `embed_images` of its own"):
        patch_relevance(encoder.model, torch.zeros(1, 3, 32, 32), torch.ones(1, 1, 32))


def test_embeddings_that_are_cut_to_their_first_dimensions_are_explained():
    torch.manual_seed(0)
    features = torch.randn(2, 32)
    embeds = nn.functional.normalize(torch.randn(2, 3, 8), dim=-1)
    cut = nn.functional.normalize(features[:, :8], dim=-1)
    assert torch.allclose(similarities(features, embeds), (embeds @ cut[..., None])[..., 0], atol=1e-6)


def test_a_long_caption_is_explained_as_it_is_embedded(loaded):
    model, processor = loaded
    encoder = DualEncoder(make_like(model, PooledModel), processor)
    image = make_scene(seed=1, index=0).draw()
    texts = encoder.encode_text([TEXT, "A red boat. A green tree"], is_long=True)
    whole, without = texts @ encoder.encode_image(image)
    explanation = explain(encoder, TEXT, image, is_long=True)
    assert explanation.similarities[0] == pytest.approx(whole, abs=1e-6)
    assert explanation.similarities[2] == pytest.approx(whole - without, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "is_long"),
    [("a photo of a boat.", None), ("a boat. ", False), ("a boat... and a car", False), ("a boat. a car", None)],
)
def test_what_is_explained_is_the_text_that_is_embedded(loaded, text, is_long):
    """A sentence with its full stop, a short caption as it is, and several sentences."""
    encoder = DualEncoder(*loaded)
    image = make_scene(seed=1, index=0).draw()
    explanation = explain(encoder, text, image, is_long=is_long)
    expected = encoder.encode_text([text])[0] @ encoder.encode_image(image)
    assert explanation.similarities[0] == pytest.approx(expected, abs=1e-6)


def test_the_direction_of_a_sub_caption_is_what_it_adds_to_the_embedding(loaded):
    encoder = DualEncoder(*loaded)
    parts = TEXT.split(". ")
    directions = sub_caption_directions(encoder, parts)
    others = join_sub_captions([parts[0], parts[2]])
    whole, without = encoder.encode_text([TEXT, others], convert_to_tensor=True)
    assert torch.allclose(directions[1], whole - without, atol=1e-6)


def test_a_sub_caption_beyond_the_limit_adds_nothing(loaded):
    encoder = DualEncoder(*loaded, max_length=6)
    beyond_the_limit = sub_caption_directions(encoder, TEXT.split(". "))[2]
    assert (beyond_the_limit.abs() < 1e-6).all()


def test_a_single_sub_caption_has_a_direction(loaded):
    assert sub_caption_directions(DualEncoder(*loaded), ["A red boat"]).shape == (1, 32)


def test_denormalized_pixels_are_those_of_the_image(loaded):
    _, processor = loaded
    picture = make_scene(seed=1, index=0).draw().resize((32, 32))
    pixel_values = processor.image_processor([picture], return_tensors="pt")["pixel_values"]
    seen = denormalize(processor, pixel_values[0])
    assert seen.tobytes() == picture.tobytes()


def test_a_heat_map_shows_what_speaks_for_the_text_on_the_scale_that_is_asked_for():
    picture = Image.new("RGB", (224, 224), (90, 90, 90))
    relevance = torch.tensor([[1.0, -1.0], [0.5, 0.0]])

    def middles(drawn: Image.Image) -> list[tuple[int, int, int]]:
        return [drawn.getpixel(point) for point in ((56, 56), (168, 56), (56, 168), (168, 168))]

    for_text, against, half, nothing = middles(heat_map(picture, relevance))
    assert against == nothing, "gray, where nothing speaks for it"
    assert len(set(nothing)) == 1, "gray, where nothing speaks for it"
    redness = [color[0] - color[2] for color in (for_text, half, nothing)]
    assert redness[0] > 0
    assert redness[1] > 0
    assert for_text != half
    # twice the scale: the largest one looks like the half of before
    assert middles(heat_map(picture, relevance, largest=2.0))[0] == pytest.approx(half, abs=12)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_texts_of_other_dual_encoders(family, family_folders):
    encoder = load_encoder(str(family_folders(family)), LoadingArguments(device="cpu"))
    image = make_scene(seed=1, index=0).draw()
    explanation = explain(encoder, "a red boat. the ground is sand", image)
    assert len(explanation.over_text) == len(explanation.tokens)
    assert {index for index in explanation.sub_caption_indices if index is not None} == {0, 1}
    assert explanation.over_image.shape[0] == 3


SENTENCES = 'Mr. Hill says "it is red". It is 3.5 m long! The sea (blue). A sky'


def build_tokenizer(name: str):
    """A tokenizer with the words of `SENTENCES`; CLIP's has a token for a full stop behind a mark, as the real one."""
    if name == "clip":
        return CLIPTokenizer().train_new_from_iterator([SENTENCES.lower().replace(" ", "  ")] * 4, 600)
    words = [*'mr . hill says " it is red 3 5 m long ! the sea ( blue ) a sky'.split()]
    vocab = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *words])}
    return {"lotlip": LotlipTokenizer, "bert": BertTokenizer}[name](vocab=vocab)


def keep_letters(text: str) -> str:
    """The letters and digits of a text, in lower case."""
    return re.sub(r"[^a-z0-9]", "", text.replace("[SEP]", "").lower())


@pytest.mark.parametrize("name", ["lotlip", "bert", "clip"])
@pytest.mark.parametrize("splitter", ["paper", "sentences"])
def test_tokens_belong_to_the_sub_captions_that_they_are_in(name, splitter):
    tokenizer = build_tokenizer(name)
    preprocessing = Preprocessing(SimpleNamespace(tokenizer=tokenizer))
    sub_captions = split_sub_captions(SENTENCES, splitter)
    text = join_sub_captions(sub_captions)
    (input_ids,) = preprocessing.tokenize([text]).inputs["input_ids"].tolist()
    indices = find_sub_caption_indices(preprocessing, input_ids, sub_captions)
    assert indices[0] is indices[-1] is None
    assert None not in indices[1:-1]
    for index, sub_caption in enumerate(sub_captions):
        own = [token for token, of_token in zip(input_ids, indices) if of_token == index]
        assert keep_letters(tokenizer.decode(own)) == keep_letters(sub_caption)

    # truncated inside the second one: the others are not read, whatever full stops there are
    limit = indices.index(1) + 2
    (input_ids,) = preprocessing.tokenize([text], limit).inputs["input_ids"].tolist()
    indices = find_sub_caption_indices(preprocessing, input_ids, sub_captions)
    assert indices == [None, *[0] * (limit - 3), 1, None]
    assert Explanation("", [], indices, [], sub_captions).num_read == 2


def build_explanation(name: str, mark: str) -> Explanation:
    """Of a text with `mark` in every place where a text or a name stands, whose last sub-caption is not read."""
    return Explanation(
        name=name,
        tokens=["[CLS]", f"{mark}red", "##dish", "boat", "[UNK]", "[SEP]"],
        sub_caption_indices=[None, 0, 0, 0, 1, None],
        over_text=[0.0, 0.5, -0.25, 0.0, 0.25, 0.0],
        sub_captions=[f"{mark}reddish boat", f"{mark}sea", f"{mark}sky"],
        image=Image.new("RGB", (8, 8)),
        similarities=[0.5, 0.25, -0.001],
        over_image=torch.rand(3, 2, 2),
    )


def test_a_page_escapes_every_text_and_needs_no_other_file():
    mark = """<b class="x" title='y'>&amp;"""
    page = render_page([build_explanation(f"{mark}model", mark)])
    assert "<b " not in page
    assert "&amp;&lt;" not in page
    # nothing is escaped twice either
    escaped = "&lt;b class=&#34;x&#34; title=&#39;y&#39;&gt;&amp;amp;"
    # name, a token, an unread sub-caption and two maps
    assert page.count("&lt;b ") == page.count(escaped) == 5
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)


def test_a_page_has_the_numbers():
    page = render_page([build_explanation("model", "")])
    lines = re.findall(r'<div class="line">(.*)</div>', page)
    shown = [re.sub(r"<[^>]+>", "", line.replace("</span><span>", "|")) for line in lines]
    assert [line.split("|")[-1] for line in shown] == ["0.0 %", "25.0 %", "25.0 %", "0.0 %"]
    assert " reddish boat" in shown[1]
    assert "sky (beyond the limit)" in shown[3]
    assert "sub-captions: 1." in page
    assert "[UNK]: a word" in page
    notes = re.findall(r'<span class="note">([-+.\d]+)</span></figcaption>', page)
    assert notes == ["0.50", "+0.25", "+0.00"]
    assert 'title="-0.25"' in page
    assert "rgb(33 102 191 / 0.42)" in page  # half of the largest, in blue


def test_tokens_are_shaded_by_their_fraction_of_the_largest():
    """`[CLS]` may stand out far, and is not what the others are measured by."""
    explanation = build_explanation("model", "")._replace(over_text=[9.0, 0.2, -0.1, 0.0, -0.4, 0.0])
    shades = re.findall(r"background: rgb\((\d+) [^/]*/ ([\d.]+)\)", render_page([explanation]))
    assert shades == [("214", "0.85"), ("214", "0.42"), ("33", "0.21"), ("33", "0.00"), ("33", "0.85")]


def test_an_image_in_a_page_is_a_png_of_its_pixels():
    image = make_scene(seed=1, index=0).draw()
    header, _, content = encode_png(image).partition(",")
    decoded = Image.open(io.BytesIO(base64.b64decode(content)))
    assert header == "data:image/png;base64"
    assert decoded.format == "PNG"
    assert np.array_equal(decoded, image)


def test_the_maps_of_sub_captions_share_a_scale_of_their_own():
    whole, *parts = over_image = torch.tensor([8.0, 0.5, 1.0])[:, None, None] * torch.eye(2)
    explanation = build_explanation("model", "")._replace(over_image=over_image)
    map_of_whole = heat_map(explanation.image, whole, 8.0)
    first, second = (heat_map(explanation.image, part, 1.0) for part in parts)
    page = render_page([explanation])
    shown = re.findall(r'src="([^"]+)"', page)[1:]
    assert shown == [encode_png(map_of_whole), encode_png(first), encode_png(second)]
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["red", "##dish", "boat"], [True, False, True]),
        (["▁red", "dish", "▁boat"], [True, False, True]),
        (["Ġred", "dish", "Ġboat"], [True, False, True]),
        (["red", "dish</w>", "boat</w>"], [False, False, True]),
    ],
    ids=["WordPiece", "SentencePiece", "byte-level", "CLIP"],
)
def test_a_word_begins_where_its_tokenizer_says(tokens, expected):
    explanation = Explanation("", tokens, [0] * len(tokens), [], ["red"])
    assert [explanation.begins_word(index) for index in range(len(tokens))] == expected


@pytest.mark.parametrize(("indices", "num_read"), [([], 0), ([None, None], 0), ([None, 0, 2, None], 3)])
def test_sub_captions_are_read_up_to_the_last_that_has_a_token(indices, num_read):
    assert Explanation("", [], indices, [], []).num_read == num_read


@pytest.mark.parametrize(("patch_size", "grid"), [(8, (4, 6)), ((8, 16), (4, 3))])
def test_a_map_has_a_row_and_a_column_for_each_patch(patch_size, grid):
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=patch_size))
    model = SimpleNamespace(config=config)
    assert patch_grid(model, torch.zeros(1, 3, 32, 48)) == grid


@pytest.mark.parametrize(("patch_size", "shape"), [(None, (1, 3, 32, 48)), (8, (1, 24, 192))])
def test_a_tower_without_patches_of_pixels_has_no_map(patch_size, shape):
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=patch_size))
    model = SimpleNamespace(config=config)
    with pytest.raises(ValueError, match="does not cut images of pixels into patches"):
        patch_grid(model, torch.zeros(shape))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((8, 8), (224, 224)), ((56, 112), (112, 224)), ((448, 100), (448, 100))],
)
def test_a_map_is_as_large_as_its_image_but_no_smaller_than_can_be_seen(size, expected):
    assert heat_map(Image.new("RGB", size), torch.ones(2, 2)).size == expected


def test_pixels_that_are_not_normalized_stay_as_they_are():
    processor = SimpleNamespace(image_processor=SimpleNamespace(do_normalize=False))
    pixel_values = torch.tensor([0.0, 0.5, 1.5])[:, None, None]
    assert denormalize(processor, pixel_values).getpixel((0, 0)) == (0, 128, 255)


def test_a_text_that_is_empty_is_nothing_to_look_at(loaded):
    with pytest.raises(ValueError, match="`--text` is empty: there is nothing to look at"):
        explain(DualEncoder(*loaded), " . ")


def test_a_model_without_states_of_its_patches_has_no_heat_maps(loaded, monkeypatch):
    model, _ = loaded
    monkeypatch.setattr(model, "get_image_features", lambda **inputs: torch.ones(1, 32))
    with pytest.raises(ValueError, match="LotlipModel returns no states of its patches: it has no heat maps"):
        patch_relevance(model, torch.zeros(1, 3, 32, 32), torch.ones(1, 1, 32))
