"""Long captions for any images: by models of each family, behind a server that fails, and by runs that are killed."""

import base64
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import sentencepiece
import torch
from datasets import Dataset, load_dataset
from PIL import Image
from pyarrow import parquet
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaImageProcessor

from modeling_lotlip.captioning import endpoint
from modeling_lotlip.captioning.llava import load_original_llava
from modeling_lotlip.captioning.prompts import read_prompts
from modeling_lotlip.commands import pack as pack_webdataset
from modeling_lotlip.commands import recaption
from modeling_lotlip.data.captions import CaptionReader
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.data.side_captions import SideCaptions
from modeling_lotlip.training.models import build_tokenizer
from tests.conftest import training_environment
from tests.data.test_side_files import names, write_shards
from tests.helpers.captioners import FAMILIES, save_captioner, save_original_llava


NUM_PHOTOS = 6
PROMPTS = ["Describe what you see here", "Describe in long", "what is in the red house on the sand by the sea"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Pictures of several shapes, formats and folders."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for index, scene in enumerate(load_scenes(NUM_PHOTOS, seed=21)):
        image = scene["image"].resize((64 + 24 * index, 64))
        image.save(folder / (f"{index}.png" if index % 3 else f"more/{index}.jpg"))
    return folder


def paths(photos: Path) -> dict[str, Path]:
    return {str(path.relative_to(photos)): path for path in photos.rglob("*.*")}


def read(folder: Path) -> list[dict]:
    files = sorted(folder.glob("*.parquet"))
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def command(folder: Path, captioners: list[str], **options: object) -> list[str]:
    argv = ["-m", "modeling_lotlip.commands.recaption", "--output_dir", str(folder), "--device", "cpu"]
    for captioner in captioners:
        argv += ["--captioner", captioner]
    for name, value in ({"max_new_tokens": 12, "rules": "none"} | options).items():
        values = [] if value is True else value if isinstance(value, list) else [value]
        argv += [f"--{name}", *map(str, values)]
    return argv


@pytest.fixture
def caption(monkeypatch, tmp_path):
    """Runs the script in this process, and returns the rows that its folder then holds."""

    def run(name: str, *captioners: str, **options: object) -> list[dict]:
        monkeypatch.setattr(sys, "argv", command(tmp_path / name, list(captioners), **options))
        recaption.main()
        return read(tmp_path / name)

    return run


def folder_options(photos: Path) -> dict:
    return {"dataset_name": "imagefolder", "data_dir": photos}


def list_shards(folder: Path) -> list[Path]:
    return list(folder.glob("captions-*.parquet"))


def stop_later(folder: Path) -> None:
    """Sends this process SIGTERM when two more shards are there."""
    num_shards = len(list_shards(folder))

    def wait_and_stop():
        while len(list_shards(folder)) < num_shards + 2:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_and_stop, daemon=True).start()


