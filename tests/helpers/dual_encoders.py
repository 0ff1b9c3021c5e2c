"""Small random models of every family, and images with captions that they tell apart."""

import dataclasses
from functools import partial

import numpy as np
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlignProcessor,
    AltCLIPProcessor,
    AutoConfig,
    AutoModel,
    BertTokenizer,
    ChineseCLIPImageProcessor,
    ChineseCLIPProcessor,
    CLIPImageProcessor,
    CLIPProcessor,
    CLIPTokenizer,
    EfficientNetImageProcessor,
    GemmaTokenizer,
    PreTrainedTokenizerFast,
    Siglip2ImageProcessor,
    Siglip2Processor,
    Siglip2Tokenizer,
    SiglipImageProcessor,
    SiglipProcessor,
    VisionTextDualEncoderProcessor,
    ViTImageProcessor,
    XLMRobertaTokenizer,
)

from tests.conftest import TINY_TOWER, WORDS, build_lotlip


VISION = {**TINY_TOWER, "image_size": 32, "patch_size": 16}
SIZE = {"height": 32, "width": 32}
CROP = {"size": {"shortest_edge": 32}, "crop_size": SIZE}
LETTERS = sorted(set("".join(WORDS)))
CORPUS = [". ".join([" ".join(WORDS), " ".join(reversed(WORDS)), "".join(LETTERS)])] * 4


def trained(tokenizer, **attributes):
    """A tokenizer of the same kind with a small vocabulary of its own."""
    tokenizer = tokenizer.train_new_from_iterator(CORPUS, 400)
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def unigrams(*specials):
    """A vocabulary as of SentencePiece: whole words, and letters for others."""
    pieces = [(special, 0.0) for special in specials]
    pieces += [(f"▁{word}", -2.0) for word in WORDS]
    pieces += [(piece, -8.0) for piece in ["▁", ".", *LETTERS]]
    return pieces


def xlm_roberta_tokenizer(**attributes):
    vocab = [*unigrams("<s>", "<pad>", "</s>", "<unk>"), ("<mask>", 0.0)]
    return XLMRobertaTokenizer(vocab=vocab, **attributes)


def siglip2_tokenizer(tokenizer_class=Siglip2Tokenizer):
    # as published: one end of sequence, no attention mask, no limit of its own
    tokenizer = tokenizer_class(
        add_bos_token=False, add_eos_token=True, padding_side="right", model_input_names=["input_ids"]
    )
    return trained(tokenizer)


def siglip_tokenizer():
    """The kind that SigLIP's `tokenizer.json` holds, which loads without SentencePiece."""
    backend = Tokenizer(models.Unigram(unigrams("</s>", "<unk>"), unk_id=1))
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(".", "")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    template = {"single": "$A </s>", "special_tokens": [("</s>", 0)]}
    backend.post_processor = processors.TemplateProcessing(**template)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=64,
        model_input_names=["input_ids"],
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
    )


def new_model(model_type, **fields):
    return AutoModel.from_config(AutoConfig.for_model(model_type, **fields))


def text_tower(tokenizer, **fields):
    of_tokenizer = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return {**TINY_TOWER, **of_tokenizer, **fields}


def build_clip(num_positions=77):
    tokenizer = trained(CLIPTokenizer(), model_max_length=77)
    text = text_tower(tokenizer, max_position_embeddings=num_positions)
    model = new_model("clip", text_config=text, vision_config=VISION, projection_dim=24)
    return model, CLIPProcessor(CLIPImageProcessor(**CROP), tokenizer)


def build_aimv2():
    tokenizer = trained(CLIPTokenizer(), model_max_length=77)
    text = text_tower(tokenizer, max_position_embeddings=77)
    model = new_model("aimv2", text_config=text, vision_config=VISION, projection_dim=24)
    return model, CLIPProcessor(CLIPImageProcessor(**CROP), tokenizer)


