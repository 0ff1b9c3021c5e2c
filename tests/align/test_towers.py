"""Towers of several libraries give the features that their libraries give."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Dropout, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    BertTokenizer,
    CvtConfig,
    CvtModel,
    DeiTConfig,
    DeiTModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    PreTrainedTokenizerFast,
    RadioConfig,
    RadioModel,
    T5Config,
    T5EncoderModel,
    TimmWrapperConfig,
    TimmWrapperModel,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEModel,
    YolosConfig,
    YolosModel,
)

from modeling_lotlip import DualEncoder
from modeling_lotlip.align.towers import (
    check_dense,
    check_modules,
    choose_image_pooling,
    copy_projection,
    count_prefix_tokens,
    explain_loading_error,
    join_towers,
    limit_tokenizer,
    load_image_tower,
    load_text_tower,
    make_processor,
    prepend,
    refer_to,
)
from modeling_lotlip.encoder.hashes import hash_model
from modeling_lotlip.hub import save_processor
from tests.helpers.dual_encoders import save_family
from tests.helpers.methods import PooledModel, TwoTowersModel, make_like
from tests.helpers.towers import WORDS


TEXTS = ["a red boat", "a photo of a boat of a boat"]


def save_t5_with_tokenizer(folder):
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    return str(folder)


def save_sentence_transformer(path, text_folder, pooling_mode, *others):
    transformer = Transformer(text_folder, max_seq_length=16)
    pooling = Pooling(64, pooling_mode=pooling_mode)
    SentenceTransformer(modules=[transformer, pooling, *others], device="cpu").save(str(path))
    return str(path)


@pytest.mark.parametrize("pooling_mode", ["mean", "cls", "lasttoken"])
def test_a_sentence_transformer_keeps_its_embeddings(text_folder, image_tower, tmp_path, pooling_mode):
    dense = Dense(64, 24, activation_function=torch.nn.Tanh())
    path = save_sentence_transformer(tmp_path / "st", text_folder, pooling_mode, dense, Normalize())
    tower = load_text_tower(path)
    model = join_towers(tower, image_tower, 24, 128, text_head="none", projection_dim=24)
    model.save_pretrained(tmp_path / "model")
    make_processor(tower, image_tower).save_pretrained(tmp_path / "model")
    encoder = DualEncoder.from_pretrained(tmp_path / "model")
    expected = SentenceTransformer(path, device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected, atol=1e-6)
    assert encoder.max_length == 16


def test_a_text_alone_keeps_its_embedding_to_the_last_bit(text_folder, image_tower, tmp_path):
    path = save_sentence_transformer(tmp_path / "st", text_folder, "mean", Normalize())
    tower = load_text_tower(path)
    model = join_towers(tower, image_tower, 64, 128, text_head="none", projection_dim=64)
    model.save_pretrained(tmp_path / "model")
    make_processor(tower, image_tower).save_pretrained(tmp_path / "model")
    encoder = DualEncoder.from_pretrained(tmp_path / "model")
    stored = SentenceTransformer(path, device="cpu")
    for text in TEXTS:
        np.testing.assert_array_equal(encoder.encode_text(text), stored.encode(text))


def test_another_module_is_refused_by_name(text_folder, tmp_path):
    path = save_sentence_transformer(tmp_path, text_folder, "mean", Dropout(0.1))
    with pytest.raises(ValueError, match="modules Transformer, Pooling, Dropout"):
        load_text_tower(path)


class OwnNormalize(Normalize):
    """A module of a user's own."""


OwnNormalize.__name__ = "Normalize"


def test_a_module_of_a_user_is_refused_by_name_even_if_it_has_one_of_the_library(text_folder):
    model = SentenceTransformer(modules=[Transformer(text_folder), Pooling(64), OwnNormalize()], device="cpu")
    with pytest.raises(ValueError, match="modules Transformer, Pooling, tests.align.test_towers.Normalize"):
        check_modules(model)


