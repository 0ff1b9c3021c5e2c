"""Testing suite for the PyTorch LoTLIP model."""

import tempfile
import unittest

from parameterized import parameterized
from transformers import LotlipConfig, LotlipTextConfig, LotlipVisionConfig
from transformers.testing_utils import require_torch, require_vision, slow, torch_device
from transformers.utils import is_torch_available

from ...test_configuration_common import ConfigTester
from ...test_image_processing_common import COCO_CATS_IMAGE_URL, load_test_image
from ...test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor, random_attention_mask
from ...test_pipeline_mixin import PipelineTesterMixin


if is_torch_available():
    import torch
    from transformers import (
        LotlipModel,
        LotlipProcessor,
        LotlipTextModel,
        LotlipTextModelWithProjection,
        LotlipVisionModel,
        LotlipVisionModelWithProjection,
    )


class LotlipVisionModelTester:
    batch_size = 4
    num_channels = 3
    image_size = 30
    patch_size = 6
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    intermediate_size = 37
    seq_length = (image_size // patch_size) ** 2 + 1
    is_training = False

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        return LotlipVisionConfig(
            image_size=self.image_size,
            patch_size=self.patch_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            initializer_range=0.1,
        )

    def prepare_config_and_inputs(self):
        shape = [self.batch_size, self.num_channels, self.image_size, self.image_size]
        return self.get_config(), floats_tensor(shape)

    def create_and_check_model(self, config, pixel_values):
        model = LotlipVisionModel(config).to(torch_device).eval()
        with torch.no_grad():
            result = model(pixel_values)
        states_shape = (self.batch_size, self.seq_length, self.hidden_size)
        self.parent.assertEqual(result.last_hidden_state.shape, states_shape)
        self.parent.assertEqual(result.pooler_output.shape, (self.batch_size, self.hidden_size))

    def prepare_config_and_inputs_for_common(self):
        config, pixel_values = self.prepare_config_and_inputs()
        return config, {"pixel_values": pixel_values}


@require_torch
class LotlipVisionModelTest(ModelTesterMixin, unittest.TestCase):
    """A vision tower: it has no token ids, no token embeddings and no attention mask of texts."""

    all_model_classes = (LotlipVisionModel, LotlipVisionModelWithProjection) if is_torch_available() else ()
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = LotlipVisionModelTester(self)
        self.config_tester = ConfigTester(
            self, config_class=LotlipVisionConfig, has_text_modality=False, hidden_size=36
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model(self):
        self.model_tester.create_and_check_model(*self.model_tester.prepare_config_and_inputs())

    def test_model_get_set_embeddings(self):
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config)
            self.assertIsInstance(model.get_input_embeddings(), torch.nn.Module)
            self.assertIsNone(model.get_output_embeddings())


class LotlipTextModelTester:
    batch_size = 4
    seq_length = 7
    vocab_size = 99
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    intermediate_size = 37
    num_corner_tokens = 2
    is_training = False

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        return LotlipTextConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=64,
            num_corner_tokens=self.num_corner_tokens,
            projection_dim=32,
            initializer_range=0.1,
        )

    def prepare_config_and_inputs(self):
        input_ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size - 1) + 1
        return self.get_config(), input_ids, random_attention_mask([self.batch_size, self.seq_length])

    def create_and_check_model(self, config, input_ids, attention_mask):
        model = LotlipTextModel(config).to(torch_device).eval()
        with torch.no_grad():
            result = model(input_ids, attention_mask=attention_mask)
            with_corners = model(input_ids, attention_mask=attention_mask, output_corner_tokens=True)
        states_shape = (self.batch_size, self.seq_length, self.hidden_size)
        self.parent.assertEqual(result.last_hidden_state.shape, states_shape)
        self.parent.assertEqual(result.pooler_output.shape, (self.batch_size, self.hidden_size))
        self.parent.assertIsNone(result.corner_pooler_output)
        corners_shape = (self.batch_size, self.num_corner_tokens, self.hidden_size)
        self.parent.assertEqual(with_corners.corner_pooler_output.shape, corners_shape)
        # nothing but a corner token itself reads it
        for name in ("pooler_output", "last_hidden_state"):
            torch.testing.assert_close(with_corners[name], result[name], rtol=1e-4, atol=1e-4)

    def prepare_config_and_inputs_for_common(self):
        config, input_ids, attention_mask = self.prepare_config_and_inputs()
        return config, {"input_ids": input_ids, "attention_mask": attention_mask}


