import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.rows import read_captions
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.evaluation.classification import class_index, embed_classes, summarize
from modeling_lotlip.evaluation.classification import main as zero_shot_main
from modeling_lotlip.evaluation.retrieval import evaluate_retrieval
from modeling_lotlip.evaluation.retrieval import main as evaluate_main
from tests.conftest import WORDS


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """Ten images with one to three short captions and none to two long ones, saved with `save_to_disk`."""
    scenes = load_scenes(10, seed=4)
    rows = []
    for index, scene in enumerate(scenes):
        short = [
            f"a photo of {WORDS[(index + k) % len(WORDS)]} {WORDS[(3 * index + k) % 7]}" for k in range(1 + index % 3)
        ]
        long = [
            f"the ground is {WORDS[index]}. the {WORDS[-index - 1]} is red.\nblue sea {k}" for k in range(index % 3)
        ]
        rows.append({"image": scene["image"], "caption": short, "long_captions": long, "label": index % 4})
    features = Features(
        image=Image(),
        caption=List(Value("string")),
        long_captions=List(Value("string")),
        label=ClassLabel(names=["red_boat", "green car", "blue house", "yellow tree"]),
    )
    folder = tmp_path_factory.mktemp("data")
    Dataset.from_list(rows, features=features).save_to_disk(folder)
    return folder