@pytest.mark.parametrize("part", ["text", "common"])
def test_a_limit_that_the_library_was_told_is_that_of_the_tower(text_folder, tmp_path, part):
    transformer = Transformer(text_folder, processing_kwargs={part: {"max_length": 4, "truncation": True}})
    SentenceTransformer(modules=[transformer, Pooling(64)], device="cpu").save(str(tmp_path))
    assert load_text_tower(str(tmp_path)).tokenizer.model_max_length == 4
    assert load_text_tower(str(tmp_path), max_length=8).tokenizer.model_max_length == 8


def test_what_else_the_library_was_told_of_texts_is_refused(text_folder, tmp_path):
    transformer = Transformer(text_folder, processing_kwargs={"text": {"truncation_side": "left"}})
    SentenceTransformer(modules=[transformer, Pooling(64)], device="cpu").save(str(tmp_path))
    with pytest.raises(ValueError, match="`processing_kwargs` have truncation_side for texts, which cannot be saved"):
        load_text_tower(str(tmp_path))


def test_another_pooling_is_refused_by_name(text_folder, tmp_path):
    path = save_sentence_transformer(tmp_path, text_folder, "max")
    with pytest.raises(ValueError, match="its pooling is max"):
        load_text_tower(path)


@pytest.mark.parametrize(
    ("tensor", "pooling", "is_refused"),
    [
        ("encoder.layer.0.output.dense.weight", "cls", True),
        ("pooler.dense.weight", "pooler", True),
        ("pooler.dense.weight", "cls", False),
    ],
)
def test_weights_that_lack_some_are_refused(tmp_path, text_folder, tensor, pooling, is_refused):
    """The library would initialize it at random. A pooler that is not used may be missing."""
    folder = shutil.copytree(text_folder, tmp_path / "text")
    weights = load_file(folder / "model.safetensors")
    weights.pop(tensor)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if is_refused:
        with pytest.raises(ValueError, match=f"cannot be used: the weights lack 1 tensors of BertModel, `{tensor}`"):
            load_text_tower(str(folder), pooling)
    else:
        assert load_text_tower(str(folder), pooling).pooling == "cls"


def save_without_pooler(source, folder):
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    assert len(kept) == len(weights) - 2
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_a_tower_without_the_pooler_that_it_does_not_use_is_the_same_at_each_load(
    text_folder, vision_folder, tmp_path
):
    """Masked language models and DINO have none, and the library makes one at random."""
    text_name = save_without_pooler(text_folder, tmp_path / "text")
    vision_name = save_without_pooler(vision_folder, tmp_path / "vision")

    def load_all():
        towers = [load_text_tower(text_name, "mean"), load_image_tower(vision_name)]
        return [hash_model(tower.model) for tower in towers]

    assert load_all() == load_all()


def test_the_half_of_a_dual_encoder_that_is_not_used_may_be_missing(tmp_path):
    """As classifiers of images are saved, that were made of one."""
    save_family("siglip", tmp_path / "siglip")
    weights = load_file(tmp_path / "siglip" / "model.safetensors")
    of_images = {name: tensor for name, tensor in weights.items() if name.startswith("vision_model.")}
    save_file(of_images, tmp_path / "siglip" / "model.safetensors", metadata={"format": "pt"})
    assert load_image_tower(str(tmp_path / "siglip")).pooling == "pooler"
    of_images.pop("vision_model.head.probe")
    save_file(of_images, tmp_path / "siglip" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="the weights lack 1 tensors of SiglipModel, `vision_model.head.probe` first"):
        load_image_tower(str(tmp_path / "siglip"))


def test_texts_of_aimv2_are_refused_for_their_attention(tmp_path):
    save_family("aimv2", tmp_path / "aimv2")
    with pytest.raises(ValueError, match="is right with the attention 'eager' alone, and that is not saved"):
        load_text_tower(str(tmp_path / "aimv2"), None)


def test_a_text_encoder_needs_a_pooling(text_folder):
    with pytest.raises(ValueError, match="give --text_pooling mean, cls or last"):
        load_text_tower(text_folder)


def test_texts_are_no_longer_than_there_are_positions(text_folder):
    assert load_text_tower(text_folder, "mean").tokenizer.model_max_length == 512
    with pytest.raises(ValueError, match="`--max_length 513` is beyond the 512 tokens"):
        load_text_tower(text_folder, "mean", max_length=513)


