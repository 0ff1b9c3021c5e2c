"""The model that a training starts from: its pixels, words, the limit of its texts, and misfits."""

import shutil
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageColumn
from PIL import Image
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoProcessor,
    BitImageProcessor,
    Dinov2Config,
    Dinov2Model,
    ViTImageProcessor,
)

from modeling_lotlip import DualEncoder, LotlipConfig, LotlipImageProcessor, LotlipModel, LotlipProcessor
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.encoder.contract import get_contract
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.models import build_model, build_model_and_start, build_tokenizer, convert_model
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.samples import Sample, SampleCollator
from tests.conftest import tiny_config
from tests.helpers.dual_encoders import FAMILIES, LONG, SHORT, flatten, save_family
from tests.helpers.towers import SMALL, WORDS, save_bert, save_vit
from tests.test_initialization import save_timm


MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@pytest.fixture
def build(tmp_path):
    """The model and the processor that arguments of a training give."""

    def run(**options) -> tuple[LotlipModel, LotlipProcessor]:
        dataset = load_scenes(4)
        args = TrainArguments(output_dir=tmp_path / "run", **options)
        return build_model(args, dataset, RowReader(dataset.column_names, args))

    return run


def test_parameters_that_were_loaded_as_parts_of_one_tensor_can_be_saved(build, tmp_path):
    save_family("tipsv2", tmp_path / "tipsv2")
    model, _ = build(model_name_or_path=str(tmp_path / "tipsv2"))
    shared = [name for name, value in model.named_parameters() if value.untyped_storage().nbytes() != value.nbytes]
    assert shared == []


@pytest.mark.parametrize(("dim", "is_said"), [(16, True), (32, False), (None, False)])
def test_a_trained_model_has_all_dimensions_of_a_cut_start(build, tmp_path, caplog, dim, is_said):
    """As sentence-transformers saved it with the start, and not with the trained model."""
    save_family("lotlip", tmp_path / "plain")
    cut = SentenceTransformer(str(tmp_path / "plain"), device="cpu", truncate_dim=dim)
    cut.save_pretrained(str(tmp_path / "cut"))
    build(model_name_or_path=str(tmp_path / "cut"))
    sentence = "The trained model gives all 32 dimensions, not the first 16 that were saved with"
    assert caplog.text.count(sentence) == is_said
    assert caplog.text.count("The trained model gives") == is_said


def test_late_interaction_has_no_teacher(build, tmp_path):
    save_family("lit", tmp_path / "lit")
    with pytest.raises(ValueError, match="`--distill_weight` keeps single embeddings, which `--objective filip` has"):
        build(model_name_or_path=str(tmp_path / "lit"), objective="filip", distill_weight=1.0)


def test_a_teacher_keeps_the_mask_that_the_training_takes_away(tmp_path):
    save_family("lotlip", tmp_path / "lotlip")
    dataset = load_scenes(4)
    args = TrainArguments(
        output_dir=tmp_path / "run",
        model_name_or_path=str(tmp_path / "lotlip"),
        no_corner_attention_mask=True,
        distill_weight=1.0,
    )
    model, _, start = build_model_and_start(args, dataset, RowReader(dataset.column_names, args))
    assert model.config.text_config.corner_attention_mask is False
    assert start.model.config.text_config.corner_attention_mask is True
    ids = torch.tensor([[2, 7, 8, 3]])
    with torch.no_grad():
        masked = start.model.get_text_features(input_ids=ids).pooler_output
        unmasked = model.eval().get_text_features(input_ids=ids).pooler_output
    assert not torch.allclose(masked, unmasked, atol=1e-4)


# ---- pixels


def test_a_tower_is_used_at_the_size_of_its_image_processor(build, tmp_path):
    """DINOv2's configuration says 518 pixels, its image processor makes 224."""
    Dinov2Model(Dinov2Config(image_size=42, patch_size=14, **SMALL)).save_pretrained(tmp_path)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    for image_size, expected in ((None, 28), (42, 42)):
        model, _ = build(vision_model_name_or_path=str(tmp_path), image_size=image_size)
        assert model.config.vision_config.image_size == expected


def test_weights_are_trained_in_float32_whatever_they_are_stored_in(train, tmp_path):
    folder = train("run", max_train_steps=1)
    LotlipModel.from_pretrained(folder).bfloat16().save_pretrained(folder)
    # of bfloat16 hardly a weight would move by a step of this size
    options = {"config_name": None, "model_name_or_path": folder, "learning_rate": 1e-6, "warmup_steps": 0}
    tuned = load_file(train("tuned", **options, max_train_steps=2) / "model.safetensors")
    stored = load_file(folder / "model.safetensors")["text_projection.weight"]
    assert stored.dtype == torch.bfloat16
    assert tuned["text_projection.weight"].dtype == torch.float32
    assert (tuned["text_projection.weight"] != stored.float()).float().mean() > 0.99


