"""Every family of dual encoders through the evaluation: the same numbers as calling the model by hand."""

import argparse
import csv
import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlignConfig,
    AlignModel,
    AlignProcessor,
    AltCLIPConfig,
    AltCLIPModel,
    AltCLIPProcessor,
    AutoModel,
    AutoProcessor,
    BertConfig,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessor,
    ChineseCLIPModel,
    ChineseCLIPProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    EfficientNetImageProcessor,
    GemmaTokenizer,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Processor,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    VisionTextDualEncoderProcessor,
    ViTConfig,
    ViTImageProcessor,
    XLMRobertaTokenizer,
)

import lotlip
from modeling_lotlip import (
    LotlipConfig,
    LotlipImageProcessor,
    LotlipModel,
    LotlipProcessor,
    LotlipTokenizer,
)
from modeling_lotlip.data.published import BENCHMARKS
from modeling_lotlip.embedding.arguments import InferenceArguments
from modeling_lotlip.embedding.batches import embed_corpus, embed_images, embed_texts, tokenize, tokenize_and_count
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.search.index import find_index
from modeling_lotlip.search.pictures import PictureFolder
from modeling_lotlip.search.searcher import Searcher
from tests.conftest import WORDS
from tests.helpers.commands import read_error, run_command


TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VISION = {**TOWER, "image_size": 32, "patch_size": 16}
SIZE = {"height": 32, "width": 32}
CROP = {"size": {"shortest_edge": 32}, "crop_size": SIZE}
CORPUS = [". ".join([" ".join(WORDS), " ".join(reversed(WORDS)), "".join(sorted(set("".join(WORDS))))])] * 4


def trained(tokenizer, **attributes):
    """A tokenizer of the same kind with a small vocabulary of its own."""
    tokenizer = tokenizer.train_new_from_iterator(CORPUS, 400)
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def clip_tokenizer():
    return trained(CLIPTokenizer(), model_max_length=77)


def bert_tokenizer(model_max_length=512):
    return trained(BertTokenizer(), model_max_length=model_max_length)


def unigrams(*specials):
    """A vocabulary as of SentencePiece: whole words, and letters for others."""
    letters = sorted(set("".join(WORDS)))
    pieces = [(f"▁{word}", -2.0) for word in WORDS] + [(piece, -8.0) for piece in ["▁", ".", *letters]]
    return [(special, 0.0) for special in specials] + pieces


def xlm_roberta_tokenizer(**attributes):
    return XLMRobertaTokenizer(vocab=[*unigrams("<s>", "<pad>", "</s>", "<unk>"), ("<mask>", 0.0)], **attributes)


def siglip2_tokenizer(tokenizer_class=Siglip2Tokenizer):
    # as published: one end of sequence, no attention mask, no limit of its own
    tokenizer = tokenizer_class(
        add_bos_token=False, add_eos_token=True, padding_side="right", model_input_names=["input_ids"]
    )
    return trained(tokenizer)


def siglip_tokenizer(_=None):
    """The kind that SigLIP's `tokenizer.json` holds, which loads without SentencePiece."""
    backend = Tokenizer(models.Unigram(unigrams("</s>", "<unk>"), unk_id=1))
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(".", "")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    tokens = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=64, model_input_names=["input_ids"], **tokens
    )


def sentencepiece_tokenizer(folder):
    """The original kind, which is written in Python."""
    import sentencepiece
    from transformers import SiglipTokenizer

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(folder / "spiece"),
        vocab_size=50,
        pad_id=-1,
        bos_id=-1,
        eos_id=0,
        unk_id=1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return SiglipTokenizer(str(folder / "spiece.model"), model_input_names=["input_ids"])


def lotlip_tokenizer():
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return LotlipTokenizer(vocab={word: index for index, word in enumerate(vocab)})


def text_tower(tokenizer, **fields):
    specials = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    return {**TOWER, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **specials, **fields}


def build_clip(folder, num_positions=77):
    tokenizer = clip_tokenizer()
    text = text_tower(tokenizer, max_position_embeddings=num_positions)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24))
    return model, CLIPProcessor(CLIPImageProcessor(**CROP), tokenizer)


def build_long_clip(folder):
    return build_clip(folder, num_positions=248)  # and a tokenizer that says 77