FORMS = {
    "llava": "USER: <image> {} ASSISTANT:",
    "idefics3": "USER: <image> {} ASSISTANT:",
    "qwen2_vl": "USER: <|vision_start|><|image_pad|><|vision_end|>{} ASSISTANT:",
    "llava_next": "[INST] <image>\n{} [/INST]",
    "blip2": "Question: {} Answer:",
    "instructblip": "{}",
    "instructblip_t5": "{}",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_are_those_of_the_model_called_by_hand(caption, photos, tmp_path, monkeypatch, family):
    """One image at a time, without padding, against batches of prompts of different lengths."""
    monkeypatch.chdir(tmp_path)  # prompts are drawn by the name of the captioner: it must be the same every time
    name = save_captioner(family, Path(f"small_{family}"), seed=5)
    rows = caption("out", name, **folder_options(photos), prompt=PROMPTS, batch_size=4, seed=1)
    model, processor = AutoModelForImageTextToText.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
    files = paths(photos)
    assert sorted(row["key"] for row in rows) == sorted(files) and len({row["prompt"] for row in rows}) > 1
    for row in rows:
        content = files[row["key"]].read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        image = Image.open(io.BytesIO(content)).convert("RGB")
        inputs = processor(images=[image], text=[FORMS[family].format(row["prompt"])], return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0]
        if family != "instructblip_t5":
            tokens = tokens[inputs["input_ids"].shape[1] :]
        expected = processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert row["caption"] == (expected or None)
        assert row["num_tokens"] == len(expected.split())
        settings = {"max_new_tokens": 12, "num_beams": 1, "do_sample": False, "dtype": "float32"}
        assert json.loads(row["generation_settings"]) == settings
        assert row["captioner"] == name and (row["error"] is None) == bool(expected)
    assert len({row["caption"] for row in rows}) > 1, "captions depend on the image"


@pytest.mark.parametrize("has_vision_weights", [True, False])
def test_the_released_layout_of_sharegpt4v_is_a_llava(caption, photos, tmp_path, has_vision_weights):
    expected = save_original_llava(tmp_path / "share", has_vision_weights).eval()
    model, processor = load_original_llava(str(tmp_path / "share"))
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

    options = {"prompt": "Describe what you see here", **folder_options(photos)}
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
        ({"hidden_size": 32}, r"do not fit.*model.norm.weight \(16,\) instead of \(32,\)"),
        ("model.layers.7.mlp.gate.weight", "do not fit.*Surplus.*model.layers.7.mlp.gate.weight"),
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
        load_original_llava(str(folder))


def test_a_missing_part_of_the_weights_is_an_error(tmp_path):
    save_original_llava(tmp_path, has_vision_weights=True)
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ValueError, match="names files that are not in the folder"):
        load_original_llava(str(tmp_path))


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> str:
    return save_captioner("llava", tmp_path_factory.mktemp("captioner") / "llava")