def test_a_dinov2_sees_the_pixels_of_its_own_image_processor(build, tmp_path):
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **SMALL)).save_pretrained(tmp_path / "dino")
    theirs = BitImageProcessor(
        image_mean=MEAN, image_std=STD, size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}
    )
    theirs.save_pretrained(tmp_path / "dino")
    _, processor = build(vision_model_name_or_path=str(tmp_path / "dino"))
    processor.save_pretrained(tmp_path / "saved")
    ours = AutoProcessor.from_pretrained(tmp_path / "saved").image_processor
    assert type(ours) is LotlipImageProcessor
    assert (ours.image_mean, ours.image_std) == (MEAN, STD)
    image = load_scenes(1)["image"][0].resize((66, 44))
    pixels = [each(image, return_tensors="pt")["pixel_values"] for each in (ours, theirs)]
    torch.testing.assert_close(*pixels, rtol=0, atol=1e-6)

    _, processor = build(vision_model_name_or_path=str(tmp_path / "dino"), image_size=56)
    assert dict(processor.image_processor.size) == {"shortest_edge": 64}, "as much more as there"
    assert dict(processor.image_processor.crop_size) == {"height": 56, "width": 56}


def test_a_vit_sees_its_own_statistics_and_images_keep_their_proportions(build, tmp_path):
    theirs = ViTImageProcessor(image_mean=MEAN, image_std=STD, resample=2, size={"height": 32, "width": 32})
    _, processor = build(vision_model_name_or_path=save_vit(tmp_path / "vit", theirs))
    ours = processor.image_processor
    assert (ours.image_mean, ours.image_std, ours.resample) == (MEAN, STD, 2)
    assert dict(ours.size) == {"shortest_edge": 32}
    assert dict(ours.crop_size) == {"height": 32, "width": 32}
    square = Image.effect_noise((50, 50), 60).convert("RGB")
    pixels = [each(square, return_tensors="pt")["pixel_values"] for each in (ours, theirs)]
    torch.testing.assert_close(*pixels, rtol=0, atol=1e-6)

    without = ViTImageProcessor(do_normalize=False, size={"height": 32, "width": 32})
    _, processor = build(vision_model_name_or_path=save_vit(tmp_path / "raw", without))
    assert (processor.image_processor.image_mean, processor.image_processor.image_std) == ((0.0,) * 3, (1.0,) * 3)


def test_a_timm_tower_has_those_of_its_configuration(build, tmp_path):
    told = {"mean": MEAN, "std": STD, "interpolation": "bilinear", "crop_pct": 0.9}
    _, processor = build(vision_model_name_or_path=save_timm(tmp_path / "timm", pretrained_cfg=told)[1])
    ours = processor.image_processor
    assert (ours.image_mean, ours.image_std, ours.resample) == (MEAN, STD, 2)
    assert dict(ours.size) == {"shortest_edge": 32}


@pytest.mark.parametrize(
    "save",
    [
        save_vit,
        lambda folder: save_timm(folder)[1],
        lambda folder: save_vit(folder, ViTImageProcessor(rescale_factor=1 / 127.5)),
    ],
)
def test_statistics_that_nothing_tells_are_asked_for(build, tmp_path, save):
    """Or those of pixels of another range."""
    with pytest.raises(
        ValueError, match="--vision_model_name_or_path .*tower` does not tell.*save an image processor"
    ):
        build(vision_model_name_or_path=save(tmp_path / "tower"))


# ---- words


@pytest.mark.parametrize("num_rows", [9, 10, 137, 138])
def test_a_text_tower_has_a_row_for_each_word_of_its_tokenizer(build, tmp_path, caplog, num_rows):
    """It may have a few more, to be of a round number; many more are of another tokenizer."""
    tower = save_bert(tmp_path / "bert", WORDS, vocab_size=num_rows)
    told = f"The tokenizer has 10 words, but the text tower {num_rows}: "
    if num_rows == 9:
        with pytest.raises(ValueError, match=f"{told}it is that of another model"):
            build(text_model_name_or_path=tower)
    else:
        model, processor = build(text_model_name_or_path=tower)
        assert processor.tokenizer.get_vocab() == {word: index for index, word in enumerate(WORDS)}
        assert model.config.text_config.vocab_size == num_rows
        assert (told in caplog.text) == (num_rows == 138)


