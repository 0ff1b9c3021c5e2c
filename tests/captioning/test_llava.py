"""The released layout of ShareGPT4V."""

import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from PIL import Image
from transformers import LlavaImageProcessor

from modeling_lotlip.captioning.llava import load_original_llava
from tests.helpers.captioners import of_folder, save_original_llava


PROMPTS = ["Describe what you see here", "Describe in long", "what is in the red house on the sand by the sea"]


def read_config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("has_vision_weights", [True, False])
def test_the_released_layout_of_sharegpt4v_is_a_llava(caption, photos, tmp_path, has_vision_weights):
    expected = save_original_llava(tmp_path / "share", has_vision_weights).eval()
    model, processor = load_original_llava(str(tmp_path / "share"), read_config(tmp_path / "share"))
    image = Image.open(photos / "4.png").convert("RGB")
    square = Image.new("RGB", (image.width, image.width), (122, 116, 104))
    square.paste(image, (0, (image.width - image.height) // 2))
    pixels = LlavaImageProcessor.from_pretrained(tmp_path / "share" / "tower")(images=square, return_tensors="pt")
    text = "USER: <image>\nDescribe what you see here ASSISTANT:"
    inputs = processor(images=image, text=text, return_tensors="pt")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "share" / "tokenizer.model"))
    assert processor.tokenizer(PROMPTS[0])["input_ids"] == [1, *pieces.encode(PROMPTS[0])]
    torch.testing.assert_close(inputs["pixel_values"], pixels["pixel_values"])
    assert (inputs["input_ids"] == 120).sum() == 4
    with torch.inference_mode():
        logits, expected_logits = model(**inputs).logits, expected(**inputs).logits
    torch.testing.assert_close(logits[..., :120], expected_logits[..., :120])

    options = {"prompt": ["Describe what you see here"], **of_folder(photos)}
    (row,) = [row for row in caption("out", str(tmp_path / "share"), **options) if row["key"] == "4.png"]
    tokens = expected.generate(**inputs, max_new_tokens=12, do_sample=False, suppress_tokens=[120])[0]
    answer = processor.tokenizer.decode(tokens[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert row["caption"] == answer.strip() and answer.strip()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type = 'linear'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end = True"),
        ({"architectures": ["LlavaMistralForCausalLM"]}, "architectures = .*Mistral"),
        ({"hidden_size": 32}, r"do not fit.*mismatched_keys.*norm.weight"),
        ("model.layers.7.mlp.gate.weight", r"do not fit.*unexpected_keys.*layers.7.mlp.gate.weight"),
    ],
)
def test_other_layouts_are_refused(tmp_path, change, message):
    folder = tmp_path / "share"
    save_original_llava(folder, has_vision_weights=True)
    if isinstance(change, dict):
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    else:
        file = folder / "pytorch_model-00002-of-00002.bin"
        torch.save(torch.load(file) | {change: torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_original_llava(str(folder), read_config(folder))


def test_a_missing_part_of_the_weights_is_an_error(tmp_path):
    save_original_llava(tmp_path, has_vision_weights=True)
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(FileNotFoundError, match="pytorch_model-00002-of-00002.bin"):
        load_original_llava(str(tmp_path), read_config(tmp_path))