def test_what_cannot_be_captioned_is_recorded_and_tried_again(caption, photos, llava, tmp_path, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    good = (photos / "1.png").read_bytes()
    contents = {"a.png": good, "again.png": good, "no image.jpg": b"text", "cut.png": good[:300], "empty.png": b""}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    rows = {row["key"]: row for row in caption("out", llava, **folder_options(folder))}
    assert rows.keys() == contents.keys()
    assert rows["a.png"]["caption"] and not rows["a.png"]["error"]
    for name in ("no image.jpg", "cut.png", "empty.png"):
        assert rows[name]["caption"] is None and rows[name]["error"].startswith("the image cannot be read: ")
        assert rows[name]["sha256"] == hashlib.sha256(contents[name]).hexdigest() and rows[name]["num_tokens"] == 0
    assert "2 captions, 0 of them rejected by rules, 3 failures" in capsys.readouterr().out

    gone = Dataset.from_dict({"image": [str(folder / "a.png"), str(tmp_path / "gone.png"), None]})
    gone.save_to_disk(tmp_path / "gone")
    errors = {row["key"]: row["error"] for row in caption("gone_out", llava, dataset_name=tmp_path / "gone")}
    assert errors.pop(str(folder / "a.png")) is None and errors.pop("row 2") == "there is no image"
    assert errors.keys() == {str(tmp_path / "gone.png")} and "No such file" in errors.popitem()[1]

    (folder / "cut.png").write_bytes((photos / "2.png").read_bytes())
    assert caption("out", llava, **folder_options(folder)) == list(rows.values()), "nothing is done twice"
    again = {row["key"]: row for row in caption("out", llava, **folder_options(folder), retry_failed=True)}
    assert len(read(tmp_path / "out")) == len(contents)
    assert again["cut.png"]["caption"] and again["empty.png"]["error"] and again["a.png"] == rows["a.png"]
    shard = list_shards(tmp_path / "out")[0]
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{shard} is no parquet file: delete it"):
        caption("out", llava, **folder_options(folder))


def test_an_image_that_the_processor_refuses_takes_no_other_with_it(caption, tmp_path):
    name = save_captioner("qwen2_vl", tmp_path / "qwen2_vl")
    (tmp_path / "mine").mkdir()
    for index, scene in enumerate(load_scenes(4, seed=26)):
        (scene["image"] if index != 2 else scene["image"].resize((300, 1))).save(tmp_path / "mine" / f"{index}.png")
    rows = {row["key"]: row for row in caption("out", name, **folder_options(tmp_path / "mine"))}
    assert "the processor refuses it: absolute aspect ratio" in rows.pop("2.png")["error"]
    assert len(rows) == 3 and not any(row["error"] for row in rows.values())


def test_keys_and_addresses(caption, llava, tmp_path, capsys):
    scenes = load_scenes(4, seed=22).add_column("url", [f"https://example.org/{index}" for index in range(4)])
    digests = [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in undecoded(scenes, "image")]
    write_shards(tmp_path / "shards", scenes, num_shards=2)
    shards = {"dataset_name": "webdataset", "data_files": tmp_path / "shards" / "*.tar", "image_column": "png"}
    rows = caption("shards", llava, **shards, streaming=True)
    assert sorted(row["key"] for row in rows) == [f"{index:09}" for index in range(4)]
    assert {row["url"]: row["sha256"] for row in rows} == dict(zip(scenes["url"], digests))
    assert {row["key"] for row in caption("urls", llava, **shards, key_column="json.url")} == set(scenes["url"])

    scenes.save_to_disk(tmp_path / "saved")
    saved = {"dataset_name": tmp_path / "saved"}
    assert {row["key"] for row in caption("saved", llava, **saved)} == set(digests)
    # the same image in two rows is captioned once, two images with one key are an error
    double = Dataset.from_list(
        [*undecoded(scenes, "image"), undecoded(scenes, "image")[1]], undecoded(scenes, "image").features
    )
    double.cast_column("image", scenes.features["image"]).save_to_disk(tmp_path / "double")
    assert len(caption("double", llava, dataset_name=tmp_path / "double", key_column="url")) == 4
    assert "1 rows repeat an image" in capsys.readouterr().out
    scenes.map(lambda row: {"url": "the same"}).save_to_disk(tmp_path / "same")
    with pytest.raises(ValueError, match="Two different images have the key 'the same', the second in row 1"):
        caption("same", llava, dataset_name=tmp_path / "same", key_column="url")
    assert len(read(tmp_path / "same")) <= 1
    scenes.map(lambda row, index: {"url": None if index else "known"}, with_indices=True).save_to_disk(
        tmp_path / "some"
    )
    rows = caption("some", llava, dataset_name=tmp_path / "some", key_column="url")
    assert {row["key"] for row in rows} == {"known", *digests[1:]}
    assert "3 images have no `--key_column url`" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prompt": ["Other"]}, "holds captions with prompts = "),
        ({"max_new_tokens": 3}, "max_new_tokens = 12, this run has 3"),
        ({"data_dir": "elsewhere"}, "data_dir = "),
    ],
)
def test_other_settings_are_refused_in_the_same_folder(caption, photos, llava, tmp_path, monkeypatch, change, message):
    options = {**folder_options(photos), "prompt": PROMPTS}
    caption("out", llava, **options)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").symlink_to(photos)
    with pytest.raises(ValueError, match=message):
        caption("out", llava, **options | change)


def test_wrong_arguments(caption, photos, llava, tmp_path, capsys):
    for options, message in (
        ({"top_p": 0.5}, "`--top_p` is for sampling"),
        ({"temperature": 0}, "`--temperature 0.0` must be above 0"),
        ({"endpoint": "http://x", "num_beams": 2}, "`--num_beams` is not in the servers' interface"),
        ({"batch_size": 0}, "`--batch_size 0` must be at least 1"),
    ):
        with pytest.raises(SystemExit):
            caption("out", llava, **folder_options(photos), **options)
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="`--captioner .*photos.*` cannot be loaded: .*config.json"):
        caption("out", str(photos), **folder_options(photos))
    with pytest.raises(ValueError, match="`--prompts_file nothing.txt` cannot be read"):
        caption("out", llava, **folder_options(photos), prompts_file="nothing.txt")
    with pytest.raises(ValueError, match="`--key_column address` is no column of the data set, which has"):
        caption("out", llava, **folder_options(photos), key_column="address")
    with recaption.lock(tmp_path / "out"), pytest.raises(ValueError, match="Another run writes to"):
        caption("out", llava, **folder_options(photos))