def build_metaclip2():
    tokenizer = xlm_roberta_tokenizer(model_max_length=512)
    text = text_tower(tokenizer, max_position_embeddings=77)
    model = new_model("metaclip_2", text_config=text, vision_config=VISION, projection_dim=24)
    return model, CLIPProcessor(CLIPImageProcessor(**CROP), tokenizer)


def build_siglip(make_tokenizer=siglip_tokenizer):
    tokenizer = make_tokenizer()
    text = text_tower(tokenizer, max_position_embeddings=64, projection_size=32)
    model = new_model("siglip", text_config=text, vision_config=VISION)
    return model, SiglipProcessor(SiglipImageProcessor(size=SIZE), tokenizer)


def build_siglip2(**attributes):
    tokenizer = siglip2_tokenizer()
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    text = text_tower(tokenizer, max_position_embeddings=64, projection_size=32)
    vision = {**TINY_TOWER, "patch_size": 16, "num_patches": 16}
    model = new_model("siglip2", text_config=text, vision_config=vision)
    return model, Siglip2Processor(Siglip2ImageProcessor(patch_size=16, max_num_patches=256), tokenizer)


def build_align():
    tokenizer = trained(BertTokenizer(), model_max_length=512)
    vision = {
        "image_size": 32,
        "width_coefficient": 1.0,
        "depth_coefficient": 0.5,
        "kernel_sizes": [3, 3],
        "in_channels": [32, 16],
        "out_channels": [16, 24],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 2],
        "hidden_dim": 24,
    }
    text = text_tower(tokenizer, bos_token_id=None, eos_token_id=None)
    model = new_model("align", text_config=text, vision_config=vision, projection_dim=24)
    size = {"size": SIZE, "crop_size": SIZE}
    return model, AlignProcessor(EfficientNetImageProcessor(**size), tokenizer)


def build_chinese_clip():
    tokenizer = trained(BertTokenizer(), model_max_length=52)
    text = text_tower(tokenizer, bos_token_id=None, eos_token_id=None)
    model = new_model("chinese_clip", text_config=text, vision_config=VISION, projection_dim=24)
    image_processor = ChineseCLIPImageProcessor(size=SIZE, do_center_crop=False)
    return model, ChineseCLIPProcessor(image_processor, tokenizer)


def build_altclip():
    tokenizer = xlm_roberta_tokenizer()  # without a limit, and positions that begin behind padding's
    text = text_tower(tokenizer, max_position_embeddings=42, project_dim=24)
    model = new_model("altclip", text_config=text, vision_config=VISION, projection_dim=24)
    return model, AltCLIPProcessor(CLIPImageProcessor(**CROP), tokenizer)


def build_vit_bert():
    tokenizer = trained(BertTokenizer(), model_max_length=512)
    text = text_tower(tokenizer, max_position_embeddings=40, bos_token_id=None, eos_token_id=None)
    model = new_model(
        "vision-text-dual-encoder",
        text_config={**text, "model_type": "bert"},
        vision_config={**VISION, "model_type": "vit"},
        projection_dim=24,
    )
    return model, VisionTextDualEncoderProcessor(ViTImageProcessor(size=SIZE), tokenizer)


