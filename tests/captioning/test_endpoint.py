"""Captioners behind a server."""

import base64
import hashlib
import io
import signal
import time
from email.utils import formatdate
from http.server import ThreadingHTTPServer

import httpx
import pytest
from openai import APIConnectionError, APIStatusError
from openai.types.chat import ChatCompletion
from PIL import Image

from modeling_lotlip.captioning import endpoint
from modeling_lotlip.captioning.answer import Answer
from modeling_lotlip.captioning.arguments import CaptionerArguments
from modeling_lotlip.captioning.captioner import load_captioner
from modeling_lotlip.captioning.endpoint import (
    MAX_FAILURES_IN_A_ROW,
    EndpointCaptioner,
    UnreadableAnswerError,
    describe_failed_request,
    make_data_url,
    read_completion,
)
from modeling_lotlip.captioning.image_files import ImageFile
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.utils.output_folder import describe_unfinished
from tests.helpers import photographs
from tests.helpers.captioners import hash_photos, of_folder, read_records, stop_later
from tests.helpers.chat_server import serve
from tests.helpers.images import save_images


def make_image_file() -> ImageFile:
    """An image to caption that is known by its hash alone."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return ImageFile(digest, None, digest, content, None, "Describe")


# What a server answers for some images, one answer after the other, and which of these end in a failure
FAULTS = {
    "0.png": [(500, {"error": "it hurts"}), (503, b"busy")],
    "1.png": [(429, {"error": "too fast"}, "2")],
    "2.png": ["stall"],
    "3.png": ["hang up"],
    "4.png": [(200, b"<html>Welcome</html>")],
    "5.png": [(200, {"choices": []})],
    "6.png": [(400, {"error": {"message": "this picture is too large"}})],
    "7.png": [(200, {"choices": [{"message": {"content": None}}]})],
    "8.png": [(200, b"{")],
    # for 2 seconds, a byte every 0.04
    "9.png": [(200, {"choices": [{"message": {"content": "x"}}]}, None, 0.04)],
}
LASTING = {
    "4.png": "no chat completion",
    "5.png": "no chat completion",
    "6.png": "this picture is too large",
    "7.png": "has no text",
    "8.png": "the server failed",
    "broken.png": "the image cannot be read",
}


def test_a_server_that_fails_stalls_and_answers_nonsense(caption, waits, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    folder = save_images(tmp_path / "mine", load_scenes(10, seed=23)["image"])
    digests = hash_photos(folder)
    (folder / "broken.png").write_bytes(b"nothing")
    options = {
        **of_folder(folder),
        "prompt": ["Describe"],
        "concurrency": 3,
        "timeout": 1,
        "max_retries": 3,
    }
    with serve({digests[name]: list(answers) for name, answers in FAULTS.items()}) as server:
        records = caption("out", "their-model", endpoint=server.url, **options)
    rows = {row["key"]: row for row in records}
    assert server.most_at_work == 3
    assert {name for name, row in rows.items() if row["error"]} == LASTING.keys()
    for name, row in rows.items():
        if name in LASTING:
            assert LASTING[name] in row["error"]
            assert row["caption"] is None
        else:  # the very file was sent
            assert row["caption"] == f"{digests[name]} of Describe"
            assert row["num_tokens"] == 7
    assert waits.count(2) == 1, "`Retry-After` is waited for"
    assert [digest for digest, *_ in server.requests].count(digests["1.png"]) == 2
    _, kind, request, authorization = server.requests[0]
    assert kind == "data:image/png"
    assert authorization == "Bearer secret"
    assert request["model"] == "their-model"
    assert request["max_tokens"] == 12
    assert request["temperature"] == 0

    with serve({}) as server:
        records = caption("out", "their-model", endpoint=server.url, **options, retry_failed=True)
    rows = {row["key"]: row for row in records}
    sent = {digest for digest, *_ in server.requests}
    assert sent == {digests[name] for name in LASTING.keys() - {"broken.png"}}
    assert len(rows) == 11
    assert [name for name, row in rows.items() if row["error"]] == ["broken.png"]


def test_a_run_with_a_server_ends_at_a_signal(caption, photos, tmp_path):
    options = {**of_folder(photos), "concurrency": 4, "shard_size": 1}
    with serve({digest: ["stall"] for digest in [*hash_photos(photos).values()][2:]}) as server:
        stop_later(tmp_path / "out")
        caption("out", "model", endpoint=server.url, **options)
    assert caption.stop_number == signal.SIGTERM
    assert len(read_records(tmp_path / "out")) == 2
    assert "out is not complete" in describe_unfinished(tmp_path / "out")
    with serve({}) as server:
        rows = caption("out", "model", endpoint=server.url, **options)
    assert len(rows) == 6
    assert len(server.requests) == 4
    assert describe_unfinished(tmp_path / "out") is None


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
    for max_image_size, options in ((None, {}), (40, {"max_image_size": 40})):
        options |= of_folder(folder)
        with serve({}) as server:
            caption(f"out{max_image_size}", "model", endpoint=server.url, **options)
        sizes[max_image_size] = sorted(server.sizes)
        assert {kind for _, kind, *_ in server.requests} == {"data:image/jpeg"}
        sent = {digest for digest, *_ in server.requests}
        assert (hash_photos(folder)["plain.jpg"] in sent) == (max_image_size is None)
    assert sizes == {None: [(50, 100), *[(100, 50)] * 3], 40: [(20, 40), *[(40, 20)] * 3]}


def test_a_server_that_refuses_or_is_gone_ends_the_run(caption, photos, tmp_path, monkeypatch):
    for status in (401, 402):
        refusals = {digest: [(status, {"error": "no"})] for digest in hash_photos(photos).values()}
        with serve(refusals) as server, pytest.raises(ValueError, match="refuses `--captioner model`.*OPENAI_API_KEY"):
            caption(f"out{status}", "model", endpoint=server.url, **of_folder(photos))
        assert read_records(tmp_path / f"out{status}") == []
    monkeypatch.setattr(endpoint, "MAX_FAILURES_IN_A_ROW", 3)
    options = {"concurrency": 1, "max_retries": 0}
    with pytest.raises(ValueError, match="has failed 3 times in a row, last: .*`--retry_failed`"):
        caption("gone", "model", endpoint=server.url, **of_folder(photos), **options)
    assert len(read_records(tmp_path / "gone")) == 2, "failures are kept"


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The seconds of the waits before retries, which the test does not wait."""
    seconds = []

    async def note(requested: float) -> None:
        seconds.append(requested)

    monkeypatch.setattr(endpoint, "wait", note)
    return seconds