def build_metaclip2(folder):
    tokenizer = xlm_roberta_tokenizer(model_max_length=512)
    text = text_tower(tokenizer, max_position_embeddings=77)
    model = MetaClip2Model(MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=24))
    return model, CLIPProcessor(CLIPImageProcessor(**CROP), tokenizer)


def build_siglip(folder, make_tokenizer=siglip_tokenizer):
    tokenizer = make_tokenizer(folder)
    text = text_tower(tokenizer, max_position_embeddings=64, projection_size=32)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    return model, SiglipProcessor(SiglipImageProcessor(size=SIZE), tokenizer)


def build_siglip_sentencepiece(folder):
    return build_siglip(folder, sentencepiece_tokenizer)


def build_siglip2_fixed(folder):
    """SigLIP 2 at one resolution is published as a SigLIP with Gemma's tokenizer, which knows upper case."""
    return build_siglip(folder, lambda folder: siglip2_tokenizer(GemmaTokenizer))


def build_siglip2(folder, **attributes):
    tokenizer = siglip2_tokenizer()
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    text = text_tower(tokenizer, max_position_embeddings=64, projection_size=32)
    vision = {**TOWER, "patch_size": 16, "num_patches": 16}
    model = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
    return model, Siglip2Processor(Siglip2ImageProcessor(patch_size=16, max_num_patches=256), tokenizer)


def build_siglip2_masked(folder):
    """With a tokenizer as its class makes it, which returns an attention mask."""
    return build_siglip2(folder, model_input_names=["input_ids", "attention_mask"])


def build_align(folder):
    tokenizer = bert_tokenizer()
    vision = {
        "image_size": 32, "width_coefficient": 1.0, "depth_coefficient": 0.5, "kernel_sizes": [3, 3],
        "in_channels": [32, 16], "out_channels": [16, 24], "strides": [1, 2], "num_block_repeats": [1, 1],
        "expand_ratios": [1, 2], "hidden_dim": 24,
    }  # fmt: skip
    text = text_tower(tokenizer, bos_token_id=None, eos_token_id=None)
    model = AlignModel(AlignConfig(text_config=text, vision_config=vision, projection_dim=24))
    size = {"size": SIZE, "crop_size": SIZE}
    return model, AlignProcessor(EfficientNetImageProcessor(**size), tokenizer)


def build_chinese_clip(folder):
    tokenizer = bert_tokenizer(model_max_length=52)
    text = text_tower(tokenizer, bos_token_id=None, eos_token_id=None)
    model = ChineseCLIPModel(ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24))
    return model, ChineseCLIPProcessor(ChineseCLIPImageProcessor(size=SIZE, do_center_crop=False), tokenizer)


def build_altclip(folder):
    tokenizer = xlm_roberta_tokenizer()  # without a limit, and positions that begin behind padding's
    text = text_tower(tokenizer, max_position_embeddings=42, project_dim=24)
    model = AltCLIPModel(AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24))
    return model, AltCLIPProcessor(CLIPImageProcessor(**CROP), tokenizer)


def build_vit_bert(folder):
    tokenizer = bert_tokenizer()
    bert = BertConfig(**text_tower(tokenizer, max_position_embeddings=40, bos_token_id=None, eos_token_id=None))
    config = VisionTextDualEncoderConfig(vision_config=ViTConfig(**VISION), text_config=bert, projection_dim=24)
    model = VisionTextDualEncoderModel(config)
    return model, VisionTextDualEncoderProcessor(ViTImageProcessor(size=SIZE), tokenizer)


def build_lotlip(folder, num_corner_tokens=2, num_positions=128):
    tokenizer = lotlip_tokenizer()
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": num_positions, "projection_dim": 32}
    config = LotlipConfig(
        text_config={**text, "num_corner_tokens": num_corner_tokens}, vision_config=VISION, projection_dim=32
    )
    image_processor = LotlipImageProcessor(**CROP)
    return LotlipModel(config), LotlipProcessor(image_processor=image_processor, tokenizer=tokenizer)


def build_lit(folder):
    return build_lotlip(folder, num_corner_tokens=0)


@dataclasses.dataclass
class Family:
    """How a family is built, and called by its documentation."""

    build: callable
    limit: int
    num_positions: int
    text_kwargs: dict = dataclasses.field(default_factory=lambda: {"padding": True, "truncation": True})


PADDED = {"padding": "max_length", "truncation": True}