@pytest.mark.parametrize("prompt", [None, "a photo of "])
def test_a_processor_truncates_at_the_limit_and_not_where_its_tokenizer_last_did(
    text_folder, image_tower, tmp_path, prompt
):
    used = AutoTokenizer.from_pretrained(text_folder)
    used("a", truncation=True, max_length=8)
    shutil.copytree(text_folder, tmp_path / "text")
    used.save_pretrained(tmp_path / "text")
    tower = load_text_tower(str(tmp_path / "text"), "mean", max_length=16, prompt=prompt)
    save_processor(make_processor(tower, image_tower), tmp_path / "model")
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    assert len(processor(text="boat " * 20, truncation=True)["input_ids"]) == 16


@pytest.mark.parametrize("family", ["clip", "long_clip", "tipsv2", "vit_bert"])
def test_towers_of_a_dual_encoder_keep_its_space(tmp_path, family):
    save_family(family, tmp_path)
    expected = DualEncoder.from_pretrained(tmp_path)
    text_tower = load_text_tower(str(tmp_path))
    image_tower = load_image_tower(str(tmp_path))
    dim = expected.dim
    model = join_towers(text_tower, image_tower, dim, dim, text_head="none", image_head="none", projection_dim=dim)
    encoder = DualEncoder(model, make_processor(text_tower, image_tower))
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_allclose(encoder.encode_image(image), expected.encode_image(image), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected.encode_text(TEXTS), atol=1e-6)
    assert encoder.max_length == expected.max_length


@pytest.mark.parametrize(
    ("model_class", "load", "what"),
    [(TwoTowersModel, load_image_tower, "images"), (PooledModel, load_text_tower, "texts")],
)
def test_a_dual_encoder_that_embeds_by_more_than_its_tower_is_refused(loaded, tmp_path, model_class, load, what):
    model, processor = loaded
    make_like(model, model_class).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"it is a {model_class.__name__}, which embeds {what} otherwise than its"):
        load(str(tmp_path))
    (other,) = {load_image_tower, load_text_tower} - {load}
    assert other(str(tmp_path)).pooling == "pooler"


@pytest.mark.parametrize(
    ("load", "adapted"),
    [(load_text_tower, "text"), (load_text_tower, "vision"), (load_image_tower, "text"), (load_image_tower, "vision")],
)
def test_adapters_are_refused_whose_projection_would_be_another(tmp_path, load, adapted):
    """Also where their layers lie in the other tower alone."""
    save_family("clip", tmp_path / "base")
    projections = ["visual_projection", "text_projection"]
    config = LoraConfig(target_modules=rf"{adapted}_model\..*\.q_proj", modules_to_save=projections)
    get_peft_model(AutoModel.from_pretrained(tmp_path / "base"), config).save_pretrained(tmp_path / "adapters")
    AutoProcessor.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "adapters")
    with pytest.raises(ValueError, match="cannot be used: it has adapters of PEFT: save their model"):
        load(tmp_path / "adapters")


def test_a_text_tower_that_transformers_does_not_make_alone_is_refused(tmp_path):
    save_family("chinese_clip", tmp_path)
    with pytest.raises(ValueError, match="`AutoModel` of transformers makes no ChineseCLIPTextModel alone"):
        load_text_tower(str(tmp_path))


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_images_of_siglip_keep_their_space_and_its_texts_are_refused(tmp_path, text_tower, family):
    save_family(family, tmp_path)
    expected = DualEncoder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="reads texts in lower case, padded to its limit"):
        load_text_tower(str(tmp_path))
    image_tower = load_image_tower(str(tmp_path))
    model = join_towers(text_tower, image_tower, 64, 32, image_head="none", projection_dim=32)
    encoder = DualEncoder(model, make_processor(text_tower, image_tower))
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_allclose(encoder.encode_image(image), expected.encode_image(image), atol=1e-6)


def test_patches_of_padding_are_not_averaged(tmp_path):
    save_family("siglip2", tmp_path)
    with pytest.raises(ValueError, match="`--image_pooling mean` would count the padding: take"):
        load_image_tower(str(tmp_path), "mean")