def test_a_new_tokenizer_knows_the_words_of_texts_as_it_cleans_them():
    """Curly quotes become straight ones, a ligature its letters, an entity its character."""
    texts = ["\u201cThe \ufb01sherman\u2019s boat\u201d", "fish &amp; chips"]
    rows = Dataset.from_dict({"image": [None, None], "caption": texts}).cast_column("image", ImageColumn())
    tokenizer = build_tokenizer(rows, RowReader(rows.column_names, CaptionArguments()))
    for ids in tokenizer(texts)["input_ids"]:
        assert tokenizer.unk_token_id not in ids
    assert {"fisherman", "&", '"'} <= tokenizer.get_vocab().keys()


def test_a_model_and_the_tokenizer_of_another_are_refused(build, model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "model")
    processor = LotlipProcessor.from_pretrained(model_dir)
    processor.tokenizer.add_tokens(["a word of another model"])
    processor.save_pretrained(folder)
    with pytest.raises(ValueError, match="The tokenizer has 22 words, but the text tower 21: it is that of another"):
        build(model_name_or_path=str(folder))


# ---- limits and corners


@pytest.mark.parametrize("name", FAMILIES)
def test_a_training_starts_where_the_model_is(build, family_folders, name):
    """What is trained reads texts as the model that it starts from, also after it was saved."""
    texts = [*flatten(SHORT)[0], *flatten(LONG)[0]]
    before = load_encoder(str(family_folders(name))).encode_text(texts, convert_to_tensor=True)
    model, processor = build(model_name_or_path=str(family_folders(name)))
    samples = [Sample(text, [], image=Image.new("RGB", (32, 32))) for text in texts]
    batch, _ = SampleCollator(processor)(samples)
    with torch.no_grad():
        trained = ContrastiveModel(model.eval()).contract.embed_captions(
            short_input_ids=batch.short.input_ids, short_attention_mask=batch.short.attention_mask
        )
        of_the_first = batch.short.select_rows(0, 1)
        alone = get_contract(model).embed_captions(
            short_input_ids=of_the_first.input_ids, short_attention_mask=of_the_first.attention_mask
        )
    torch.testing.assert_close(trained.short, before, rtol=0, atol=2e-5)
    torch.testing.assert_close(alone.short, before[:1], rtol=0, atol=2e-5)
    after = DualEncoder(model, processor).encode_text(texts, convert_to_tensor=True)
    torch.testing.assert_close(after, before, rtol=0, atol=2e-5)


def test_the_teacher_reads_texts_as_the_model_did(build, family_folders):
    encoder = load_encoder(str(family_folders("siglip2")))
    texts = flatten(SHORT)[0]
    expected = encoder.preprocessing.tokenize(texts).inputs["input_ids"]
    _, processor = build(model_name_or_path=str(family_folders("siglip2")), max_length=100)
    collator = SampleCollator(processor)
    collator.read_for_teacher(64)
    batch, _ = collator([Sample(text, [], image=Image.new("RGB", (32, 32))) for text in texts])
    assert batch.short.input_ids.shape == (len(texts), 100)
    assert torch.equal(batch.start_short.input_ids, expected)


@pytest.mark.parametrize(
    ("name", "max_length", "message"),
    [
        (
            "siglip",
            32,
            "`--max_length 32` is below the 64 tokens that a SiglipModel was trained with: it reads",
        ),
        ("long_clip", 77, "`--max_length 77` would not be kept: .* would read 248 tokens. Give 76"),
    ],
)
def test_a_limit_that_would_not_be_kept_is_refused(build, family_folders, name, max_length, message):
    with pytest.raises(ValueError, match=message):
        build(model_name_or_path=str(family_folders(name)), max_length=max_length)


def test_a_limit_below_the_positions_is_that_of_the_saved_model(build, family_folders, tmp_path):
    model, processor = build(model_name_or_path=str(family_folders("long_clip")), max_length=76)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert load_encoder(str(tmp_path)).max_length == 76


def test_a_model_trained_further_keeps_its_limit_of_texts(build, model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "model")
    for saved, expected in ((77, 77), (300, 300), (2000, 510)):
        processor = LotlipProcessor.from_pretrained(model_dir)
        processor.tokenizer.model_max_length = saved
        processor.save_pretrained(folder)
        model, processor = build(model_name_or_path=str(folder))
        assert processor.tokenizer.model_max_length == expected
    _, processor = build(model_name_or_path=str(folder), max_length=50)
    assert processor.tokenizer.model_max_length == 50
    assert model.config.text_config.num_corner_tokens == 2