@require_torch
class LotlipTextModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LotlipTextModel, LotlipTextModelWithProjection) if is_torch_available() else ()

    def setUp(self):
        self.model_tester = LotlipTextModelTester(self)
        self.config_tester = ConfigTester(self, config_class=LotlipTextConfig, hidden_size=36)

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model(self):
        self.model_tester.create_and_check_model(*self.model_tester.prepare_config_and_inputs())


class LotlipModelTester:
    is_training = True

    def __init__(self, parent):
        self.parent = parent
        self.text_model_tester = LotlipTextModelTester(parent)
        self.vision_model_tester = LotlipVisionModelTester(parent)
        self.batch_size = self.text_model_tester.batch_size

    def get_config(self):
        return LotlipConfig(
            text_config=self.text_model_tester.get_config().to_dict(),
            vision_config=self.vision_model_tester.get_config().to_dict(),
            projection_dim=32,
        )

    def prepare_config_and_inputs(self):
        _, input_ids, attention_mask = self.text_model_tester.prepare_config_and_inputs()
        _, pixel_values = self.vision_model_tester.prepare_config_and_inputs()
        return self.get_config(), input_ids, attention_mask, pixel_values

    def create_and_check_model(self, config, input_ids, attention_mask, pixel_values):
        model = LotlipModel(config).to(torch_device).eval()
        with torch.no_grad():
            result = model(input_ids=input_ids, pixel_values=pixel_values[:3], attention_mask=attention_mask)
        self.parent.assertEqual(result.logits_per_image.shape, (3, self.batch_size))
        self.parent.assertEqual(result.logits_per_text.shape, (self.batch_size, 3))
        self.parent.assertEqual(result.image_embeds.shape, (3, 32))
        self.parent.assertEqual(result.text_embeds.shape, (self.batch_size, 32))

    def create_and_check_captions(self, config, input_ids, attention_mask, pixel_values):
        """A short and two long captions for each image; the last long caption of the last image is absent."""
        model = LotlipModel(config).to(torch_device).eval()
        input_ids = torch.stack([input_ids, input_ids.flip(0), input_ids.roll(1, 0)], dim=1)
        attention_mask = torch.stack([attention_mask, attention_mask.flip(0), attention_mask.roll(1, 0)], dim=1)
        attention_mask[-1, -1] = 0
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "pixel_values": pixel_values}
        with torch.no_grad():
            result = model(**inputs, return_loss=True)
            short = model(input_ids=input_ids[:, 0], attention_mask=attention_mask[:, 0], pixel_values=pixel_values)
            input_ids[-1, -1] = 1
            unread = model(**inputs, return_loss=True)
        self.parent.assertEqual(result.text_embeds.shape, (self.batch_size, 7, 32))
        self.parent.assertEqual(result.text_embeds[-1, -3:].abs().max().item(), 0)
        torch.testing.assert_close(result.logits_per_image, short.logits_per_image)
        torch.testing.assert_close(result.loss, unread.loss)

    def prepare_config_and_inputs_for_common(self):
        config, input_ids, attention_mask, pixel_values = self.prepare_config_and_inputs()
        return config, {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "pixel_values": pixel_values,
            "return_loss": True,
        }