def test_both_towers_of_a_lotlip_keep_its_space(model_dir):
    expected = DualEncoder.from_pretrained(model_dir)
    text_tower = load_text_tower(str(model_dir))
    image_tower = load_image_tower(str(model_dir))
    dim = expected.dim
    model = join_towers(text_tower, image_tower, dim, dim, text_head="none", image_head="none", projection_dim=dim)
    encoder = DualEncoder(model, make_processor(text_tower, image_tower))
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_allclose(encoder.encode_image(image), expected.encode_image(image), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected.encode_text(TEXTS), atol=1e-6)
    assert encoder.max_length == expected.max_length


def test_a_model_that_was_joined_is_no_tower(text_tower, image_tower, tmp_path):
    join_towers(text_tower, image_tower, 64, 128).save_pretrained(tmp_path)
    make_processor(text_tower, image_tower).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="it is made by `lotlip align` itself"):
        load_text_tower(str(tmp_path))


def test_a_prompt_is_put_before_each_text_wherever_the_tokenizer_is_loaded(text_folder, tmp_path):
    plain = load_text_tower(text_folder, "mean").tokenizer
    tower = load_text_tower(text_folder, "mean", prompt="a photo of ")
    tower.tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    expected = plain(["a photo of a red boat"])["input_ids"]
    assert tower.tokenizer(["a red boat"])["input_ids"] == expected
    assert loaded(["a red boat"])["input_ids"] == expected
    assert loaded.model_max_length == plain.model_max_length
    assert loaded.model_input_names == plain.model_input_names


