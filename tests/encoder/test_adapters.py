"""Adapters of PEFT are a model's name like any other."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense
from transformers import PreTrainedModel

from modeling_lotlip import DualEncoder, LotlipModel, LotlipProcessor, LotlipTextModel, LotlipTextModelWithProjection
from modeling_lotlip.encoder import loading
from modeling_lotlip.encoder.arguments import DEFAULT_MODEL, LoadingArguments
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.table.embed import note_model


@pytest.mark.parametrize("has_processor", [False, True])
def test_adapters_of_a_released_model(model_dir, tmp_path, monkeypatch, has_processor):
    """Whose base is in the original's layout, and found where every other name is."""
    base = LotlipModel.from_pretrained(model_dir)
    processor = LotlipProcessor.from_pretrained(model_dir)
    base.name_or_path = base.config.name_or_path = DEFAULT_MODEL
    tuned = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    if has_processor:
        processor.tokenizer.model_max_length = 9
        processor.save_pretrained(tmp_path / "adapter")
    find_pretrained = loading.find_pretrained
    found = lambda name, **options: model_dir if name == DEFAULT_MODEL else find_pretrained(name, **options)  # noqa: E731
    monkeypatch.setattr(loading, "find_pretrained", found)

    encoder = load_encoder(str(tmp_path / "adapter"), LoadingArguments(device="cpu"))
    model = encoder.model
    loaded = encoder.processor
    inputs = processor(text=["a red boat"], return_tensors="pt")
    with torch.no_grad():
        expected, features = (each.eval().get_text_features(**inputs).pooler_output for each in (tuned, model))
    torch.testing.assert_close(features, expected)
    assert type(model) is LotlipModel
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert (loaded.tokenizer.model_max_length == 9) is has_processor


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (LotlipTextModel, "8 tensors of the adapters are none of LotlipModel, .* or on a tower alone"),
        (LotlipTextModelWithProjection, "the adapters lack 8 tensors of LotlipModel, .*vision_model"),
    ],
)
def test_adapters_of_a_tower_alone_are_refused(model_dir, tmp_path, part, message):
    """Else the embeddings are those of the base, or of modules that were never trained."""
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(part.from_pretrained(model_dir), config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_encoder(str(tmp_path), LoadingArguments(device="cpu"))


def test_adapters_of_one_tower_with_its_names_in_the_whole_model_are_its_adapters(model_dir, tmp_path):
    config = LoraConfig(target_modules=r"text_model\..*\.(q_proj|v_proj)", init_lora_weights=False)
    tuned = get_peft_model(LotlipTextModelWithProjection.from_pretrained(model_dir), config).eval()
    tuned.save_pretrained(tmp_path)
    inputs = LotlipProcessor.from_pretrained(model_dir)(text=["a red boat"], return_tensors="pt")
    model = load_encoder(str(tmp_path), LoadingArguments(device="cpu")).model
    with torch.no_grad():
        features = model.eval().get_text_features(**inputs).pooler_output
        torch.testing.assert_close(features, tuned(**inputs).text_embeds)


def test_a_table_knows_an_adapter_from_its_base_and_another_adapter(model_dir, tmp_path):
    encoders = [load_encoder(str(model_dir), LoadingArguments(device="cpu"))]
    for seed in range(2):
        torch.manual_seed(seed)
        config = LoraConfig(target_modules="all-linear", init_lora_weights=False)
        tuned = get_peft_model(LotlipModel.from_pretrained(model_dir), config)
        tuned.save_pretrained(tmp_path / f"{seed}")
        encoders.append(load_encoder(str(tmp_path / f"{seed}"), LoadingArguments(device="cpu")))
    settings = [encoder.settings() for encoder in encoders]
    assert len({of_one["weights"] for of_one in settings}) == 3
    names = [note_model(encoder)["model_name_or_path"] for encoder in encoders]
    assert names == [str(model_dir), str(tmp_path / "0"), str(tmp_path / "1")]
    again = load_encoder(str(tmp_path / "1"), LoadingArguments(device="cpu"))
    assert again.settings() == settings[2]


def test_what_a_model_of_peft_wraps_is_a_dual_encoder_with_its_adapters(model_dir):
    processor = LotlipProcessor.from_pretrained(model_dir)
    config = LoraConfig(target_modules="all-linear", init_lora_weights=False)
    tuned = get_peft_model(LotlipModel.from_pretrained(model_dir), config).eval()
    with pytest.raises(ValueError, match=r"is a PeftModel, which wraps one: give `model.get_base_model\(\)`"):
        DualEncoder(tuned, processor)
    with torch.no_grad():
        features = tuned.get_text_features(**processor(text=["a red boat"], return_tensors="pt")).pooler_output
    embeds = DualEncoder(tuned.get_base_model(), processor).encode_text(["a red boat"])
    torch.testing.assert_close(torch.as_tensor(embeds), torch.nn.functional.normalize(features, dim=-1))


def test_a_processor_beside_adapters_that_cannot_be_read_is_an_error(model_dir, tmp_path):
    """And not the one of the base in its place, which may read texts in another way."""
    base = LotlipModel.from_pretrained(model_dir)
    tuned = get_peft_model(base, LoraConfig(target_modules="all-linear"))
    tuned.save_pretrained(tmp_path)
    LotlipProcessor.from_pretrained(model_dir).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "trunc')
    with pytest.raises(ValueError, match=f"`--model_name_or_path {tmp_path}` cannot be used"):
        load_encoder(str(tmp_path), LoadingArguments(device="cpu"))


def test_a_tokenizer_alone_beside_adapters_is_no_processor(model_dir, tmp_path):
    """As trainers of texts save it: images are read as the base reads them."""
    base = LotlipModel.from_pretrained(model_dir)
    get_peft_model(base, LoraConfig(target_modules="all-linear")).save_pretrained(tmp_path)
    processor = LotlipProcessor.from_pretrained(model_dir)
    processor.tokenizer.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), LoadingArguments(device="cpu"))
    assert encoder.processor.image_processor.to_dict() == processor.image_processor.to_dict()