FAMILIES = {
    "clip": Family(build_clip, 77, 77),
    "long_clip": Family(build_long_clip, 248, 248),
    "metaclip2": Family(build_metaclip2, 77, 77),
    "siglip": Family(build_siglip, 64, 64, PADDED),
    "siglip_sentencepiece": Family(build_siglip_sentencepiece, 64, 64, PADDED),
    "siglip2_fixed": Family(build_siglip2_fixed, 64, 64, PADDED),
    "siglip2": Family(build_siglip2, 64, 64, PADDED),
    "siglip2_masked": Family(build_siglip2_masked, 64, 64, PADDED),
    "align": Family(build_align, 64, 512, PADDED),
    "chinese_clip": Family(build_chinese_clip, 52, 512),
    "altclip": Family(build_altclip, 40, 40),
    "vit_bert": Family(build_vit_bert, 40, 40),
    "lit": Family(build_lit, 126, 128, {"padding": True, "truncation": True}),
    "lotlip": Family(build_lotlip, 126, 126, {"padding": True, "truncation": True}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Makes the folder of a small random model of a family, once."""
    made = {}

    def folder_of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            torch.manual_seed(0)
            model, processor = FAMILIES[name].build(folder)
            with torch.no_grad():  # at the usual initialisation all texts are nearly the same
                for parameter in model.parameters():
                    if parameter.dim() > 1:
                        parameter.normal_(std=0.25)
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            made[name] = folder
        return made[name]

    return folder_of


def noise(index):
    pixels = np.random.default_rng(index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return PILImage.fromarray(pixels).resize((40 + 5 * index, 36), PILImage.Resampling.NEAREST)


def sentence(seed, length):
    words = np.random.default_rng(seed).choice(WORDS, length)
    return " ".join(words[: length // 2 + 1]) + ". " + " ".join([*words[length // 2 + 1 :], "sea"])


IMAGES = [noise(index) for index in range(9)]
SHORT = [[sentence(10 * index + k, 3 + index) for k in range(1 + index % 2)] for index in range(9)]
# at the published limits some are cut off and some are not
LONG = [[sentence(100 + index, 16 + 12 * index + 200 * (index == 8))] for index in range(9)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    features = Features(image=Image(), caption=List(Value("string")), long_captions=List(Value("string")))
    columns = {"image": IMAGES, "caption": SHORT, "long_captions": LONG}
    Dataset.from_dict(columns, features=features).save_to_disk(folder)
    return folder


def load(folder, max_length=None):
    args = argparse.Namespace(
        model_name_or_path=str(folder), dtype="float32", trust_remote_code=False, max_length=max_length, device="cpu"
    )
    return load_model(args.model_name_or_path, args)


def brute_force(similarity, owners):
    """Recalls in per cent of a matrix (texts, images)."""
    recalls = {}
    ranks = np.array([(row > row[own]).sum() for row, own in zip(similarity, owners)])
    best = np.array([similarity[owners == image, image].max() for image in range(similarity.shape[1])])
    i2t_ranks = (similarity > best).sum(axis=0)
    for k in (1, 5, 10):
        recalls[f"t2i_recall@{k}"] = 100 * (ranks < k).mean()
        recalls[f"i2t_recall@{k}"] = 100 * (i2t_ranks < k).mean()
    return recalls


def flatten(captions):
    texts = [text for own in captions for text in own]
    return texts, np.array([image for image, own in enumerate(captions) for _ in own])


@pytest.mark.parametrize("name", FAMILIES)
def test_same_numbers_as_by_hand(name, folders, data_dir, tmp_path):
    family, folder = FAMILIES[name], folders(name)
    arguments = ("--model_name_or_path", folder, "--dataset_name", data_dir, "--batch_size", 4)
    results = run_command("evaluate", tmp_path / "results.json", *arguments)
    assert results["max_length"] == family.limit

    hand, hand_processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    model, processor = load(folder)
    images = dict(hand_processor.image_processor(IMAGES, return_tensors="pt"))
    for kind, captions in (("short", SHORT), ("long", LONG)):
        texts, owners = flatten(captions)
        inputs = hand_processor(
            text=texts, images=IMAGES, return_tensors="pt", max_length=family.limit, **family.text_kwargs
        )
        with torch.no_grad():
            outputs = hand(**inputs)
        for metric, value in brute_force(outputs.logits_per_text.numpy(), owners).items():
            assert results[f"{kind}_{metric}"] == pytest.approx(value), (kind, metric)

        lengths = [len(hand_processor.tokenizer(text, truncation=False)["input_ids"]) for text in texts]
        assert results[f"{kind}_truncated"] == pytest.approx(np.mean(np.array(lengths) > family.limit))
        assert results[f"{kind}_truncated"] < 1 and (kind == "short" or results[f"{kind}_truncated"] > 0)

        expected = torch.nn.functional.normalize(outputs.text_embeds, dim=-1)
        texts_alone = torch.cat([embed_texts(model, tokenize(processor, [text])) for text in texts])
        for embeds in (
            embed_texts(model, tokenize(processor, texts)),
            texts_alone,
            embed_corpus(model, processor, texts, tokens_per_batch=200),
        ):
            torch.testing.assert_close(embeds, expected, rtol=0, atol=2e-5)
        expected = torch.nn.functional.normalize(outputs.image_embeds, dim=-1)
        torch.testing.assert_close(embed_images(model, images), expected, rtol=0, atol=2e-5)
    # the model tells these images and texts apart, or all of this would say little
    assert (expected @ expected.t()).fill_diagonal_(0).max() < 1 - 1e-4
    assert (texts_alone @ texts_alone.t()).fill_diagonal_(0).max() < 1 - 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_limits(name, folders, caplog):
    family, folder = FAMILIES[name], folders(name)
    model, processor = load(folder)
    whole = AutoProcessor.from_pretrained(folder).tokenizer(LONG[-1][0], truncation=False)["input_ids"]
    tokens, truncated = tokenize_and_count(processor, [*LONG[-1], "a red boat"], None)
    assert truncated == [True, False] and len(whole) > family.limit
    # cut off there, and the last token is the one that ends a text
    assert tokens["input_ids"][0].tolist() == [*whole[: family.limit - 1], whole[-1]]
    embed_corpus(model, processor, LONG[-1])
    assert "1 of 1 texts were truncated" in caplog.text

    tokens, truncated = tokenize_and_count(processor, ["a red boat", *LONG[-1]], 9)
    assert tokens["input_ids"].shape == (2, 9) and truncated == [False, True]

    model, processor = load(folder, max_length=family.num_positions)
    text = " ".join(WORDS * 40)
    tokens = tokenize(processor, [text], family.num_positions)
    assert tokens["input_ids"].shape == (1, family.num_positions)
    assert embed_texts(model, tokens).isfinite().all()
    beyond = rf"--max_length {family.num_positions + 1}. is beyond the {family.num_positions} tokens"
    with pytest.raises(ValueError, match=beyond):
        load(folder, max_length=family.num_positions + 1)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("siglip")])
def test_siglip_reads_lower_case(name, folders):
    model, processor = load(folders(name))
    shouted = [text.upper() for text in SHORT[3]]
    embeds, expected = (embed_texts(model, tokenize(processor, texts)) for texts in (shouted, SHORT[3]))
    torch.testing.assert_close(embeds, expected, rtol=0, atol=0)


def test_text_tower_with_fewer_positions_than_its_tokenizer(tmp_path):
    model, processor = build_lotlip(tmp_path, num_positions=32)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, processor = load(tmp_path)
    tokens, truncated = tokenize_and_count(processor, LONG[-1], None)
    assert tokens["input_ids"].shape == (1, 30) and truncated == [True]
    embed_texts(model, tokens)


def test_no_dual_encoder(tmp_path, folders):
    AutoModel.from_pretrained(folders("vit_bert")).text_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="it is a BertModel, no dual encoder"):
        load(tmp_path)


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    """The long captions as a complete Urban1k, the short ones as a part of Flickr30k, in miniature."""
    root = tmp_path / "benchmarks"
    for folder in ("urban1k/image", "urban1k/caption", "flickr30k/flickr30k-images"):
        (root / folder).mkdir(parents=True)
    rows = []
    for index, image in enumerate(IMAGES):
        image.save(root / f"urban1k/image/{index}.jpg")
        (root / f"urban1k/caption/{index}.txt").write_text(LONG[index][0] + "\nmore")
        image.save(root / f"flickr30k/flickr30k-images/{index}.jpg")
        captions = [{"raw": sentence(7 * index + k, 4)} for k in range(5)]
        rows.append({"filename": f"{index}.jpg", "split": "test", "sentences": captions})
    (root / "flickr30k/dataset_flickr30k.json").write_text(json.dumps({"images": rows}))

    urban1k = dataclasses.replace(BENCHMARKS["urban1k"], num_images=9, num_texts=9)
    monkeypatch.setitem(BENCHMARKS, "urban1k", urban1k)
    return root


def read_table(markdown):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.strip().splitlines()]
    return rows[0], rows[2:]


def test_benchmarks_of_several_models_in_one_table(folders, benchmarks, tmp_path, capsys):
    models = [folders("clip"), folders("lotlip")]
    arguments = ("--model_name_or_path", *models, "--benchmark", "urban1k", "flickr30k", "--data_dir", benchmarks)
    assert "9 images and 45 texts, but 1000 and 5000" in read_error(capsys, "evaluate", *arguments)
    rows = run_command("evaluate", tmp_path / "results.json", *arguments, "--allow_partial")["rows"]

    assert [(row["model"], row["benchmark"]) for row in rows] == [
        (str(model), name) for model in models for name in ("urban1k", "flickr30k")
    ]
    for row in rows:
        kind = "long" if row["benchmark"] == "urban1k" else "short"
        assert row["revision"] is None and row["dtype"] == "float32" and row["text_embedding"] == "cls"
        assert row[f"{kind}_num_images"] == 9
        assert row[f"{kind}_num_captions"] == (9 if kind == "long" else 45)
        assert row["model_type"] == ("clip" if row["model"] == str(models[0]) else "lotlip")
        assert row["max_length"] == (77 if row["model"] == str(models[0]) else 126)
        # each alone gives the same
        name, model = row["benchmark"], row["model"]
        alone = ("--model_name_or_path", model, "--benchmark", name, "--data_dir", benchmarks / name)
        assert run_command("evaluate", tmp_path / "alone.json", *alone, "--allow_partial")["rows"] == [row]

    # the same as CSV and as Markdown
    for name in ("results.csv", "results.md"):
        output_file = ("--output_file", tmp_path / name)
        assert (
            lotlip.main(["evaluate", "--device", "cpu", *map(str, (*arguments, "--allow_partial", *output_file))]) == 0
        )
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        from_csv = list(csv.DictReader(file))
    for row, cells in zip(rows, from_csv, strict=True):
        assert {name: cell for name, cell in cells.items() if cell != ""} == {
            name: str(value) for name, value in row.items() if value is not None
        }

    markdown = (tmp_path / "results.md").read_text()
    assert markdown in capsys.readouterr().out
    titles, lines = read_table(markdown)
    partial = "flickr30k (9 of 1000 images)"
    assert titles == ["model", "urban1k I2T", "urban1k T2I", f"{partial} I2T", f"{partial} T2I",
                      "average I2T", "average T2I", "truncated"]  # fmt: skip
    for line, long, short in zip(lines, rows[::2], rows[1::2], strict=True):
        recalls = [long["long_i2t_recall@1"], long["long_t2i_recall@1"]]
        recalls += [short["short_i2t_recall@1"], short["short_t2i_recall@1"]]
        recalls += [(recalls[0] + recalls[2]) / 2, (recalls[1] + recalls[3]) / 2]
        share = (long["long_truncated"] + short["short_truncated"]) / 2
        assert line == [long["model"], *(f"{recall:.2f}" for recall in recalls), f"{100 * share:.0f}%"]
    assert rows[0]["long_truncated"] > rows[2]["long_truncated"] > 0


def test_several_models_on_a_data_set(folders, data_dir, tmp_path, capsys):
    models = [folders("clip"), folders("lotlip")]
    arguments = ("--dataset_name", data_dir, "--model")
    rows = run_command("evaluate", tmp_path / "results.json", *arguments, *models)["rows"]
    titles, lines = read_table(capsys.readouterr().out)
    assert titles[:4] == ["model", "captions", "images", "texts"]
    for row, model in zip(rows, models, strict=True):
        assert row["model"] == str(model)
        assert row == run_command("evaluate", tmp_path / "alone.json", *arguments, model)
        recalls = [f"{row[f'short_{direction}_recall@{k}']:.1f}" for direction in ("i2t", "t2i") for k in (1, 5, 10)]
        assert [str(model), "short", "9", str(row["short_num_captions"]), *recalls] in lines


def test_benchmarks_that_are_unclear(folders, benchmarks, tmp_path, capsys):
    model = ("--model_name_or_path", folders("clip"), "--device", "cpu")
    place = ("--data_dir", benchmarks)
    for arguments, message in (
        (("--benchmark", "urban", *place), "no benchmark 'urban'.*Did you mean 'urban1k'"),
        (("--benchmark", "urban1k", "iiw", *place), "iiw"),
        (("--benchmark", "urban1k"), "--benchmark needs --data_dir"),
        (("--benchmark", "urban1k", *place, "--dataset_name", "imagefolder"), "no --dataset_name"),
        (("--benchmark", "urban1k", "imagenet", *place), "imagenet.*`lotlip classify`"),
        (("--benchmark", "urban1k", *place, "--max_eval_samples", 3), "--max_eval_samples"),
        (("--benchmark", "urban1k", *place, "--output_file", tmp_path / "results.txt"), r"--output_file.*\.json"),
    ):
        assert re.search(message, read_error(capsys, "evaluate", *model, *arguments)), message
    assert not list(tmp_path.glob("results.*"))


@pytest.mark.parametrize("text_embedding", ["mean", "max"])
def test_text_embedding_with_corner_tokens(text_embedding, folders, data_dir, tmp_path):
    folder = folders("lotlip")
    arguments = ("--model_name_or_path", folder, "--dataset_name", data_dir, "--batch_size", 4)
    results = run_command("evaluate", tmp_path / "results.json", *arguments, "--text_embedding", text_embedding)
    assert results["text_embedding"] == text_embedding

    model, processor = LotlipModel.from_pretrained(folder).eval().double(), LotlipProcessor.from_pretrained(folder)
    pixel_values = processor.image_processor(IMAGES, return_tensors="pt")["pixel_values"].double()

    def unit(vectors):
        return vectors / vectors.norm(dim=-1, keepdim=True)

    similarities = {}
    for kind, captions in (("short", SHORT), ("long", LONG)):
        texts, owners = flatten(captions)
        tokens = processor.tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            images = unit(model.get_image_features(pixel_values=pixel_values).pooler_output)
            outputs = model.get_text_features(**tokens, output_corner_tokens=True)
        slots = torch.stack([unit(outputs.pooler_output), *unit(outputs.corner_pooler_output).unbind(1)])
        assert len(slots) == 3
        if text_embedding == "mean":
            similarity = unit(slots.mean(dim=0)) @ images.t()
        else:
            similarity = (slots @ images.t()).amax(dim=0)
        for metric, value in brute_force(similarity.numpy(), owners).items():
            assert results[f"{kind}_{metric}"] == pytest.approx(value), (kind, metric)
        similarities[kind] = (similarity - slots[0] @ images.t()).abs().max()
    assert min(similarities.values()) > 0.01  # the corner tokens count


@pytest.mark.parametrize("name", ["clip", "lit"])
def test_text_embedding_without_corner_tokens(name, folders, data_dir, capsys):
    arguments = ("--model_name_or_path", folders(name), "--dataset_name", data_dir, "--device", "cpu")
    message = read_error(capsys, "evaluate", *arguments, "--text_embedding", "mean")
    assert "--text_embedding mean` needs corner tokens" in message


@pytest.mark.parametrize("name", FAMILIES)
def test_search_page(name, folders, tmp_path):
    """Every family is searched; those with an image tower of patches have heat maps, of others it is said."""
    for index in range(5):
        noise(index).save(tmp_path / f"{index}.png")
    model, processor = load_model(str(folders(name)), InferenceArguments(device="cpu"))
    pictures = PictureFolder(tmp_path)
    folder = find_index(pictures, model, processor, tmp_path / "indices")
    options = {"sentence_score": "left_out", "splitter": "paper", "batch_size": 2}
    searcher = Searcher(model, processor, pictures, folder, **options)
    searcher.update()
    assert searcher.status.problem is None
    query, results = searcher.search("a red boat. " * 200, None, 5)
    assert len(results) == 5 and query.sentences[0].read and query.sentences[-1].unread
    assert sum(label.probability for label in searcher.classify(str(tmp_path / "0.png"), "a\nb", "{}")) > 0
    try:
        assert searcher.heat_map("0.png", "a red boat").size == (224, 224)
    except ValueError as error:
        assert name in ("align", "siglip2", "siglip2_masked") and "patches" in str(error)