def make_tokenizer(model, trainer, pre_tokenizer, post_processor=None) -> PreTrainedTokenizerFast:
    """A tokenizer of the tokenizers library, trained on a few words."""
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizer
    backend.train_from_iterator(["query: a red boat. The sea is calm"] * 9, trainer)
    backend.post_processor = post_processor
    special_tokens = {"unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special_tokens)


TRAINING = {"special_tokens": ["<s>", "</s>", "<unk>", "<pad>"], "show_progress": False}
BYTES = {**TRAINING, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
WITHOUT_SPACE = pre_tokenizers.ByteLevel(add_prefix_space=False)
OF_BYTES = make_tokenizer(models.BPE(), trainers.BpeTrainer(**BYTES), WITHOUT_SPACE)
OF_BYTES_AFTER_A_SPACE = make_tokenizer(
    models.BPE(),
    trainers.BpeTrainer(**BYTES),
    pre_tokenizers.ByteLevel(add_prefix_space=True),
    processors.RobertaProcessing(("</s>", 1), ("<s>", 0)),
)
OF_PIECES = make_tokenizer(
    models.Unigram(), trainers.UnigramTrainer(unk_token="<unk>", **TRAINING), pre_tokenizers.Metaspace()
)


@pytest.mark.parametrize("tokenizer", [OF_BYTES, OF_BYTES_AFTER_A_SPACE, OF_PIECES])
@pytest.mark.parametrize("text", ["a red boat", "The sea.", "a red boat </s> The sea is calm."])
def test_a_prompt_is_put_once_before_a_text_with_special_tokens(tokenizer, text):
    prompted = prepend(tokenizer, "query: ")
    assert prompted(text)["input_ids"] == tokenizer(f"query: {text}")["input_ids"]


def test_a_prompt_before_words_with_a_sep_and_truncated_is_that_of_sentence_transformers(text_folder):
    plain = load_text_tower(text_folder, "mean").tokenizer
    prompted = load_text_tower(text_folder, "mean", prompt="a photo of ").tokenizer
    text = "a red boat [SEP] the blue house"
    for max_length in (7, 512):
        options = {"truncation": True, "max_length": max_length}
        expected = plain(f"a photo of {text}", **options)["input_ids"]
        assert prompted(text, **options)["input_ids"] == expected


def test_a_prompt_that_runs_into_the_first_word_is_warned_of(caplog):
    prompted = prepend(OF_PIECES, "query")
    assert prompted("a red boat")["input_ids"] == OF_PIECES("querya red boat")["input_ids"]
    assert "The prompt 'query' and the first word of a text share a token" in caplog.text


def test_a_limit_without_room_for_a_text_after_the_prompt_is_refused(text_folder):
    prompt = "a photo of "
    assert load_text_tower(text_folder, "mean", max_length=6, prompt=prompt).tokenizer.model_max_length == 6
    with pytest.raises(ValueError, match="at most 5 tokens, of which special tokens and the prompt take 5"):
        load_text_tower(text_folder, "mean", max_length=5, prompt=prompt)


def test_the_default_prompt_of_a_sentence_transformer_counts(text_folder, image_tower, tmp_path):
    modules = [Transformer(text_folder, max_seq_length=16), Pooling(64)]
    options = {"prompts": {"query": "a photo of "}, "default_prompt_name": "query", "device": "cpu"}
    SentenceTransformer(modules=modules, **options).save(str(tmp_path / "st"))
    tower = load_text_tower(str(tmp_path / "st"))
    model = join_towers(tower, image_tower, 64, 128, text_head="none", projection_dim=64)
    encoder = DualEncoder(model, make_processor(tower, image_tower))
    expected = SentenceTransformer(str(tmp_path / "st"), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected, atol=1e-6)
    assert load_text_tower(str(tmp_path / "st"), prompt="").prompt == ""


def test_a_tower_that_its_configuration_does_not_make_is_refused_at_once(tmp_path):
    config = T5Config(vocab_size=20, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(tmp_path / "t5")
    model = SentenceTransformer(
        modules=[Transformer(save_t5_with_tokenizer(tmp_path / "t5")), Pooling(16)], device="cpu"
    )
    model.save(str(tmp_path / "st"))
    with pytest.raises(ValueError, match="a T5EncoderModel, which its configuration alone does not"):
        load_text_tower(str(tmp_path / "st"))


def test_a_part_of_a_dual_encoder_is_no_tower_to_refer_to(text_tower, tmp_path):
    save_family("clip", tmp_path)
    with pytest.raises(ValueError, match="`--towers reference` cannot refer to"):
        refer_to(text_tower, load_image_tower(str(tmp_path)))


def save_timm(folder, architecture, model_args=None, **settings):
    settings = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", **settings}
    config = TimmWrapperConfig(architecture=architecture, num_labels=0, pretrained_cfg=settings, model_args=model_args)
    TimmWrapperModel(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("architecture", "pooling", "settings"),
    [
        ("test_vit", "cls_mean", {"crop_pct": 0.9}),
        ("test_convnext", "pooler", {"crop_pct": 0.9}),
        ("test_vit", "cls_mean", {"crop_pct": 0.9, "crop_mode": "squash"}),
        ("test_vit", "cls_mean", {"crop_pct": 1.0, "crop_mode": "squash"}),
    ],
)
def test_an_encoder_of_timm_reads_images_as_timm_does(text_tower, tmp_path, architecture, pooling, settings):
    tower = load_image_tower(save_timm(tmp_path / "timm", architecture, **settings))
    assert tower.pooling == pooling
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 200, 3), dtype=np.uint8))
    expected = AutoImageProcessor.from_pretrained(tmp_path / "timm")(image, return_tensors="pt")["pixel_values"]
    pixel_values = tower.image_processor(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixel_values, expected, atol=0.05, rtol=0)

    model = join_towers(text_tower, tower, 64, tower.compute({"pixel_values": pixel_values}).shape[1])
    model.save_pretrained(tmp_path / "model")
    make_processor(text_tower, tower).save_pretrained(tmp_path / "model")
    embed = DualEncoder.from_pretrained(tmp_path / "model").encode_image(image)
    np.testing.assert_allclose(
        embed, DualEncoder(model, make_processor(text_tower, tower)).encode_image(image), atol=1e-6
    )


def test_registers_are_no_patches():
    config = Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14, num_register_tokens=4
    )
    assert count_prefix_tokens(Dinov2WithRegistersModel(config)) == 5


@pytest.mark.parametrize(
    ("crop_mode", "input_size"),
    [("border", (3, 160, 160)), ("center", (3, 160, 128))],
)
def test_another_way_of_timm_to_resize_is_refused(tmp_path, crop_mode, input_size):
    folder = save_timm(tmp_path, "test_vit", crop_mode=crop_mode, input_size=input_size)
    with pytest.raises(ValueError, match=f"are resized in the way '{crop_mode}', and no image"):
        load_image_tower(folder)