def ask(server: ThreadingHTTPServer, file: ImageFile, **options: object) -> Answer:
    """The answer of a server for one image."""
    captioner = EndpointCaptioner("model", CaptionerArguments(endpoint=server.url, **options))
    (((_, answer),),) = captioner.answer(iter([file]), lambda: False)
    return answer


def test_the_answers_before_a_file_that_ends_the_run_are_kept():
    def read_files():
        yield make_image_file()
        raise ValueError("Two images have one key")

    answers = []
    with serve({}) as server:
        captioner = EndpointCaptioner("model", CaptionerArguments(endpoint=server.url, concurrency=1))
        with pytest.raises(ValueError, match="Two images have one key"):
            for batch in captioner.answer(read_files(), lambda: False):
                answers += batch
    assert len(answers) == 1


def test_a_pause_of_more_than_two_minutes_is_waited_for_and_announced(waits, caplog):
    file = make_image_file()
    faults = [(429, {"error": "too fast"}, "600")] * 3
    with serve({file.sha256: faults}) as server:
        answer = ask(server, file, max_retries=3)
    assert answer.error is None
    assert waits == [600.0] * 3
    assert caplog.text.count("asks for a pause of 600 seconds") == 1


def test_a_pause_of_more_than_an_hour_ends_the_run_and_is_no_failure_of_the_image(waits):
    file = make_image_file()
    with serve({file.sha256: [(429, {"error": {"message": "no more today"}}, "86400")]}) as server:
        with pytest.raises(ValueError, match="asks for a pause of 86400 seconds.*no more today.*the same command"):
            ask(server, file)
    assert waits == []


def test_a_failure_that_lasts_is_sent_as_often_as_allowed_after_growing_waits(waits):
    file = make_image_file()
    with serve({file.sha256: [(503, b"busy")] * 9}) as server:
        answer = ask(server, file, max_retries=6)
    assert "503" in answer.error
    assert len(server.requests) == 7
    for waited, seconds in zip(waits, [0.5, 1, 2, 4, 8, 8], strict=True):
        assert 0.75 * seconds <= waited <= seconds


