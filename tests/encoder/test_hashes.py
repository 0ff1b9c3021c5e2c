"""What is stored is known by the code that made it, where that is of no library."""

import importlib
import sys

import pytest

from modeling_lotlip import LotlipModel
from modeling_lotlip.encoder.hashes import hash_model, hash_processor
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.image_features import hash_image_side
from tests.conftest import build_lotlip


SOURCE = """
from modeling_lotlip import LotlipModel, LotlipProcessor

class Model(LotlipModel):
    def embed_images(self, *args, **kwargs):
        return {sign} super().embed_images(*args, **kwargs)

class Processor(LotlipProcessor):
    pass
"""


@pytest.fixture
def load_code(tmp_path, monkeypatch):
    """Writes a file of a user, and returns it as a module, as if the program had begun anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(sign: str):
        (tmp_path / "method_of_a_test.py").write_text(SOURCE.format(sign=sign))
        sys.modules.pop("method_of_a_test", None)
        importlib.invalidate_caches()
        return importlib.import_module("method_of_a_test")

    yield load
    sys.modules.pop("method_of_a_test", None)


def test_the_same_weights_with_other_code_are_another_model(load_code):
    model, processor = build_lotlip()
    hashes = []
    for sign in ("+", "-", "+"):
        code = load_code(sign)
        model.__class__ = code.Model
        processor.__class__ = code.Processor
        image_side = hash_image_side(ContrastiveModel(model))
        hashes.append((hash_model(model), image_side, hash_processor(processor)))
    assert hashes[0] == hashes[2]
    for first, second in zip(hashes[0], hashes[1]):
        assert first != second


def test_a_model_of_the_package_is_known_by_its_weights_alone(model_dir):
    models = [LotlipModel.from_pretrained(model_dir) for _ in range(2)]
    assert hash_model(models[0]) == hash_model(models[1])