def test_registers_of_timm_are_no_patches(tmp_path):
    tower = load_image_tower(save_timm(tmp_path, "test_vit", {"reg_tokens": 3}))
    assert tower.num_prefix_tokens == 4


def test_registers_without_cls_are_neither_patches_nor_a_cls(tmp_path):
    model_args = {"reg_tokens": 3, "class_token": False, "global_pool": "avg"}
    folder = save_timm(tmp_path, "test_vit", model_args)
    tower = load_image_tower(folder)
    assert tower.num_prefix_tokens == 3
    assert tower.pooling == "mean"
    with pytest.raises(ValueError, match="has no .CLS. for `--image_pooling cls`"):
        load_image_tower(folder, "cls")


def test_states_whose_dimensions_come_last_have_no_mean(tmp_path):
    model_args = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "img_size": 64}
    folder = save_timm(tmp_path, "swin_tiny_patch4_window7_224", model_args, input_size=(3, 64, 64))
    assert load_image_tower(folder).pooling == "pooler"
    with pytest.raises(ValueError, match="--image_pooling mean. would take the height"):
        load_image_tower(folder, "mean")


@pytest.mark.parametrize(
    ("model", "poolings"),
    [
        (CvtModel(CvtConfig(embed_dim=[8, 8, 16], num_heads=[1, 1, 2], depth=[1, 2, 3])), ["cls", "mean"]),
        (
            YolosModel(
                YolosConfig(
                    hidden_size=32,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    intermediate_size=32,
                    image_size=[32, 32],
                    num_detection_tokens=4,
                )
            ),
            ["cls_mean", "mean", None],
        ),
    ],
)
def test_states_that_are_not_a_cls_and_patches_are_refused(tmp_path, model, poolings):
    """CvT has patches alone there, in two dimensions; YOLOS has objects behind them."""
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    for pooling in poolings:
        with pytest.raises(ValueError, match="whose states are not a .CLS. and the patches, as `--image_pooling"):
            load_image_tower(str(tmp_path), pooling)


def test_a_distillation_token_is_no_patch():
    config = DeiTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16
    )
    assert count_prefix_tokens(DeiTModel(config)) == 2


def test_summaries_of_radio_are_no_patches():
    config = RadioConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, max_img_size=64, patch_size=16)
    model = RadioModel(config).eval()
    num_prefix_tokens = count_prefix_tokens(model)
    with torch.inference_mode():
        outputs = model(torch.zeros(1, 3, 32, 32))
    assert num_prefix_tokens == outputs.last_hidden_state.shape[1] - 4


def test_the_pooled_state_of_a_convolutional_dinov3_is_no_patch():
    config = DINOv3ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])
    model = DINOv3ConvNextModel(config).eval()
    with torch.inference_mode():
        outputs = model(torch.zeros(1, 3, 64, 64))
    assert count_prefix_tokens(model) == outputs.last_hidden_state.shape[1] - 4
    assert choose_image_pooling(model, outputs) == "pooler"