def test_the_base_is_of_the_revision_that_the_adapters_name(model_dir, tmp_path, monkeypatch):
    base = LotlipModel.from_pretrained(model_dir)
    base.name_or_path = base.config.name_or_path = DEFAULT_MODEL
    get_peft_model(base, LoraConfig(target_modules="all-linear"), revision="v1").save_pretrained(tmp_path)
    find_pretrained = loading.find_pretrained

    def find(name, **options):
        if name == DEFAULT_MODEL:
            asked.append(options)
            return model_dir
        return find_pretrained(name, **options)

    asked = []
    monkeypatch.setattr(loading, "find_pretrained", find)
    load_encoder(str(tmp_path), LoadingArguments(device="cpu"))
    # for what sentence-transformers saved, the weights and the processor
    assert asked == [{"revision": "v1"}] * 3


def add_adapters(model: PreTrainedModel) -> PeftModel:
    """Adds adapters of random weights to a model."""
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(model, config).eval()


def test_adapters_of_a_model_that_was_loaded_from_adapters_keep_those(model_dir, tmp_path):
    first = str(tmp_path / "first")
    second = str(tmp_path / "second")
    add_adapters(LotlipModel.from_pretrained(model_dir)).save_pretrained(first)
    tuned = add_adapters(load_encoder(first, LoadingArguments(device="cpu")).model)
    tuned.save_pretrained(second)
    inputs = LotlipProcessor.from_pretrained(model_dir)(text=["a red boat"], return_tensors="pt")
    model = load_encoder(second, LoadingArguments(device="cpu")).model
    with torch.no_grad():
        expected = tuned.get_text_features(**inputs).pooler_output
        torch.testing.assert_close(model.get_text_features(**inputs).pooler_output, expected)


def test_adapters_that_take_the_place_of_those_they_were_trained_on_are_refused(model_dir, tmp_path):
    add_adapters(LotlipModel.from_pretrained(model_dir)).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), LoadingArguments(device="cpu"))
    add_adapters(encoder.model).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="name themselves as the model that they were trained on"):
        load_encoder(str(tmp_path), LoadingArguments(device="cpu"))


def test_adapters_of_a_folder_that_is_gone_say_so(model_dir, tmp_path):
    base = shutil.copytree(model_dir, tmp_path / "base")
    add_adapters(LotlipModel.from_pretrained(base)).save_pretrained(tmp_path / "adapters")
    base.rename(tmp_path / "renamed")  # a relative path of two parts may be a name on the Hub
    with pytest.raises(ValueError, match=f"were trained on {base}, which is not there any more: name"):
        load_encoder(str(tmp_path / "adapters"), LoadingArguments(device="cpu"))


def test_adapters_of_no_named_model_are_refused(model_dir, tmp_path):
    add_adapters(LotlipModel.from_pretrained(model_dir)).save_pretrained(tmp_path)
    config_file = tmp_path / "adapter_config.json"
    config = json.loads(config_file.read_text())
    config["base_model_name_or_path"] = None
    config_file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="the adapters of .* do not say what they were trained on"):
        load_encoder(str(tmp_path), LoadingArguments(device="cpu"))


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "100KB"}])
def test_a_whole_model_beside_adapters_is_refused(model_dir, tmp_path, options):
    """Which may be of before they were merged into it and it was trained on, or of after."""
    tuned = add_adapters(LotlipModel.from_pretrained(model_dir))
    tuned.save_pretrained(tmp_path)
    tuned.merge_and_unload().save_pretrained(tmp_path, **options)
    with pytest.raises(ValueError, match="has both adapters of PEFT .* a whole model .`model.safetensors"):
        load_encoder(str(tmp_path), LoadingArguments(device="cpu"))


def test_a_model_in_the_layout_of_the_original_beside_adapters_is_refused(model_dir, tmp_path):
    add_adapters(LotlipModel.from_pretrained(model_dir)).save_pretrained(tmp_path)
    (tmp_path / "model.pt").touch()
    with pytest.raises(ValueError, match="has both adapters of PEFT .* a whole model .`model.pt`"):
        load_encoder(str(tmp_path), LoadingArguments(device="cpu"))