def run(main, monkeypatch, tmp_path, *arguments: object) -> dict:
    output_file = tmp_path / "results.json"
    argv = ["script.py", "--device", "cpu", "--output_file", str(output_file), *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", argv)
    main()
    return json.loads(output_file.read_text())


def test_retrieval_equals_calling_the_model_by_hand(model_dir, data_dir, monkeypatch, tmp_path):
    arguments = ("--model_name_or_path", model_dir, "--dataset_name", data_dir, "--batch_size", 4)
    results = run(evaluate_main, monkeypatch, tmp_path, *arguments, "--dataloader_num_workers", 1)

    model, processor = LotlipModel.from_pretrained(model_dir).eval(), LotlipProcessor.from_pretrained(model_dir)
    dataset = Dataset.load_from_disk(data_dir)
    for kind, column in (("short", "caption"), ("long", "long_captions")):
        texts, owners = [], []
        kept = [row for row in dataset if row[column]]
        for position, row in enumerate(kept):
            for text in row[column]:
                # no caption of these has an abbreviation or a decimal: the paper's split is at ". " and the line break
                texts.append(text.replace("\n", ". ").replace(".. ", ". "))
                owners.append(position)
        with torch.no_grad():
            images = processor.image_processor([row["image"] for row in kept], return_tensors="pt")
            outputs = model(**images, **processor.tokenizer(texts, padding=True, return_tensors="pt"))
        similarity = outputs.logits_per_text
        owners = torch.tensor(owners)
        ranks = (similarity > similarity.gather(1, owners[:, None])).sum(dim=1)
        best_own = torch.stack([similarity[owners == image].amax(0)[image] for image in range(len(kept))])
        i2t_ranks = (similarity > best_own).sum(dim=0)
        for k in (1, 5, 10):
            expected = 100 * (ranks < k).float().mean().item()
            assert results[f"{kind}_t2i_recall@{k}"] == pytest.approx(expected), (kind, k)
            expected = 100 * (i2t_ranks < k).float().mean().item()
            assert results[f"{kind}_i2t_recall@{k}"] == pytest.approx(expected), (kind, k)
        assert results[f"{kind}_num_images"] == len(kept)
        assert results[f"{kind}_num_captions"] == len(texts)


def test_streamed_data_and_other_dual_encoders(model_dir, monkeypatch, tmp_path):
    # an image folder with metadata, read as a stream and as a whole, give the same
    folder = tmp_path / "pictures" / "test"
    folder.mkdir(parents=True)
    with open(folder / "metadata.jsonl", "w") as file:
        for index, color in enumerate(["red", "green", "blue", "yellow"]):
            PILImage.new("RGB", (40 + index, 50), color).save(folder / f"{index}.png")
            file.write(json.dumps({"file_name": f"{index}.png", "caption": f"a photo of {color}"}) + "\n")
    arguments = ("--dataset_name", "imagefolder", "--data_dir", folder.parent)
    whole = run(evaluate_main, monkeypatch, tmp_path, "--model_name_or_path", model_dir, *arguments)
    streamed = run(evaluate_main, monkeypatch, tmp_path, "--model_name_or_path", model_dir, *arguments, "--streaming")
    assert whole == streamed and whole["short_num_images"] == 4

    from transformers import (
        BertTokenizer,
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        VisionTextDualEncoderProcessor,
    )

    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    vocab = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": len(vocab), "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    tokenizer = BertTokenizer(vocab=vocab, model_max_length=77, model_input_names=["input_ids", "attention_mask"])
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    VisionTextDualEncoderProcessor(CLIPImageProcessor(**size), tokenizer).save_pretrained(tmp_path / "clip")
    results = run(evaluate_main, monkeypatch, tmp_path, "--model_name_or_path", tmp_path / "clip", *arguments)
    assert results["short_t2i_recall@5"] == 100 and results["short_num_images"] == 4


def test_distinct_short_captions_and_images_without_captions(model_dir, caplog):
    model, processor = LotlipModel.from_pretrained(model_dir).eval(), LotlipProcessor.from_pretrained(model_dir)
    dataset = load_scenes(6, seed=1).remove_columns(["caption", "long_captions"])
    dataset = dataset.add_column("caption", ["a red boat", "a red boat", "a car", "", None, "a car"])
    dataset = dataset.add_column("long_captions", ["a red. a boat", None, None, "blue. ", "a. ..", "sea"])
    args = argparse.Namespace(
        image_column="image",
        caption_column="caption",
        long_captions_column="long_captions",
        batch_size=4,
        max_length=None,
        dataloader_num_workers=0,
        distinct_short_captions=True,
        sub_caption_splitter="paper",
        text_embedding="cls",
        side_files=None,
    )
    results = evaluate_retrieval(model, processor, dataset, args, PartialState())
    assert (results["short_num_images"], results["long_num_images"]) == (2, 4)
    assert "2 of 6 images have no long caption" in caplog.text
    args.distinct_short_captions = False
    results = evaluate_retrieval(model, processor, dataset, args, PartialState())
    assert results["short_num_images"] == results["short_num_captions"] == 4


def test_zero_shot_classification(model_dir, data_dir, monkeypatch, tmp_path):
    templates = ["a photo of {}", "the {} of sand"]
    arguments = ("--model_name_or_path", model_dir, "--dataset_name", data_dir, "--batch_size", 3)
    results = run(zero_shot_main, monkeypatch, tmp_path, *arguments, "--templates", *templates)

    model, processor = LotlipModel.from_pretrained(model_dir).eval(), LotlipProcessor.from_pretrained(model_dir)
    dataset = Dataset.load_from_disk(data_dir)
    names = ["red boat", "green car", "blue house", "yellow tree"]
    with torch.no_grad():
        classes = []
        for name in names:
            tokens = processor.tokenizer([t.format(name) for t in templates], padding=True, return_tensors="pt")
            embeds = model.get_text_features(**tokens).pooler_output
            classes.append((embeds / embeds.norm(dim=-1, keepdim=True)).mean(dim=0))
        images = processor.image_processor([row["image"] for row in dataset], return_tensors="pt")
        images = model.get_image_features(**images).pooler_output
    classes = torch.stack([embed / embed.norm() for embed in classes])
    predictions = (images @ classes.t()).argmax(dim=-1)
    labels = torch.tensor(dataset["label"])
    assert results["top1"] == pytest.approx(100 * (predictions == labels).float().mean().item())
    assert results["top5"] == 100 and results["num_images"] == 10 and results["num_classes"] == 4
    wrong = sum(pair["count"] for pair in results["most_confused"])
    assert wrong == (predictions != labels).sum().item()

    # the same classes from the command line and from a file
    named = run(zero_shot_main, monkeypatch, tmp_path, *arguments, "--templates", *templates, "--class_names", *names)
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n\n")
    filed = run(
        zero_shot_main, monkeypatch, tmp_path, *arguments, "--templates", *templates,
        *("--class_names_file", tmp_path / "names.txt"),
    )  # fmt: skip
    assert named == filed == results


def test_zero_shot_classification_refuses_what_is_unclear(model_dir, data_dir, monkeypatch, tmp_path):
    arguments = ("--model_name_or_path", model_dir, "--dataset_name", data_dir)
    with pytest.raises(SystemExit):
        run(zero_shot_main, monkeypatch, tmp_path, *arguments, "--templates", "a photo")
    with pytest.raises(ValueError, match="--label_column kind"):
        run(zero_shot_main, monkeypatch, tmp_path, *arguments, "--label_column", "kind")
    with pytest.raises(ValueError, match="'red'.*more than once"):
        run(zero_shot_main, monkeypatch, tmp_path, *arguments, "--class_names", "red", "blue", "red")
    with pytest.raises(ValueError, match="2 class names.*has 4 classes"):
        run(zero_shot_main, monkeypatch, tmp_path, *arguments, "--class_names", "red", "blue")
    with pytest.raises(ValueError, match="label -1 is none"):
        class_index(-1, ["no", "yes"])


def test_summary_counts_the_worst_confused_pairs():
    predictions = torch.tensor([[1, 0], [1, 0], [0, 1], [2, 1], [1, 2]])
    results = summarize(predictions, torch.tensor([0, 0, 0, 1, 2]), ["a", "b", "c"], num_pairs=1)
    assert results["top1"] == pytest.approx(20) and results["top5"] == pytest.approx(100)
    assert results["most_confused"] == [{"class": "a", "taken_for": "b", "count": 2}]


def test_class_embeddings_are_unit_vectors(model_dir):
    model, processor = LotlipModel.from_pretrained(model_dir).eval(), LotlipProcessor.from_pretrained(model_dir)
    embeds = embed_classes(model, processor, ["red", "blue", "a very green car"], ["a {}", "{}", "the {} sea"], 2)
    torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(3))


def test_data_arguments_that_name_nothing(tmp_path, data_dir):
    args = argparse.Namespace(
        dataset_name=None, dataset_config_name=None, data_dir="x", data_files=None, streaming=False,
        image_column="image", train_split="train",
    )  # fmt: skip
    with pytest.raises(ValueError, match="need `--dataset_name`"):
        load_split(args, "test")
    args.dataset_name, args.data_dir = str(tmp_path / "nothing"), None
    with pytest.raises((FileNotFoundError, ConnectionError)):
        load_split(args, "test")
    with pytest.raises(ValueError, match="'caption' must hold strings"):
        read_captions({"caption": 3}, "caption")
    assert read_captions({"caption": ["a", None, " "]}, "caption") == ["a"]