@require_torch
class LotlipModelTest(ModelTesterMixin, PipelineTesterMixin, unittest.TestCase):
    all_model_classes = (LotlipModel,) if is_torch_available() else ()
    pipeline_model_mapping = (
        {"feature-extraction": LotlipModel, "image-feature-extraction": LotlipVisionModel}
        if is_torch_available()
        else {}
    )
    additional_model_inputs = ["pixel_values"]
    test_resize_embeddings = False
    _is_composite = True

    def setUp(self):
        self.model_tester = LotlipModelTester(self)
        self.config_tester = ConfigTester(self, config_class=LotlipConfig, has_text_modality=False)

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model(self):
        self.model_tester.create_and_check_model(*self.model_tester.prepare_config_and_inputs())

    def test_captions(self):
        self.model_tester.create_and_check_captions(*self.model_tester.prepare_config_and_inputs())

    @unittest.skip(reason="Attentions are tested in the individual tower tests")
    def test_attention_outputs(self):
        pass

    @unittest.skip(reason="Hidden states are tested in the individual tower tests")
    def test_hidden_states_output(self):
        pass

    @unittest.skip(reason="Retained gradients are tested in the individual tower tests")
    def test_retain_grad_hidden_states_attentions(self):
        pass

    @unittest.skip(reason="LotlipModel takes no inputs_embeds")
    def test_inputs_embeds(self):
        pass

    def test_load_vision_text_config(self):
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        with tempfile.TemporaryDirectory() as tmp_dir_name:
            config.save_pretrained(tmp_dir_name)
            vision_config = LotlipVisionConfig.from_pretrained(tmp_dir_name)
            self.assertDictEqual(config.vision_config.to_dict(), vision_config.to_dict())
            text_config = LotlipTextConfig.from_pretrained(tmp_dir_name)
            self.assertDictEqual(config.text_config.to_dict(), text_config.to_dict())


TEXTS = [
    "Two cats lie on a pink couch. Two remote controls lie beside them.",
    "A dog runs on a beach. The sea is calm.",
]
# By checkpoint, with the image and the texts above, on a CPU in float32: the logits, and the first numbers of the
# image's embedding, of the first text's, and of its corner tokens, as they are projected
EXPECTED = {
    "weiwu-ww/LoTLIP-ViT-B-16-100M": {"logits": [], "image": [], "text": [], "corners": []},
    "weiwu-ww/LoTLIP-ViT-B-32-100M": {"logits": [], "image": [], "text": [], "corners": []},
}


@require_vision
@require_torch
class LotlipModelIntegrationTest(unittest.TestCase):
    def load(self, model_id):
        processor = LotlipProcessor.from_pretrained(model_id)
        inputs = processor(text=TEXTS, images=load_test_image(COCO_CATS_IMAGE_URL), return_tensors="pt")
        return LotlipModel.from_pretrained(model_id).to(torch_device).eval(), inputs.to(torch_device)

    def check(self, actual, expected):
        torch.testing.assert_close(actual.cpu(), torch.tensor(expected), rtol=1e-3, atol=1e-3)

    @parameterized.expand(EXPECTED)
    @slow
    def test_logits(self, model_id):
        model, inputs = self.load(model_id)
        with torch.no_grad():
            outputs = model(**inputs)
        self.check(outputs.logits_per_image, EXPECTED[model_id]["logits"])
        self.check(outputs.logits_per_text.t(), EXPECTED[model_id]["logits"])

    @parameterized.expand(EXPECTED)
    @slow
    def test_features(self, model_id):
        model, inputs = self.load(model_id)
        with torch.no_grad():
            image = model.get_image_features(inputs["pixel_values"]).pooler_output
            texts = model.get_text_features(inputs["input_ids"], inputs["attention_mask"], output_corner_tokens=True)
        self.check(image[0, :4], EXPECTED[model_id]["image"])
        self.check(texts.pooler_output[0, :4], EXPECTED[model_id]["text"])
        self.check(texts.corner_pooler_output[0, :, :4], EXPECTED[model_id]["corners"])
