"""The model under the tests that every model of transformers has, which are in its source tree only."""

import unittest

from transformers import (
    LotlipConfig,
    LotlipModel,
    LotlipTextConfig,
    LotlipTextModel,
    LotlipTextModelWithProjection,
    LotlipVisionConfig,
    LotlipVisionModel,
    LotlipVisionModelWithProjection,
)
from transformers.testing_utils import require_torch

from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor, random_attention_mask


ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.1,
    "projection_dim": 32,
}


class LotlipTextModelTester:
    batch_size, seq_length, is_training = 12, 7, False
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        return LotlipTextConfig(**ENCODER, vocab_size=99, max_position_embeddings=64)

    def prepare_config_and_inputs_for_common(self):
        input_ids = ids_tensor([self.batch_size, self.seq_length], 99)
        attention_mask = random_attention_mask([self.batch_size, self.seq_length])
        return self.get_config(), {"input_ids": input_ids, "attention_mask": attention_mask}


class LotlipVisionModelTester:
    batch_size, seq_length, is_training = 12, 226, False
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        return LotlipVisionConfig(**ENCODER, image_size=30, patch_size=2)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {"pixel_values": floats_tensor([self.batch_size, 3, 30, 30])}


class LotlipModelTester:
    is_training = True

    def __init__(self, parent):
        self.parent = parent
        self.text_model_tester = LotlipTextModelTester(parent)
        self.vision_model_tester = LotlipVisionModelTester(parent)
        self.batch_size = self.text_model_tester.batch_size

    def get_config(self):
        text_config, vision_config = self.text_model_tester.get_config(), self.vision_model_tester.get_config()
        return LotlipConfig(text_config=text_config, vision_config=vision_config, projection_dim=32)

    def prepare_config_and_inputs_for_common(self):
        _, texts = self.text_model_tester.prepare_config_and_inputs_for_common()
        _, images = self.vision_model_tester.prepare_config_and_inputs_for_common()
        return self.get_config(), {**texts, **images, "return_loss": True}


@require_torch
class LotlipTextModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LotlipTextModel, LotlipTextModelWithProjection)

    def setUp(self):
        self.model_tester = LotlipTextModelTester(self)
        self.config_tester = ConfigTester(self, config_class=LotlipTextConfig, hidden_size=36)

    def test_config(self):
        self.config_tester.run_common_tests()


@require_torch
class LotlipVisionModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LotlipVisionModel, LotlipVisionModelWithProjection)
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = LotlipVisionModelTester(self)
        self.config_tester = ConfigTester(
            self, config_class=LotlipVisionConfig, has_text_modality=False, hidden_size=36
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skip(reason="The input embeddings of an image tower are no words")
    def test_model_get_set_embeddings(self):
        pass


@require_torch
class LotlipModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LotlipModel,)
    additional_model_inputs = ["pixel_values"]
    _is_composite = True
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = LotlipModelTester(self)
        self.config_tester = ConfigTester(self, config_class=LotlipConfig, has_text_modality=False, projection_dim=32)

    @unittest.skip(reason="Attentions are tested on the towers")
    def test_attention_outputs(self):
        pass

    @unittest.skip(reason="Hidden states are tested on the towers")
    def test_hidden_states_output(self):
        pass

    @unittest.skip(reason="Hidden states and attentions are tested on the towers")
    def test_retain_grad_hidden_states_attentions(self):
        pass