def test_corners_are_those_of_a_configuration(build, tmp_path):
    tiny_config(num_corner_tokens=4).save_pretrained(tmp_path / "config")
    options = {"config_name": str(tmp_path / "config")}
    for given, expected in (({}, 4), ({"num_corner_tokens": 1}, 1), ({"objective": "clip"}, 0)):
        model, processor = build(**options, **given)
        assert model.config.text_config.num_corner_tokens == expected
        assert processor.tokenizer.model_max_length == 128 - expected


def test_the_mask_of_corners_is_an_argument(build):
    model, _ = build(no_corner_attention_mask=True)
    assert model.config.text_config.corner_attention_mask is False


# ---- random weights


def save_small_config(folder, initializer_range: float) -> str:
    tower = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    text = {**tower, "projection_dim": 128, "initializer_range": initializer_range}
    LotlipConfig(text_config=text, vision_config={**tower, "image_size": 64}, projection_dim=128).save_pretrained(
        folder
    )
    return str(folder)


def test_a_text_tower_that_starts_collapsed_is_named(build, tmp_path, caplog):
    build(config_name=save_small_config(tmp_path, 0.02))
    assert "The text tower starts collapsed: different captions have a mean cosine of 1.0000" in caplog.text
    assert "which is 0.02" in caplog.text


@pytest.mark.parametrize("has_config", [False, True])
def test_a_text_tower_that_tells_captions_apart_is_not(build, tmp_path, caplog, has_config):
    torch.manual_seed(0)
    if has_config:
        build(config_name=save_small_config(tmp_path, 0.1))
    else:
        build()
    assert "collapsed" not in caplog.text


def test_a_configuration_keeps_what_it_says(build, tmp_path):
    folder = save_small_config(tmp_path, 0.03)
    model, _ = build(config_name=folder)
    assert model.config.text_config.initializer_range == 0.03
    assert model.config.text_config.hidden_dropout_prob == 0.1
    assert model.config.vision_config.image_size == 64


class RenamedConfig(LotlipConfig):
    model_type = "lotlip_renamed"


class RenamedModel(LotlipModel):
    """Projects texts by a layer of another name."""

    config_class = RenamedConfig

    def __init__(self, config):
        super().__init__(config)
        self.projection = self.text_projection
        del self.text_projection
        self.post_init()


def test_weights_that_a_class_of_ones_own_has_no_parameter_for_are_named(caplog):
    AutoConfig.register("lotlip_renamed", RenamedConfig, exist_ok=True)
    AutoModel.register(RenamedConfig, RenamedModel, exist_ok=True)
    objective = replace(OBJECTIVES["lotlip"], model_class=RenamedModel)
    convert_model(LotlipModel(tiny_config()), objective)
    assert "A RenamedModel has no text_projection.weight: these weights of the LotlipModel are lost." in caplog.text


class WithoutConfigModel(LotlipModel):
    """A saved one would be a plain LotlipModel."""


class UnregisteredConfig(LotlipConfig):
    model_type = "lotlip_unregistered"


class UnregisteredModel(LotlipModel):
    config_class = UnregisteredConfig


@pytest.mark.parametrize("model_class", [WithoutConfigModel, UnregisteredModel])
def test_a_class_that_would_not_be_found_again_is_refused(model_class):
    objective = replace(OBJECTIVES["lotlip"], model_class=model_class)
    with pytest.raises(ValueError, match=f"{model_class.__name__} would be trained, but .* would load as another"):
        convert_model(LotlipModel(tiny_config()), objective)


def test_a_model_of_another_family_does_not_become_a_class_of_ones_own():
    model, _ = FAMILIES["vit_bert"].build()
    objective = replace(OBJECTIVES["lotlip"], model_class=UnregisteredModel)
    with pytest.raises(ValueError, match="trains a UnregisteredModel, which a VisionText.* cannot become"):
        convert_model(model, objective)
    assert convert_model(model, OBJECTIVES["lotlip"]) is model


def test_dims_that_embeddings_do_not_have_are_refused_before_the_first_step(build):
    with pytest.raises(ValueError, match="`--matryoshka_dims` must be an integer from 1 to 128, .*, got 129"):
        build(matryoshka_dims=[64, 129])


def test_dims_of_embeddings_are_kept_with_that_of_a_whole_one(build):
    model, _ = build(matryoshka_dims=[32, 64, 32])
    assert model.config.matryoshka_dims == [128, 64, 32]