class Server(BaseHTTPRequestHandler):
    """Chat completions: what is wrong with the first requests for an image is in `server.faults`, by its hash."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status: int, content: object, retry_after: str | None = None):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if content.startswith(b"<") else "application/json")
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        image, text = request["messages"][0]["content"]
        kind, _, encoded = image["image_url"]["url"].partition(";base64,")
        content = base64.b64decode(encoded)
        digest = hashlib.sha256(content).hexdigest()
        server = self.server
        with server.lock:
            server.requests.append((digest, kind, request, time.monotonic(), self.headers["Authorization"]))
            server.sizes.append(Image.open(io.BytesIO(content)).size)
            server.at_work += 1
            server.most_at_work = max(server.most_at_work, server.at_work)
            faults = server.faults.get(digest, [])
            fault = faults.pop(0) if faults else None
        time.sleep(0.05)
        with server.lock:
            server.at_work -= 1
        if fault == "stall":
            server.is_over.wait(10)
            self.close_connection = True
        elif fault == "hang up":
            self.close_connection = True
        elif fault is not None:
            self.reply(*fault)
        else:
            message = {"role": "assistant", "content": f" {digest} of {text['text']} "}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            usage = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
            about = {"id": "1", "object": "chat.completion", "created": 1, "model": request["model"]}
            self.reply(200, {**about, "choices": choices, "usage": usage})


@contextmanager
def serve(faults: dict[str, list]):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.faults, server.requests, server.sizes, server.lock = faults, [], [], threading.Lock()
    server.is_over = threading.Event()
    server.at_work = server.most_at_work = 0
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_fails_stalls_and_answers_nonsense(caption, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    folder = tmp_path / "mine"
    folder.mkdir()
    digests = {}
    for index, scene in enumerate(load_scenes(10, seed=23)):
        scene["image"].save(folder / f"{index}.png")
        digests[f"{index}.png"] = hashlib.sha256((folder / f"{index}.png").read_bytes()).hexdigest()
    (folder / "broken.png").write_bytes(b"nothing")
    faults = {
        "0.png": [(500, {"error": "it hurts"}), (503, b"busy")],
        "1.png": [(429, {"error": "too fast"}, "2")],
        "2.png": ["stall"],
        "3.png": ["hang up"],
        "4.png": [(200, b"<html>Welcome</html>")],
        "5.png": [(200, {"choices": []})],
        "6.png": [(400, {"error": {"message": "this picture is too large"}})],
        "7.png": [(200, {"choices": [{"message": {"content": None}}]})],
        "8.png": [(200, b"{")],
    }
    lasting = {"4.png": "no chat completion", "5.png": "no chat completion", "6.png": "this picture is too large"}
    lasting |= {"7.png": "has no text", "8.png": "the server failed", "broken.png": "the image cannot be read"}
    options = {**folder_options(folder), "prompt": ["Describe"], "concurrency": 3, "timeout": 1, "max_retries": 3}
    with serve({digests[name]: list(list_of) for name, list_of in faults.items()}) as server:
        rows = {row["key"]: row for row in caption("out", "their-model", endpoint=server.url, **options)}
    assert server.most_at_work == 3
    assert {name for name, row in rows.items() if row["error"]} == lasting.keys()
    for name, row in rows.items():
        if name in lasting:
            assert lasting[name] in row["error"] and row["caption"] is None
        else:  # the very file was sent
            assert row["caption"] == f"{digests[name]} of Describe" and row["num_tokens"] == 7
    first, second = (at for digest, _, _, at, _ in server.requests if digest == digests["1.png"])
    assert second - first >= 1.9, "`Retry-After` is waited for"
    _, kind, request, _, authorization = server.requests[0]
    assert kind == "data:image/png" and authorization == "Bearer secret"
    assert request["model"] == "their-model" and request["max_tokens"] == 12 and request["temperature"] == 0

    with serve({}) as server:
        rows = {
            row["key"]: row for row in caption("out", "their-model", endpoint=server.url, **options, retry_failed=True)
        }
    assert {digest for digest, *_ in server.requests} == {digests[name] for name in lasting if name != "broken.png"}
    assert len(rows) == 11 and [name for name, row in rows.items() if row["error"]] == ["broken.png"]


def test_rules_mend_and_mark_what_is_written(caption, photos, capsys):
    names = sorted(paths(photos))
    answers = dict.fromkeys(names, "The image shows a red boat on the sand. The sea is calm. In the")
    answers[names[1]] = "I'm sorry, but I cannot see the image."
    faults = {}
    for name, answer in answers.items():
        digest = hashlib.sha256(paths(photos)[name].read_bytes()).hexdigest()
        faults[digest] = [(200, {"choices": [{"message": {"content": answer}}]})]
    with serve(faults) as server:
        rows = caption("out", "model", endpoint=server.url, **folder_options(photos), rules="all")
    rejected = {row["key"]: row["caption"] for row in rows if row["rejected_by"]}
    assert rejected == {names[1]: answers[names[1]]}
    others = {row["caption"] for row in rows if row["rejected_by"] is None}
    assert others == {"A red boat on the sand. The sea is calm."} and len(rows) == len(names)
    output = capsys.readouterr().out
    changed = len(names) - 1
    assert f"{{'announcement': {changed}, 'cut_off': {changed}}}" in output
    assert f"{len(names)} captions, 1 of them rejected by rules {{'refusal': 1}}, 0 failures" in output
    with pytest.raises(ValueError, match="rules = "):
        caption("out", "model", endpoint=server.url, **folder_options(photos), rules=["refusal"])


def test_a_run_with_a_server_is_told_to_end(caption, photos, tmp_path):
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths(photos).values()]
    options = {**folder_options(photos), "concurrency": 4, "shard_size": 1}
    with serve({digest: ["stall"] for digest in digests[2:]}) as server:
        stop_later(tmp_path / "out")
        with pytest.raises(SystemExit) as stopped:
            caption("out", "model", endpoint=server.url, **options)
    assert stopped.value.code == 128 + signal.SIGTERM and len(read(tmp_path / "out")) == 2
    with serve({}) as server:
        assert len(caption("out", "model", endpoint=server.url, **options)) == len(server.requests) + 2 == NUM_PHOTOS


def test_images_are_sent_upright_in_a_form_that_servers_read(caption, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    image = load_scenes(1, seed=24)[0]["image"].resize((100, 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    image.save(folder / "other.webp")
    image.save(folder / "plain.jpg")
    image.convert("RGBA").save(folder / "clear.png")
    sizes = {}
    for max_image_size in (None, 40):
        options = {} if max_image_size is None else {"max_image_size": max_image_size}
        with serve({}) as server:
            caption(f"out{max_image_size}", "model", endpoint=server.url, **folder_options(folder), **options)
        sizes[max_image_size] = sorted(server.sizes)
        assert {kind for _, kind, *_ in server.requests} == {"data:image/jpeg"}
        plain = hashlib.sha256((folder / "plain.jpg").read_bytes()).hexdigest()
        assert (plain in {digest for digest, *_ in server.requests}) == (max_image_size is None)
    assert sizes == {None: [(50, 100), *[(100, 50)] * 3], 40: [(20, 40), *[(40, 20)] * 3]}


def test_a_server_that_refuses_or_is_gone_ends_the_run(caption, photos, tmp_path, monkeypatch):

    refusals = {
        hashlib.sha256(path.read_bytes()).hexdigest(): [(401, {"error": "no key"})] for path in paths(photos).values()
    }
    with serve(refusals) as server, pytest.raises(ValueError, match="refuses `--captioner model`.*OPENAI_API_KEY"):
        caption("out", "model", endpoint=server.url, **folder_options(photos))
    assert read(tmp_path / "out") == []
    monkeypatch.setattr(endpoint, "MAX_FAILURES_IN_A_ROW", 3)
    options = {"concurrency": 1, "max_retries": 0}
    with pytest.raises(ValueError, match="has failed 3 times in a row, last: .*`--retry_failed`"):
        caption("gone", "model", endpoint=server.url, **folder_options(photos), **options)
    assert len(read(tmp_path / "gone")) == 2, "failures are kept"


def run_and_kill(argv: list[str], folder: Path, num_processes: int) -> None:
    """Runs the script in processes of its own, which are killed when five more shards are there."""
    launcher = [sys.executable]
    if num_processes > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(num_processes)]
    num_shards = len(list_shards(folder))
    with open(folder.with_suffix(".log"), "a+") as log:
        process = subprocess.Popen([*launcher, *argv], env=training_environment(), stdout=log, stderr=log)
        while len(list_shards(folder)) < num_shards + 5:
            assert process.poll() is None, folder.with_suffix(".log").read_text()
            time.sleep(0.005)
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            os.kill(each.pid, signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL


def test_a_run_that_is_killed_three_times_ends_complete(caption, tmp_path, llava):
    other = save_captioner("instructblip", tmp_path / "instructblip")
    out = tmp_path / "out"
    options = {"max_train_samples": 200, "batch_size": 4, "shard_size": 8}
    argv = command(out, [llava, other], **options)
    for num_processes in (1, 2, 1):
        run_and_kill(argv, out, num_processes)
    num_rows = len(read(out))
    (out / "captions-000099-000.parquet.partial").write_bytes(b"torn")
    stop_later(out)
    with pytest.raises(SystemExit) as stopped:
        caption("out", llava, other, **options)
    assert stopped.value.code == 128 + signal.SIGTERM and num_rows < len(read(out)) < 400
    rows = caption("out", llava, other, **options)

    digests = [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in undecoded(load_scenes(200), "image")]
    assert Counter((row["key"], row["captioner"]) for row in rows) == Counter(
        (digest, captioner) for digest in digests for captioner in (llava, other)
    )
    assert not list(out.glob("*.partial"))
    assert {row["prompt"] for row in rows} == set(read_prompts())
    # what came piece by piece is what an uninterrupted run gives
    whole = {(row["key"], row["captioner"]): row for row in caption("whole", llava, other, max_train_samples=200)}
    assert all(whole[row["key"], row["captioner"]] == row for row in rows)


def test_captions_feed_training(caption, train, llava, photos, tmp_path):
    other = save_captioner("llava_next", tmp_path / "llava_next")
    (tmp_path / "mine").mkdir()
    for index, scene in enumerate(load_scenes(24, seed=25)):
        scene["image"].save(tmp_path / "mine" / f"{index}.png")
    (tmp_path / "mine" / "broken.png").write_bytes(b"nothing")
    data = folder_options(tmp_path / "mine")
    rows = caption("captions", llava, other, **data)
    (tmp_path / "mine" / "broken.png").unlink()
    pattern = str(tmp_path / "captions" / "*.parquet")
    captions = SideCaptions([pattern], "sha256", ["caption"])
    for row in rows:
        expected = [other["caption"] for other in rows if other["sha256"] == row["sha256"] and other["caption"]]
        assert sorted(captions[row["sha256"]]) == sorted(expected), "a caption that is none is absent"
    side = {"side_files": pattern, "side_key_column": "sha256", "key_column": "image"}
    options = {"max_train_steps": 3, "warmup_steps": 1, "max_train_samples": None, "max_eval_samples": 8}
    folder = train("joined", **data, **side, **options, eval_split="train", max_bad_fraction=0.5)
    assert json.loads((folder / "eval_results.json").read_text())["long_num_images"] > 0

    args = ["pack", "--output_dir", str(tmp_path / "shards"), "--shard_size", "10", "--image_format", "png"]
    for name, value in {**data, **side}.items():
        args += [f"--{name}", str(value)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", args)
        pack_webdataset.main()
    files = str(tmp_path / "shards" / "*.tar")
    packed = undecoded(load_dataset("webdataset", data_files=files, split="train"), "png")
    for row in packed:
        digest = hashlib.sha256(row["png"]["bytes"]).hexdigest()
        assert digest == row["json"]["sha256"] and row["json"]["key"] == digest
        assert row["long_captions.json"] == row["json"]["long_captions"] == captions[digest]
    assert len(packed) == len({row["sha256"] for row in rows if row["caption"]})
    tokenizer = build_tokenizer(
        packed,
        CaptionReader(
            packed.column_names,
            names(long_captions_column="long_captions.json"),
            names(long_captions_column="long_captions.json"),
            names(long_captions_column="long_captions.json").image_column,
        ),
    )
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    shards = {"dataset_name": "webdataset", "data_files": files, "streaming": True, "image_column": "png"}
    shards |= {"long_captions_column": "long_captions.json", "tokenizer_name": tmp_path / "tokenizer"}
    folder = train("streamed", **shards, **options, eval_split="train")
    assert json.loads((folder / "eval_results.json").read_text())["long_num_images"] == 8