def test_a_configuration_beside_adapters_is_no_whole_model(model_dir, tmp_path):
    base = LotlipModel.from_pretrained(model_dir)
    add_adapters(base).save_pretrained(tmp_path)
    base.config.save_pretrained(tmp_path)
    assert type(load_encoder(str(tmp_path), LoadingArguments(device="cpu")).model) is LotlipModel


def save_base(model_dir, folder, **options) -> SentenceTransformer:
    """Saves the model with settings of sentence-transformers in `base`."""
    library_model = SentenceTransformer(str(model_dir), device="cpu", **options)
    library_model.save_pretrained(str(folder / "base"))
    return library_model


@pytest.mark.parametrize("what", ["prompt", "module"])
def test_adapters_of_a_base_of_sentence_transformers_are_refused(model_dir, tmp_path, what):
    options = {}
    if what == "prompt":
        options = {"prompts": {"query": "a photo of "}, "default_prompt_name": "query"}
    library_model = save_base(model_dir, tmp_path, **options)
    if what == "module":
        dim = library_model.get_embedding_dimension()
        library_model.append(Dense(dim, 8, bias=False))
        library_model.save_pretrained(str(tmp_path / "base"))
    add_adapters(LotlipModel.from_pretrained(tmp_path / "base")).save_pretrained(tmp_path / "adapters")
    with pytest.raises(ValueError, match="base, which the adapters were trained on, has modules"):
        load_encoder(str(tmp_path / "adapters"), LoadingArguments(device="cpu"))
    (tmp_path / "base" / "modules.json").unlink()  # as the message says
    load_encoder(str(tmp_path / "adapters"), LoadingArguments(device="cpu"))


@pytest.mark.parametrize("dim", [None, 16])
def test_adapters_keep_as_many_dimensions_as_their_base(model_dir, tmp_path, dim):
    save_base(model_dir, tmp_path, truncate_dim=dim)
    add_adapters(LotlipModel.from_pretrained(tmp_path / "base")).save_pretrained(tmp_path / "adapters")
    encoder = load_encoder(str(tmp_path / "adapters"), LoadingArguments(device="cpu"))
    base = load_encoder(str(tmp_path / "base"), LoadingArguments(device="cpu"))
    assert encoder.truncate_dim == base.truncate_dim == dim
    assert encoder.dim == base.dim


def save_with_modules(model_dir, folder, modules, new_tokens=()):
    """Saves adapters with whole modules, of a model with new tokens, and the processor."""
    model = LotlipModel.from_pretrained(model_dir)
    processor = LotlipProcessor.from_pretrained(model_dir)
    if new_tokens:
        processor.tokenizer.add_tokens(list(new_tokens))
        model.resize_token_embeddings(len(processor.tokenizer))
    tuned = get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=modules))
    tuned.save_pretrained(folder)
    processor.save_pretrained(folder)
    return tuned, processor


@pytest.mark.parametrize(
    ("modules", "new_tokens", "message"),
    [
        (["embeddings"], (), "the adapters lack '.*word_embeddings.weight', .* single layers"),
        (None, ("zzblub",), "the tokenizer beside the adapters has 22 tokens, .* of 21. If tokens"),
        (
            ["word_embeddings"],
            ("zzblub",),
            "the adapters do not fit LotlipModel: size .* If tokens were added",
        ),
    ],
)
def test_embeddings_that_were_not_saved_as_the_base_has_them_are_an_error(
    model_dir, tmp_path, modules, new_tokens, message
):
    save_with_modules(model_dir, tmp_path, modules, new_tokens)
    with pytest.raises(ValueError, match=f"`--model_name_or_path {tmp_path}` cannot be used: {message}"):
        load_encoder(str(tmp_path), LoadingArguments(device="cpu"))


def test_new_tokens_of_a_base_that_was_saved_with_them_are_read(model_dir, tmp_path):
    """As the messages say."""
    model = LotlipModel.from_pretrained(model_dir)
    processor = LotlipProcessor.from_pretrained(model_dir)
    processor.tokenizer.add_tokens(["zzblub"])
    model.resize_token_embeddings(len(processor.tokenizer))
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    config = LoraConfig(target_modules=["q_proj"], modules_to_save=["word_embeddings"])
    tuned = get_peft_model(LotlipModel.from_pretrained(tmp_path / "base"), config)
    tuned.save_pretrained(tmp_path / "adapters")
    processor.save_pretrained(tmp_path / "adapters")
    encoder = load_encoder(str(tmp_path / "adapters"), LoadingArguments(device="cpu"))
    assert encoder.encode_text("a zzblub").shape == (encoder.dim,)


def test_errors_that_say_nothing_of_tensors_stay_as_they_are():
    error = RuntimeError("out of memory\nerrors may be reported later")
    with pytest.raises(RuntimeError, match="out of memory"), loading.naming_adapter_errors("CLIPModel"):
        raise error