def test_a_tower_that_hides_patches_at_random_is_refused(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTMAEModel(ViTMAEConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a ViTMAEModel, which gives an image other features"):
        load_image_tower(str(tmp_path))


def test_a_missing_tower_is_named():
    with pytest.raises(ValueError, match="`--vision_model_name_or_path nowhere` cannot be used"):
        load_image_tower("nowhere")
    with pytest.raises(ValueError, match="./nowhere` cannot be used: there is no such folder"):
        load_text_tower("./nowhere")


def test_no_folder_of_this_machine_is_saved(text_tower, image_tower, text_folder):
    model = join_towers(text_tower, image_tower, 64, 128)
    assert text_folder not in str(model.config.to_dict())


class PositionTable(torch.nn.Module):
    """A model whose positions up to the padding are no text's, as in RoBERTa."""

    def __init__(self, num_positions: int | None, padding_idx: int | None = None, num_corner_tokens: int = 0):
        super().__init__()
        self.config = SimpleNamespace(num_corner_tokens=num_corner_tokens)
        if num_positions is not None:
            self.config.max_position_embeddings = num_positions
            self.position_embeddings = torch.nn.Embedding(num_positions, 1, padding_idx=padding_idx)


@pytest.mark.parametrize(
    ("model", "max_length", "expected"),
    [
        (PositionTable(40), None, 40),
        (PositionTable(60), None, 50),
        (PositionTable(40), 40, 40),
        (PositionTable(60), 60, 60),
        (PositionTable(40, padding_idx=1), None, 38),
        (PositionTable(40, num_corner_tokens=2), None, 38),
        (PositionTable(None), None, 50),
        (PositionTable(None), 90, 90),
    ],
    ids=["positions", "tokenizer", "asked for", "beyond the tokenizer", "padding", "corners", "no table", "no limit"],
)
def test_the_limit_of_texts_is_that_of_positions_tokenizer_or_user(model, max_length, expected):
    tower = SimpleNamespace(model=model, tokenizer=SimpleNamespace(model_max_length=50), name="tower")
    limit_tokenizer(tower, max_length)
    assert tower.tokenizer.model_max_length == expected


def test_a_limit_beyond_the_positions_that_texts_have_is_refused():
    tokenizer = SimpleNamespace(model_max_length=50)
    tower = SimpleNamespace(model=PositionTable(40, 1), tokenizer=tokenizer, name="tower")
    with pytest.raises(ValueError, match="`--max_length 39` is beyond the 38 tokens that tower has"):
        limit_tokenizer(tower, 39)


@pytest.mark.parametrize(
    ("use_residual", "activation", "message"),
    [
        (True, torch.nn.Tanh(), "a Dense with a residual"),
        (False, torch.nn.Softmax(), "a Dense with Softmax, but only"),
    ],
)
def test_a_layer_that_cannot_be_saved_is_refused(use_residual, activation, message):
    check_dense(SimpleNamespace(use_residual=False, activation_function=torch.nn.Tanh()))
    with pytest.raises(ValueError, match=message):
        check_dense(SimpleNamespace(use_residual=use_residual, activation_function=activation))


@pytest.mark.parametrize(
    ("shape", "parameter", "expected"),
    [((1, 5, 8), "cls_token", "cls_mean"), ((1, 4, 8), "weight", "mean"), ((1, 8, 2, 2), "weight", "pooler")],
    ids=["with [CLS]", "patches alone", "convolutional"],
)
def test_the_pooling_of_images_is_that_of_their_states(shape, parameter, expected):
    model = torch.nn.Module()
    model.config = SimpleNamespace(model_type="vit")
    model.register_parameter(parameter, torch.nn.Parameter(torch.zeros(8)))
    outputs = SimpleNamespace(last_hidden_state=torch.zeros(shape))
    assert choose_image_pooling(model, outputs) == expected


@pytest.mark.parametrize("bias", [True, False])
def test_a_projection_becomes_a_layer_of_the_tower(bias):
    projection = torch.nn.Linear(3, 2, bias=bias)
    (layer,), weights = copy_projection(projection)
    assert layer == {"in_features": 3, "out_features": 2, "bias": bias, "activation": "linear"}
    states = torch.randn(1, 3)
    assert torch.equal(weights(states), projection(states))


def test_a_tower_without_projection_gets_no_layer():
    layers, weights = copy_projection(None)
    assert layers == []
    assert len(weights) == 0


@pytest.mark.parametrize(
    ("name", "error", "explanation"),
    [
        ("/nowhere/model", "no", "there is no such folder."),
        ("someone/model", "set trust_remote_code=True", "it comes with code of its own"),
        ("someone/model", "no such model", "no such model"),
        (".", "damaged", "damaged"),
    ],
)
def test_what_keeps_a_tower_from_being_loaded_is_explained(name, error, explanation):
    assert explain_loading_error(name, OSError(error)).startswith(explanation)


def test_a_pooling_that_a_tower_lacks_is_refused_when_it_is_loaded(tmp_path):
    save_family("siglip", tmp_path)
    with pytest.raises(ValueError, match="cannot be used: it has no .CLS. for `--image_pooling cls`"):
        load_image_tower(str(tmp_path), "cls")