def build_tipsv2():
    from transformers import Tipsv2ImageProcessor, Tipsv2Processor, Tipsv2Tokenizer  # not in the oldest transformers

    tokenizer = trained(Tipsv2Tokenizer())
    text = {**TINY_TOWER, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    model = new_model("tipsv2", text_config=text, vision_config=vision)
    return model, Tipsv2Processor(Tipsv2ImageProcessor(size={"height": 28, "width": 28}), tokenizer)


@dataclasses.dataclass
class Family:
    """How a family is built, and called by its documentation; whether a text of it ends in a special token."""

    build: callable
    limit: int
    num_positions: int
    text_kwargs: dict = dataclasses.field(default_factory=lambda: {"padding": True, "truncation": True})
    has_end_token: bool = True


PADDED = {"padding": "max_length", "truncation": True}

FAMILIES = {
    "clip": Family(build_clip, 77, 77),
    # whose tokenizer says 77
    "long_clip": Family(partial(build_clip, num_positions=248), 248, 248),
    "metaclip2": Family(build_metaclip2, 77, 77),
    "aimv2": Family(build_aimv2, 77, 77),
    "siglip": Family(build_siglip, 64, 64, PADDED),
    # SigLIP 2 at one resolution is published as a SigLIP with Gemma's tokenizer, which knows upper case
    "siglip2_fixed": Family(
        partial(build_siglip, make_tokenizer=partial(siglip2_tokenizer, GemmaTokenizer)), 64, 64, PADDED
    ),
    "siglip2": Family(build_siglip2, 64, 64, PADDED),
    # with a tokenizer as its class makes it, which returns an attention mask
    "siglip2_masked": Family(
        partial(build_siglip2, model_input_names=["input_ids", "attention_mask"]), 64, 64, PADDED
    ),
    "align": Family(build_align, 64, 512, PADDED),
    "tipsv2": Family(build_tipsv2, 64, 64, PADDED, has_end_token=False),
    "chinese_clip": Family(build_chinese_clip, 52, 512),
    "altclip": Family(build_altclip, 40, 40),
    "vit_bert": Family(build_vit_bert, 40, 40),
    "lit": Family(partial(build_lotlip, num_corner_tokens=0, max_position_embeddings=128), 126, 128),
    "lotlip": Family(partial(build_lotlip, max_position_embeddings=128), 126, 126),
}


def save_family(name, folder):
    """Saves a small random model of a family with its processor."""
    torch.manual_seed(0)
    model, processor = FAMILIES[name].build()
    with torch.no_grad():  # at the usual initialization all texts are nearly the same
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def noise(index):
    pixels = np.random.default_rng(index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return PILImage.fromarray(pixels).resize((40 + 5 * index, 36), PILImage.Resampling.NEAREST)


def sentence(seed, length):
    words = np.random.default_rng(seed).choice(WORDS, length)
    return " ".join(words[: length // 2 + 1]) + ". " + " ".join([*words[length // 2 + 1 :], "sea"])


IMAGES = [noise(index) for index in range(9)]
SHORT = []
for index in range(9):
    SHORT.append([sentence(10 * index, 3 + index)])
    if index % 2 == 1:
        SHORT[-1].append(sentence(10 * index + 1, 3 + index))
# at the published limits some are cut off and some are not
LENGTHS = [16, 28, 40, 52, 64, 76, 88, 100, 312]
LONG = [[sentence(100 + index, length)] for index, length in enumerate(LENGTHS)]


def save_data(folder):
    """Saves the images and captions with `save_to_disk`."""
    texts = List(Value("string"))
    features = Features(image=Image(), caption=texts, long_captions=texts)
    columns = {"image": IMAGES, "caption": SHORT, "long_captions": LONG}
    Dataset.from_dict(columns, features=features).save_to_disk(folder)


def brute_force(similarity, owners):
    """Recalls in % of a matrix (texts, images)."""
    recalls = {}
    ranks = np.array([(row > row[own]).sum() for row, own in zip(similarity, owners)])
    best = np.array([similarity[owners == image, image].max() for image in range(similarity.shape[1])])
    i2t_ranks = (similarity > best).sum(axis=0)
    for k in (1, 5, 10):
        recalls[f"t2i_recall@{k}"] = 100 * (ranks < k).mean()
        recalls[f"i2t_recall@{k}"] = 100 * (i2t_ranks < k).mean()
    return recalls


def flatten(captions):
    """All captions of a list of lists, and the number of the image of each."""
    texts = []
    owners = []
    for image, own in enumerate(captions):
        texts += own
        owners += [image] * len(own)
    return texts, np.array(owners)
