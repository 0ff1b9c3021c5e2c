"""Captioners that run here: models of each family against the model called by hand, and the layout of ShareGPT4V."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import sentencepiece
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig, LlavaImageProcessor

from modeling_lotlip.captioning.arguments import CAPTIONERS, CaptionerArguments
from modeling_lotlip.captioning.captioner import load_captioner
from modeling_lotlip.captioning.image_files import ImageFile
from modeling_lotlip.captioning.llava import load_original_llava
from modeling_lotlip.captioning.local import LocalCaptioner, list_end_ids, list_generate_options
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.hub_lotlip import MAX_ASPECT_RATIO
from tests.helpers import photographs
from tests.helpers.captioners import FAMILIES, hash_photos, of_folder, save_captioner, save_original_llava


PROMPTS = [
    "Describe what you see here",
    "Describe in long",
    "what is in the red house on the sand by the sea",
]
FORMS = {
    "llava": "USER: <image> {} ASSISTANT:",
    "qwen2_vl": "USER: <|vision_start|><|image_pad|><|vision_end|>{} ASSISTANT:",
    "llava_next": "USER: <image> {} ASSISTANT:",
    "instructblip": "{}",
    "instructblip_t5": "{}",
}


def test_a_folder_has_the_revision_of_its_weights(tmp_path):
    revisions = []
    for seed in (5, 5, 6):
        name = save_captioner("llava", tmp_path / "captioner", seed=seed)
        revisions.append(LocalCaptioner(str(name), None, CaptionerArguments()).revision)
    assert revisions[0] == revisions[1] != revisions[2]


def set_chat_template(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    processor.chat_template += "Well:"
    processor.save_pretrained(folder)


def set_image_mean(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    processor.save_pretrained(folder)


def set_default_of_generation(folder: Path) -> None:
    generation_config = GenerationConfig.from_pretrained(folder)
    generation_config.no_repeat_ngram_size = 3
    generation_config.save_pretrained(folder)


@pytest.mark.parametrize("change", [set_chat_template, set_image_mean, set_default_of_generation])
def test_a_folder_has_the_revision_of_all_that_answers_depend_on(tmp_path, change):
    name = save_captioner("llava", tmp_path / "captioner", seed=5)
    first = LocalCaptioner(name).revision
    AutoProcessor.from_pretrained(name).save_pretrained(name)
    assert LocalCaptioner(name).revision == first
    change(Path(name))
    assert LocalCaptioner(name).revision != first


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_are_those_of_the_model_called_by_hand(caption, photos, tmp_path, monkeypatch, family):
    """One image at a time, without padding, against batches of prompts of different lengths."""
    # prompts are sampled by the name of the captioner: it must be the same every time
    monkeypatch.chdir(tmp_path)
    name = save_captioner(family, Path(f"small_{family}"), seed=5)
    rows = caption("out", f"{name}@v1", **of_folder(photos), prompt=PROMPTS, batch_size=4, seed=1)
    model = AutoModelForImageTextToText.from_pretrained(name).eval()
    processor = AutoProcessor.from_pretrained(name)
    assert {row["key"]: row["sha256"] for row in rows} == hash_photos(photos)
    assert len(rows) == 6
    assert len({row["prompt"] for row in rows}) > 1
    for row in rows:
        image = Image.open(photos / row["key"]).convert("RGB")
        text = FORMS[family].format(row["prompt"])
        inputs = processor(images=[image], text=[text], return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0]
        if family != "instructblip_t5":
            tokens = tokens[inputs["input_ids"].shape[1] :]
        expected = processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert row["num_tokens"] == len(expected.split())
        # neither the end token nor padding: it was cut off at the maximum of tokens
        assert row["is_cut_off"] == (tokens[-1].item() not in (2, 3))
        assert row["caption"] == (expected or None)
        settings = {"max_new_tokens": 12, "num_beams": 1, "do_sample": False, "dtype": "float32"}
        assert json.loads(row["generation_settings"]) == settings
        assert row["captioner"] == f"{name}@v1"
        assert row["revision"] == "v1"
        assert (row["error"] is None) == bool(expected)
    assert len({row["caption"] for row in rows}) > 1, "captions depend on the image"


class RefusingCaptioner(LocalCaptioner):
    """A captioner whose processor cannot bring images of a width of 99 pixels to its size."""

    error = ValueError("too thin")

    def make_inputs(self, prompts, images):
        if any(image.width == 99 for image in images):
            raise self.error
        return super().make_inputs(prompts, images)


def make_files(images: list[Image.Image]) -> list[ImageFile]:
    files = []
    for index, image in enumerate(images):
        files.append(ImageFile(str(index), None, None, photographs.encode(image, "png"), None, "Describe"))
    return files


@pytest.mark.parametrize(
    ("error", "message"),
    [(ValueError("too thin"), "too thin"), (RuntimeError("can't allocate"), "can't"), (MemoryError(), "MemoryError")],
    ids=["value", "runtime", "memory"],
)
def test_an_image_that_the_processor_refuses_takes_no_other_with_it(llava, error, message):
    captioner = RefusingCaptioner(llava, arguments=CaptionerArguments(device="cpu"))
    captioner.error = error
    files = make_files([Image.new("RGB", (width, 60)) for width in (80, 99, 70)])
    jobs = {job.files[0].key: job for job in captioner.make_jobs(iter(files))}
    assert f"the processor refuses it: {message}" in jobs["1"].error
    assert [jobs[key].error for key in ("0", "2")] == [None, None]


def test_of_a_thin_image_the_middle_is_captioned(tmp_path):
    """The processor resizes the short side: 1 x 20,000 pixels would become 28 x 560,000."""
    captioner = LocalCaptioner(save_captioner("llava", tmp_path / "llava"), arguments=CaptionerArguments(device="cpu"))
    image_processor = captioner.processor.image_processor
    image_processor.do_center_crop = False
    (job,) = captioner.make_jobs(iter(make_files([Image.new("RGB", (1, 20_000))])))
    assert job.inputs["pixel_values"].shape[-2:] == (28 * MAX_ASPECT_RATIO, 28)


@pytest.mark.parametrize("family, end_with_text, end_with_padding", [("llava", -1, 0), ("instructblip_t5", 0, -1)])
def test_prompts_end_where_the_answer_begins(family, end_with_text, end_with_padding, tmp_path):
    """An encoder counts its positions from the first token on, and the answer of a decoder follows its prompt."""
    name = save_captioner(family, tmp_path / family)
    captioner = LocalCaptioner(name, None, CaptionerArguments(device="cpu"))
    image = load_scenes(1, seed=27)[0]["image"]
    mask = captioner.make_inputs(["red", "Describe in long"], [image, image])["attention_mask"]
    assert mask[1].all()
    assert not mask[0].all()
    assert mask[0, end_with_text]
    assert not mask[0, end_with_padding]


def test_captions_are_greedy_by_default():
    expected = {"max_new_tokens": 512, "num_beams": 1, "do_sample": False}
    assert list_generate_options(CaptionerArguments()) == expected


def test_captions_are_sampled_with_a_temperature():
    options = {
        "max_new_tokens": 9,
        "num_beams": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "repetition_penalty": 1.5,
    }
    assert list_generate_options(CaptionerArguments(**options)) == {**options, "do_sample": True}


def test_a_captioner_is_a_short_name_a_repository_at_a_revision_or_a_folder(monkeypatch, tmp_path):
    loaded = []

    def load(self, name, revision, arguments):
        loaded.append((name, revision))

    monkeypatch.setattr(LocalCaptioner, "__init__", load)
    (tmp_path / "a@b").mkdir()
    for name in ("llava", "sharegpt4v@main", "them/model@v1", str(tmp_path / "a@b")):
        load_captioner(name, CaptionerArguments(device="cpu"))
    assert loaded == [
        ("llava-hf/llava-1.5-7b-hf", None),
        ("Lin-Chen/ShareGPT4V-7B", "main"),
        ("them/model", "v1"),
        (str(tmp_path / "a@b"), None),
    ]


def test_a_model_of_another_kind_or_without_a_chat_template_is_refused(photos, model_dir, tmp_path):
    arguments = CaptionerArguments(device="cpu")
    for folder in (photos, model_dir):
        with pytest.raises(ValueError, match=f"`--captioner {folder}` cannot be loaded. It must be one of instructb"):
            load_captioner(str(folder), arguments)
    name = save_captioner("llava", tmp_path / "llava")
    (tmp_path / "llava" / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"\(llava\) has no chat template: save its processor with one"):
        load_captioner(name, arguments)


def test_captions_that_are_sampled_are_the_same_with_the_same_seed(caption, photos, llava):
    options = {**of_folder(photos), "temperature": 5.0, "prompt": PROMPTS[:1]}
    captions = {}
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        rows = caption(name, llava, **options, seed=seed)
        captions[name] = {row["key"]: row["caption"] for row in rows}
    assert captions["first"] == captions["again"]
    assert captions["first"] != captions["other"]


@pytest.mark.parametrize(("device", "is_said"), [("cpu", True), ("meta", False)])
def test_a_large_captioner_without_a_gpu_is_warned_of_before_it_is_loaded(monkeypatch, caplog, device, is_said):
    def load_model(*_):
        raise ValueError("loaded")

    monkeypatch.setattr("modeling_lotlip.captioning.local.load_captioning_model", load_model)
    monkeypatch.setattr("modeling_lotlip.captioning.local.check_device", lambda device: None)
    with pytest.raises(ValueError, match="loaded"):
        LocalCaptioner(CAPTIONERS["llava"], None, CaptionerArguments(device=device))
    assert ("there is no GPU" in caplog.text) == is_said


def read_config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("has_vision_weights", [True, False])
def test_the_released_layout_of_sharegpt4v_is_a_llava(caption, photos, tmp_path, has_vision_weights):
    folder = tmp_path / "share"
    expected = save_original_llava(folder, has_vision_weights).eval()
    model, processor = load_original_llava(str(folder), read_config(folder))
    image = Image.open(photos / "4.png").convert("RGB")
    square = Image.new("RGB", (image.width, image.width), (122, 116, 104))
    square.paste(image, (0, (image.width - image.height) // 2))
    pixels = LlavaImageProcessor.from_pretrained(folder / "tower")(images=square, return_tensors="pt")
    text = "USER: <image>\nDescribe what you see here ASSISTANT:"
    inputs = processor(images=image, text=text, return_tensors="pt")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert processor.tokenizer(PROMPTS[0])["input_ids"] == [1, *pieces.encode(PROMPTS[0])]
    torch.testing.assert_close(inputs["pixel_values"], pixels["pixel_values"])
    assert (inputs["input_ids"] == 120).sum() == 4
    with torch.inference_mode():
        logits = model(**inputs).logits
        expected_logits = expected(**inputs).logits
    torch.testing.assert_close(logits[..., :120], expected_logits[..., :120])

    options = {"prompt": ["Describe what you see here"], **of_folder(photos)}
    (row,) = [row for row in caption("out", str(folder), **options) if row["key"] == "4.png"]
    tokens = expected.generate(**inputs, max_new_tokens=12, do_sample=False, suppress_tokens=[120])[0]
    new_tokens = tokens[inputs["input_ids"].shape[1] :]
    answer = processor.tokenizer.decode(new_tokens, skip_special_tokens=True)
    assert row["caption"] == answer.strip()
    assert answer.strip()


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


@pytest.mark.parametrize(("eos_token_id", "expected"), [(7, {0, 2, 5, 7}), ([7, 8], {0, 2, 5, 7, 8})])
def test_an_answer_ends_with_any_token_of_the_end(eos_token_id, expected):
    generation_config = SimpleNamespace(pad_token_id=0, eos_token_id=eos_token_id)
    model = SimpleNamespace(generation_config=generation_config)
    tokenizer = SimpleNamespace(eos_token_id=2, pad_token_id=5)
    assert list_end_ids(model, tokenizer) == expected
