"""The integration tests run on a checkpoint of the original's format, and notice another model."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.convert_lotlip_to_hf import convert_checkpoint
from tests.conftest import TINY_REFERENCE, needs_tiny_reference, python_environment
from tests.test_tokenization_lotlip import vocab_file
from tests.upstream import expected_values
from tests.upstream.lay_out import PACKAGE_TESTS, copy_package_tests


# What the tests import of the library's own ones, which are in its sources only
LIBRARY = {
    "test_configuration_common": ["class ConfigTester: ..."],
    "test_image_processing_common": [
        "COCO_CATS_IMAGE_URL = 'image.png'",
        "from transformers.image_utils import load_image as load_test_image",
    ],
    "test_modeling_common": [
        "class ModelTesterMixin: ...",
        "floats_tensor = ids_tensor = random_attention_mask = None",
    ],
    "test_pipeline_mixin": ["class PipelineTesterMixin: ..."],
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """The reference's checkpoint in the library's layout."""
    folder = tmp_path_factory.mktemp("converted") / "tiny"
    words = tmp_path_factory.mktemp("words")
    (words / "vocab.txt").write_bytes(Path(vocab_file()).read_bytes())
    config_path = TINY_REFERENCE / "open_clip_config.json"
    convert_checkpoint(TINY_REFERENCE / "model.pt", folder, config_path, tokenizer_path=str(words))
    return folder


@needs_tiny_reference
def test_measured_values_are_those_of_the_original(converted):
    texts = json.loads((TINY_REFERENCE / "tokenization.json").read_text(encoding="utf-8"))["texts"][:6]
    name = json.loads((TINY_REFERENCE / "images.json").read_text())[0]
    expected = load_file(TINY_REFERENCE / "expected.safetensors")

    with Image.open(TINY_REFERENCE / "images" / name) as image:
        measured = expected_values.measure(str(converted), image.convert("RGB"), texts)

    logits = expected["logits_per_image_7_images_first_6_texts"][:1]
    torch.testing.assert_close(torch.tensor(measured["logits"]), logits, rtol=1e-2, atol=1e-2)
    captions = expected["text_cls_and_corner_features"][0, :, :4]
    torch.testing.assert_close(torch.tensor(measured["text"]), captions[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.tensor(measured["corners"]), captions[1:], rtol=1e-4, atol=1e-4)


@needs_tiny_reference
def test_integration_tests_pass_on_the_measured_checkpoint_and_fail_on_another(converted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.radial_gradient("L").convert("RGB").resize((300, 240)).save("image.png")
    copy_package_tests(tmp_path)
    for package in ("tests", "tests/models"):
        Path(package, "__init__.py").touch()
    for name, lines in LIBRARY.items():
        Path("tests", f"{name}.py").write_text("\n".join(lines))
    model = LotlipModel.from_pretrained(converted)
    for folder in ("same", "changed"):
        model.save_pretrained(folder)
        LotlipProcessor.from_pretrained(converted).save_pretrained(folder)
    tests = PACKAGE_TESTS / "test_modeling_lotlip.py"
    expected_values.main(["same", "changed", "--image", "image.png", "--tests", str(tests)])
    with torch.no_grad():
        model.text_projection.weight[0] += 0.01
    model.save_pretrained("changed")

    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", str(tests), "-k", "Integration"]
    done = subprocess.run(command, env=python_environment(RUN_SLOW="1"), capture_output=True, text=True)

    outcomes = dict(reversed(line.split()[:2]) for line in re.findall(r"^(?:PASSED|FAILED) .*", done.stdout, re.M))
    outcomes = {test.partition("::")[2]: outcome for test, outcome in outcomes.items()}
    assert outcomes == {
        "LotlipModelIntegrationTest::test_features_0_same": "PASSED",
        "LotlipModelIntegrationTest::test_features_1_changed": "FAILED",
        "LotlipModelIntegrationTest::test_logits_0_same": "PASSED",
        "LotlipModelIntegrationTest::test_logits_1_changed": "FAILED",
    }