@pytest.mark.parametrize(
    "status, wish, num_requests",
    [(500, None, 2), (529, None, 2), (408, None, 2), (400, None, 1), (400, "true", 2), (429, "false", 1)],
)
def test_what_may_pass_is_sent_again(waits, status, wish, num_requests):
    file = make_image_file()
    headers = {}
    if wish is not None:
        headers["x-should-retry"] = wish
    with serve({file.sha256: [(status, {"error": "no"}, None, 0, headers)]}) as server:
        ask(server, file, max_retries=3)
    assert len(server.requests) == num_requests


@pytest.mark.parametrize(
    "headers, expected",
    [
        ({}, None),
        ({"retry-after": "7.5"}, 7.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_forms_of_retry_after(headers, expected):
    assert endpoint.read_retry_after(httpx.Headers(headers)) == expected


def test_a_date_in_retry_after_is_seconds_from_now():
    date = formatdate(time.time() + 500, usegmt=True)
    assert endpoint.read_retry_after(httpx.Headers({"retry-after": date})) == pytest.approx(500, abs=2)


@pytest.mark.parametrize("num_tokens, expected", [(0, 0), (2**31 - 1, 2**31 - 1), (2**31, None), (-1, None)])
def test_a_count_of_tokens_that_no_file_can_hold_is_left_out(num_tokens, expected):
    choice = {"message": {"content": "A boat."}, "finish_reason": "stop"}
    completion = ChatCompletion.construct(choices=[choice], usage={"completion_tokens": num_tokens})
    assert read_completion(completion).num_tokens == expected


def test_an_answer_in_parts_is_the_texts_of_them():
    thought = {"type": "thinking", "thinking": "Hm."}
    content = [thought, {"type": "text", "text": "A "}, {"type": "text", "text": "boat."}]
    choice = {"message": {"content": content}, "finish_reason": "stop"}
    completion = ChatCompletion.construct(choices=[choice])
    assert read_completion(completion).caption == "A boat."
    completion.choices[0].message.content = [thought]
    with pytest.raises(UnreadableAnswerError, match="the answer has no text .*Hm"):
        read_completion(completion)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'`--endpoint` needs openai: `pip install "lotlip\[endpoint\]"`'):
        load_captioner("model", CaptionerArguments(endpoint="http://127.0.0.1:9/v1"))


def test_options_of_a_request():
    plain = {"max_tokens": 512, "temperature": 0.0, "seed": 0}
    assert endpoint.list_request_options(CaptionerArguments()) == plain
    options = {"max_new_tokens": 9, "temperature": 0.5, "top_p": 0.9, "repetition_penalty": 1.5, "seed": 7}
    assert endpoint.list_request_options(CaptionerArguments(**options)) == {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "extra_body": {"repetition_penalty": 1.5},
    }


def make_captioner() -> EndpointCaptioner:
    return EndpointCaptioner("model", CaptionerArguments(endpoint="http://127.0.0.1:9/v1"))


def ask_for_pause(seconds: float) -> APIStatusError:
    request = httpx.Request("POST", "http://127.0.0.1:9/v1")
    response = httpx.Response(429, headers={"retry-after": str(seconds)}, request=request)
    return APIStatusError("too fast", response=response, body=None)


def test_a_wait_is_a_sleep_of_as_many_seconds(monkeypatch):
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(endpoint.asyncio, "sleep", sleep)
    with pytest.raises(StopIteration):
        endpoint.wait(2.5).send(None)
    assert slept == [2.5]


@pytest.mark.parametrize(("seconds", "is_said"), [(9.5, False), (10.0, True)])
def test_a_pause_of_ten_seconds_is_announced(caplog, seconds, is_said):
    assert make_captioner().choose_wait(ask_for_pause(seconds), 0) == seconds
    assert ("The run waits, and goes on after it" in caplog.text) == is_said


def test_a_pause_of_an_hour_is_waited_for_and_no_longer_one():
    captioner = make_captioner()
    assert captioner.choose_wait(ask_for_pause(3600), 0) == 3600
    with pytest.raises(ValueError, match="asks for a pause of 3601 seconds"):
        captioner.choose_wait(ask_for_pause(3601), 0)


def test_a_server_that_fails_a_hundred_times_in_a_row_ends_the_run():
    captioner = make_captioner()
    for _ in range(MAX_FAILURES_IN_A_ROW - 1):
        captioner.count_failure(Answer(None, error="busy."))
    captioner.count_failure(Answer("A boat."))
    for _ in range(MAX_FAILURES_IN_A_ROW - 1):
        captioner.count_failure(Answer(None, error="busy."))
    with pytest.raises(ValueError, match="has failed 100 times in a row, last: gone. Start again"):
        captioner.count_failure(Answer(None, error="gone."))


def send(
    kind: str, mode: str = "RGB", orientation: int = 1, max_size: int | None = None, **options: object
) -> tuple[str, Image.Image]:
    """The type of what is sent of an image, `as it is` where no byte has changed, and the image."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new(mode, (40, 20)).save(buffer, kind, exif=exif, **options)
    file = ImageFile("key", None, None, buffer.getvalue(), None)
    header, _, data = make_data_url(file, max_size).partition(",")
    content = base64.b64decode(data)
    mime_type = header.removeprefix("data:").removesuffix(";base64")
    if content == buffer.getvalue():
        mime_type = "as it is"
    return mime_type, Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("kind", "options", "mime_type", "size"),
    [
        ("JPEG", {}, "as it is", (40, 20)),
        ("PNG", {"mode": "L"}, "as it is", (40, 20)),
        ("PNG", {"max_size": 40}, "as it is", (40, 20)),
        ("PNG", {"max_size": 39}, "image/jpeg", (39, 20)),
        ("PNG", {"mode": "RGBA"}, "image/jpeg", (40, 20)),
        ("PNG", {"transparency": (0, 0, 0)}, "image/jpeg", (40, 20)),
        ("PNG", {"mode": "L", "transparency": 0}, "image/jpeg", (40, 20)),
        ("WEBP", {}, "image/jpeg", (40, 20)),
        ("JPEG", {"orientation": 6}, "image/jpeg", (20, 40)),
    ],
    ids=[
        "JPEG",
        "gray",
        "just small enough",
        "too large",
        "transparent",
        "a transparent color",
        "a transparent gray",
        "another format",
        "turned",
    ],
)
def test_an_image_is_sent_as_it_is_unless_a_server_might_misread_it(kind, options, mime_type, size):
    sent_type, image = send(kind, **options)
    assert (sent_type, image.size) == (mime_type, size)


def test_heic_is_sent_as_jpeg():
    file = ImageFile("key", None, None, photographs.encode(Image.new("RGB", (40, 20)), "heic"), None)
    assert make_data_url(file, None).startswith("data:image/jpeg;base64,")


def test_a_failure_is_one_line_with_its_cause():
    assert describe_failed_request(UnreadableAnswerError("no\n JSON")) == "the server failed: no JSON"
    error = APIConnectionError(request=httpx.Request("POST", "http://127.0.0.1:9/v1"))
    error.__cause__ = OSError("refused")
    assert describe_failed_request(error) == "the server failed: Connection error. (refused)"


@pytest.mark.parametrize("endpoint", ["127.0.0.1:8000/v1", "ftp://127.0.0.1/v1", "https:/127.0.0.1/v1"])
def test_an_endpoint_is_an_address_of_the_web(endpoint):
    with pytest.raises(ValueError, match=f"--endpoint {endpoint} must begin with http:// or https://"):
        CaptionerArguments(endpoint=endpoint)


@pytest.mark.parametrize(
    "options",
    [{"dtype": "float16"}, {"dtype": "auto"}, {"batch_size": 4}, {"trust_remote_code": True}, {"num_beams": 2}],
)
def test_how_a_model_runs_here_is_refused_beside_an_endpoint(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"--{name} excludes --endpoint: leave out one of them."):
        CaptionerArguments(endpoint="http://127.0.0.1:9/v1", **options)


@pytest.mark.parametrize(
    ("temperature", "message"),
    [(0, "has no effect with --temperature 0"), (None, "has no effect without --temperature")],
)
def test_what_is_sampled_among_is_refused_without_sampling(temperature, message):
    with pytest.raises(ValueError, match=f"--top_p {message}"):
        CaptionerArguments(temperature=temperature, top_p=0.1)
