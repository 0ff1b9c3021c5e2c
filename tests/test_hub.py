"""From the converter over the Hub into the Auto classes, with the package and without it, over HTTP on loopback."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import parse_eval_result_entries
from safetensors.torch import load_file
from transformers import AutoProcessor, CLIPConfig
from transformers.dynamic_module_utils import get_imports

from modeling_lotlip import (
    LotlipModel,
    LotlipProcessor,
    LotlipSigmoidConfig,
    LotlipSigmoidModel,
    LotlipTextConfig,
    LotlipTextModel,
    LotlipTextModelWithProjection,
    LotlipTokenWiseModel,
    LotlipVisionModel,
    LotlipVisionModelWithProjection,
)
from modeling_lotlip.convert_lotlip_to_hf import convert_checkpoint
from modeling_lotlip.hub import (
    EVAL_RESULTS_FILE,
    check_results,
    delete_earlier_model,
    describe_image_size,
    describe_languages,
    find_model_files,
    find_own_code,
    find_replaced_file,
    format_metrics,
    format_settings,
    is_automatic_card,
    name_in_card,
    replace_model,
    save_processor,
    write_eval_results,
    write_for_readers,
    write_model_card,
)
from tests.conftest import as_token_wise, python_environment, tiny_config
from tests.helpers.dual_encoders import save_family
from tests.helpers.hub_server import hub_server
from tests.helpers.methods import PooledConfig, PooledModel
from tests.test_convert import make_tokenizer_folder, original_checkpoint, original_towers


REPO_ID = "org/lotlip-tiny"

ADAPTER_FILES = ["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"]

# Loads everything that the Auto classes offer, and saves embeddings for comparison.
LOAD = """
import sys

source, results, repo_id = sys.argv[1:]
if source == "package":
    import modeling_lotlip as lotlip
else:
    sys.modules["modeling_lotlip"] = None  # as if it were not installed
if source == "tree":
    import transformers as lotlip
trust = {"trust_remote_code": True} if source == "remote" else {}
module = {
    "package": "modeling_lotlip.",
    "remote": "transformers_modules.",
    "tree": "transformers.models.lotlip.",
}

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer
from transformers import AutoModelForZeroShotImageClassification, pipeline

torch.set_num_threads(1)
model = AutoModel.from_pretrained(repo_id, **trust).eval()
processor = AutoProcessor.from_pretrained(repo_id, **trust)
tokenizer = AutoTokenizer.from_pretrained(repo_id, **trust)
image_processor = AutoImageProcessor.from_pretrained(repo_id, **trust)
pil_processor = AutoImageProcessor.from_pretrained(repo_id, backend="pil", **trust)
for part, name in (
    (model, "LotlipModel"),
    (processor, "LotlipProcessor"),
    (tokenizer, "LotlipTokenizer"),
    (image_processor, "LotlipImageProcessor"),
    (pil_processor, "LotlipImageProcessorPil"),
    (processor.tokenizer, "LotlipTokenizer"),
    (processor.image_processor, "LotlipImageProcessor"),
):
    assert type(part).__name__ == name, type(part)
    assert type(part).__module__.startswith(module[source]), type(part)

image = Image.linear_gradient("L").convert("RGB").crop((0, 0, 120, 200))
texts = ["a bc. d e f", "g"]
inputs = processor(text=texts, images=image, return_tensors="pt")
assert torch.equal(inputs["input_ids"], tokenizer(texts, padding=True, return_tensors="pt")["input_ids"])
assert torch.equal(inputs["pixel_values"], image_processor(image, return_tensors="pt")["pixel_values"])
with torch.inference_mode():
    outputs = model(**inputs)
    corners = model.get_text_features(
        inputs["input_ids"], inputs["attention_mask"], output_corner_tokens=True
    ).corner_pooler_output
    classifier = AutoModelForZeroShotImageClassification.from_pretrained(repo_id, **trust)
    assert torch.equal(classifier(**inputs).logits_per_image, outputs.logits_per_image)

    # the towers alone
    config = AutoConfig.from_pretrained(repo_id, **trust)
    text_model = AutoModel.from_pretrained(repo_id, config=config.text_config, **trust)
    vision_model = AutoModel.from_pretrained(repo_id, config=config.vision_config, **trust)
    assert type(text_model).__name__ == "LotlipTextModel"
    assert type(vision_model).__name__ == "LotlipVisionModel"
    pooled = text_model(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    assert torch.equal(pooled @ model.text_projection.weight.t(), outputs.text_model_output.pooler_output)
    pooled = vision_model(inputs["pixel_values"]).pooler_output
    assert torch.equal(pooled, outputs.vision_model_output.pooler_output)
    if source == "remote":
        from transformers.dynamic_module_utils import get_class_from_dynamic_module
        towers = [
            get_class_from_dynamic_module(f"modeling_lotlip.{name}", repo_id)
            for name in ("LotlipTextModelWithProjection", "LotlipVisionModelWithProjection")
        ]
    else:
        towers = [lotlip.LotlipTextModelWithProjection, lotlip.LotlipVisionModelWithProjection]
    text_model, info = towers[0].from_pretrained(repo_id, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert not any(name.startswith(("text_model.", "text_projection.")) for name in info["unexpected_keys"]), info
    text_embeds = text_model(inputs["input_ids"], inputs["attention_mask"]).text_embeds
    assert torch.equal(text_embeds, outputs.text_model_output.pooler_output)
    image_embeds = outputs.vision_model_output.pooler_output
    vision_model, info = towers[1].from_pretrained(repo_id, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert not any(name.startswith("vision_model.") for name in info["unexpected_keys"]), info
    assert torch.equal(vision_model(inputs["pixel_values"]).image_embeds, image_embeds)

classify = pipeline("zero-shot-image-classification", model=repo_id, **trust)
answer = classify(image, candidate_labels=["a b", "c", "d"])
scores = {entry["label"]: entry["score"] for entry in answer}
save_file({
    "text_embeds": outputs.text_embeds,
    "image_embeds": outputs.image_embeds,
    "corners": corners.contiguous(),
    "pixel_values": pil_processor(image, return_tensors="pt")["pixel_values"],
    "pipeline": torch.tensor([scores[label] for label in sorted(scores)]),
}, results)
"""

# By nothing but what the library's own models have
PLAIN_PUSH = """
import sys
from modeling_lotlip import LotlipModel, LotlipProcessor
folder, *repo_ids = sys.argv[1:]
for repo_id in repo_ids:
    parts = [LotlipProcessor.from_pretrained(folder), LotlipModel.from_pretrained(folder)]
    for part in parts if repo_id == "org/processor-first" else reversed(parts):
        part.push_to_hub(repo_id)
"""
PLAIN = ("org/model-first", "org/processor-first")
# Keeps the cards that were pushed, and puts one's own in their place on the server
REPLACE_CARDS = """
import shutil, sys
from pathlib import Path
root, copies, *repo_ids = sys.argv[1:]
for repo_id in repo_ids:
    shutil.copytree(Path(root, repo_id), Path(copies, repo_id))
    Path(root, repo_id, "README.md").write_text("---\\nlicense: mit\\n---\\n\\n# Mine\\n")
"""

# Loads models and saves one of their results
LOAD_ALONE = """
import sys
from inspect import signature
if sys.argv[2] == "remote":
    sys.modules["modeling_lotlip"] = None  # as if it were not installed
else:
    import modeling_lotlip
import torch
from transformers import AutoConfig, AutoModel, AutoModelForZeroShotImageClassification
from safetensors.torch import save_file

trust = {"trust_remote_code": True} if sys.argv[2] == "remote" else {}
inputs = {"input_ids": torch.tensor([[5, 6]]), "pixel_values": torch.ones(1, 3, 32, 32)}
results = {}
for name in sys.argv[3:]:
    folder = f"{sys.argv[1]}/{name}"
    auto_classes = [AutoModel]
    if "Wise" in name or "Sigmoid" in name:
        auto_classes.append(AutoModelForZeroShotImageClassification)
    for auto_class in auto_classes:
        model = auto_class.from_pretrained(folder, **trust).eval()
        assert type(model).__name__ == name
        assert AutoConfig.from_pretrained(folder, **trust).architectures == [name]
        parameters = signature(model.forward).parameters
        given = {key: value for key, value in inputs.items() if key in parameters}
        results[name] = model(**given)[0].detach()
save_file(results, f"{sys.argv[1]}/{sys.argv[2]}")
"""

# What was loaded, saved again
SAVE_AGAIN = """
folder = f"{results}-again"
model.save_pretrained(folder)
processor.save_pretrained(folder)
text_model.save_pretrained(f"{folder}/text")
"""


def run(server, home: Path, *arguments: str | Path) -> str:
    """Runs Python in a process of its own that knows no Hub but the server; `HF_ENDPOINT` is read at import."""
    environment = python_environment(HF_ENDPOINT=server.url, HF_HOME=home, HF_TOKEN=server.token, HF_HUB_OFFLINE=0)
    command = [sys.executable, *map(str, arguments)]
    process = subprocess.run(command, env=environment, cwd=home.parent, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def run_in_turn(code: str, *arguments: str | Path) -> str:
    """Lines that run code with arguments of its own, one after the other in one process."""
    return f"sys.argv[1:] = {list(map(str, arguments))}\nexec({code!r}, {{}})\n"


def save_alone(folder: Path) -> list[str]:
    """Saves towers and variants, each in a folder with the name of its class; these names."""
    config = tiny_config(projection_dim=32)
    models = [
        LotlipTextModel(copy.deepcopy(config.text_config)),
        LotlipTextModelWithProjection(copy.deepcopy(config.text_config)),
        LotlipVisionModel(copy.deepcopy(config.vision_config)),
        LotlipVisionModelWithProjection(copy.deepcopy(config.vision_config)),
        LotlipTokenWiseModel(as_token_wise(tiny_config())),
        LotlipSigmoidModel(tiny_config(LotlipSigmoidConfig)),
    ]
    for model in models:
        model.save_pretrained(folder / type(model).__name__)
    return [type(model).__name__ for model in models]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """
    A server with a converted checkpoint, uploaded by the command and twice by plain `push_to_hub`, and then loaded;
    and what models from folders give.
    """
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    checkpoint = original_checkpoint(*original_towers(image_size=64))
    torch.save(checkpoint, folder / "model.pt")
    tokenizer_path = make_tokenizer_folder(folder / "bert")
    converted = folder / "converted"
    with hub_server(folder / "repositories") as server:
        convert_checkpoint(folder / "model.pt", converted, tokenizer_path=str(tokenizer_path))
        write_model_card(converted, REPO_ID)
        server.converted = converted
        server.loaded = tmp_path_factory.mktemp("loaded")
        server.first_pushed = tmp_path_factory.mktemp("first_pushed")
        server.alone = tmp_path_factory.mktemp("alone")
        server.names_alone = save_alone(server.alone)
        code = "import sys, lotlip\n"
        code += f"assert lotlip.main(['push', {str(converted)!r}, {REPO_ID!r}]) == 0\n"
        code += run_in_turn(PLAIN_PUSH, converted, *PLAIN)
        code += run_in_turn(REPLACE_CARDS, server.root, server.first_pushed, *PLAIN)
        code += run_in_turn(PLAIN_PUSH, converted, *PLAIN)
        code += run_in_turn(LOAD, "package", server.loaded / "package", REPO_ID)
        code += run_in_turn(LOAD_ALONE, server.alone, "package", *server.names_alone)
        server.output = run(server, folder / "home-push", "-c", code)
        yield server
    assert server.unknown_routes == []


@pytest.fixture(scope="module")
def loaded(hub):
    """
    Embeddings from a process with the package, and from one without it: of what the command uploaded, of what plain
    `push_to_hub` did, and of what the former saved. Both also load models from folders.
    """
    folder = hub.loaded
    hub.saved_again = folder / "remote-again"
    code = "import sys\n"
    code += run_in_turn(LOAD + SAVE_AGAIN, "remote", folder / "remote", REPO_ID)
    code += run_in_turn(LOAD, "remote", folder / "plain", PLAIN[0])
    code += run_in_turn(LOAD, "remote", folder / "again", hub.saved_again)
    code += run_in_turn(LOAD_ALONE, hub.alone, "remote", *hub.names_alone)
    run(hub, folder / "home-remote", "-c", code)
    return {name: load_file(folder / name) for name in ("package", "remote", "plain", "again")}


def test_push_uploads_every_file_of_the_model_and_prints_the_address(hub):
    assert f"{hub.url}/{REPO_ID}" in hub.output
    pushed = {file.name: file.read_bytes() for file in (hub.root / REPO_ID).iterdir()}
    assert pushed == {file.name: file.read_bytes() for file in hub.converted.iterdir()}
    assert hub.model_cards
    assert f'from_pretrained("{REPO_ID}")' in hub.model_cards[0]


def test_the_card_says_what_is_so(hub, tmp_path):
    shutil.copytree(hub.converted, tmp_path / "model")

    def card(**fields) -> str:
        write_model_card(tmp_path / "model", "me/model", provenance="Mine.", **fields)
        return (tmp_path / "model" / "README.md").read_text()

    plain = card()
    assert "language:" not in plain
    assert "English" not in plain
    assert "SentenceTransformer(" in plain
    assert "It reads texts in the languages of its captions, " in plain
    mine = card(language=["de", "fr"], biases="It has seen nothing but drawings.")
    assert "- de\n- fr" in mine
    assert "(de, fr)" in mine
    assert "stereotypes" not in mine
    for wrong, message in (
        ({"results": {"a": "b"}, "dataset": "photos"}, "has 'b' as 'a'"),
        ({"results": {"a": True}, "dataset": "photos"}, "has True as 'a'"),
        ({"results": {"a": 1.0}}, "without `dataset`"),
    ):
        with pytest.raises(ValueError, match=message):
            card(**wrong)

    settings = card(settings={"data_files": ["a|b.jsonl"], "max_length": None})
    assert r"| `data_files` | ['a\|b.jsonl'] |" in settings.splitlines()
    assert "## Settings of the training" not in mine

    results = {"zero_shot_top1": 50, "long_t2i_recall@1": 25.0, "num_images": 8}
    measured = card(results=results, dataset="photos", dataset_split="validation")
    assert "On the split `validation` of photos" in measured
    assert "model-index" not in measured, "photos are not on the Hub"
    assert not (tmp_path / "model" / EVAL_RESULTS_FILE).exists()

    LotlipTokenWiseModel(as_token_wise(tiny_config())).save_pretrained(tmp_path / "tokens")
    card_of_tokens = (tmp_path / "tokens" / "README.md").read_text()
    assert "SentenceTransformer(" not in card_of_tokens
    assert "has no single embedding" in card_of_tokens
    assert not (tmp_path / "tokens" / "modules.json").exists()


def test_the_code_of_a_card_names_the_repository_that_it_is_uploaded_to(hub, tmp_path):
    folder = shutil.copytree(hub.converted, tmp_path / "my photos")
    write_model_card(folder, "my photos")
    card = name_in_card((folder / "README.md").read_text(encoding="utf-8"), "me/photos")
    assert '"my photos"' not in card
    assert card.count('"me/photos"') == 7
    assert name_in_card(card, "me/others") == card, "it is not of a folder any more"


def test_other_names_in_the_code_of_a_card_stay():
    card = '# boats\n\n`Bert.from_pretrained("bert")`, `load_dataset("boats")`, `AutoModel.from_pretrained("{}")`\n'
    assert name_in_card(card.format("boats"), "me/photos") == card.format("me/photos")
    assert name_in_card("no title", "me/photos") == "no title"


def test_an_automatic_card_stays_one_with_the_name_of_a_repository(hub, tmp_path):
    folder = shutil.copytree(hub.converted, tmp_path / "model")
    (folder / "README.md").unlink()
    write_for_readers(folder, "outputs")
    card = name_in_card((folder / "README.md").read_text(encoding="utf-8"), "me/photos")
    assert 'from_pretrained("me/photos")' in card
    (folder / "README.md").write_text(card, encoding="utf-8")
    assert is_automatic_card(folder / "README.md")


def test_results_on_a_dataset_of_the_hub_are_written_as_the_hub_reads_them(hub, tmp_path):
    folder = shutil.copytree(hub.converted, tmp_path / "model")
    results = {"zero_shot_top1": 50, "long_t2i_recall@1": 25.0, "num_images": 8}

    write_model_card(folder, "me/model", results=results, dataset="org/photos", dataset_split="validation")

    written = yaml.safe_load((folder / EVAL_RESULTS_FILE).read_text())
    entries = parse_eval_result_entries(written)
    assert {entry.task_id: entry.value for entry in entries} == {"zero_shot_top1": 50, "long_t2i_recall@1": 25.0}
    assert {entry.dataset_id for entry in entries} == {"org/photos"}
    assert "split validation" in entries[0].notes
    assert EVAL_RESULTS_FILE in find_model_files(folder)
    write_model_card(folder, "me/model", results=results, dataset="photos")
    assert EVAL_RESULTS_FILE not in find_model_files(folder), "those of another dataset"
    write_model_card(folder, "me/model", results=results, dataset="org/photos")
    write_model_card(folder, "me/model")
    assert EVAL_RESULTS_FILE not in find_model_files(folder), "those of the weights before"


@pytest.mark.parametrize(("max_length", "is_said"), [(64, False), (126, True)])
def test_the_card_of_a_siglip_of_another_length_says_what_the_pipeline_does(
    family_folders, tmp_path, max_length, is_said
):
    """Which pads to 64 tokens, whatever it is told."""
    folder = shutil.copytree(family_folders("siglip"), tmp_path / "siglip")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": max_length}))
    write_model_card(folder, "me/model")
    assert ("Not for the zero-shot pipeline" in (folder / "README.md").read_text()) == is_said


def test_sentence_transformers_are_not_for_a_class_that_embeds_otherwise(tmp_path):
    """It would pass by `embed_captions`."""
    for name, model in (("own", PooledModel(tiny_config(PooledConfig))), ("plain", LotlipModel(tiny_config()))):
        model.save_pretrained(tmp_path / name)
        card = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        assert ("sentence-transformers" in card) == (name == "plain")
        assert (tmp_path / name / "modules.json").exists() == (name == "plain")


def test_the_card_of_a_model_of_a_plugin_says_that_its_code_needs_the_package(tmp_path):
    PooledModel(tiny_config(PooledConfig)).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "installed, which the code of this model, `methods.py`, imports:" in card
    assert f'AutoModel.from_pretrained("{tmp_path.name}", trust_remote_code=True)' in card
    assert "Without it" not in card
    assert "- Text tower: a BERT with 2 corner tokens" in card


@pytest.mark.parametrize(
    ("auto_map", "expected"),
    [
        ({}, None),
        ({"AutoModel": "modeling_lotlip.LotlipModel"}, None),
        ({"AutoModel": "someone/model--modeling_other.OtherModel"}, "modeling_other.py"),
    ],
)
def test_the_code_of_others_is_found_in_the_configuration(auto_map, expected):
    assert find_own_code({"auto_map": auto_map}) == expected


def test_the_card_of_a_sigmoid_model_says_where_the_pipeline_truncates_labels(tmp_path):
    LotlipSigmoidModel(tiny_config(LotlipSigmoidConfig)).save_pretrained(tmp_path)
    card = " ".join((tmp_path / "README.md").read_text().split())
    assert "The pipeline truncates labels at 64 tokens: `DualEncoder.classify` of" in card


def test_plain_push_has_a_card_that_says_something(hub):
    names = {file.name for file in hub.converted.iterdir()}
    for repo_id in PLAIN:
        repo = hub.first_pushed / repo_id
        card = (repo / "README.md").read_text()
        assert f'from_pretrained("{repo_id}")' in card
        assert "2 corner tokens" in card
        assert "automatically generated" not in card
        assert "More Information Needed" not in card
        assert {file.name for file in repo.iterdir()} == names


@pytest.mark.parametrize("repo_id", PLAIN)
def test_a_card_of_ones_own_stays_at_a_plain_push(hub, repo_id):
    card = (hub.root / repo_id / "README.md").read_text()
    assert "# Mine" in card


def test_the_files_of_others_stay_and_are_not_uploaded(tmp_path):
    kept = ["my_secret_config.json", "optimizer.safetensors", "notes.md"]
    shard = "model-00001-of-00002.safetensors"  # of an earlier model, which saving deletes
    for name in (*kept, shard, "README.md"):
        (tmp_path / name).write_text("mine")
    LotlipModel(tiny_config()).save_pretrained(tmp_path)
    for name in (*kept, "README.md"):
        assert (tmp_path / name).read_text() == "mine", name
    files = set(find_model_files(tmp_path))
    assert {"hub_lotlip.py", "README.md", "modules.json", "model.safetensors"} <= files
    assert not files & {*kept, shard}
    # in shards: those that the index names
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / shard).touch()
    (tmp_path / "model-00009-of-00009.safetensors").touch()
    index = {"weight_map": {"logit_scale": shard}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    expected = files - {"model.safetensors"} | {shard, "model.safetensors.index.json"}
    assert set(find_model_files(tmp_path)) == expected
    LotlipModel(tiny_config()).save_pretrained(tmp_path / "worker", is_main_process=False)
    assert not any((tmp_path / "worker").iterdir())


def test_an_automatic_card_is_that_of_the_model_that_was_saved_last(tmp_path):
    LotlipModel(tiny_config()).save_pretrained(tmp_path)
    first = (tmp_path / "README.md").read_text()
    config = tiny_config(LotlipSigmoidConfig)
    config.text_config.num_corner_tokens = 0
    LotlipSigmoidModel(config).save_pretrained(tmp_path)
    second = (tmp_path / "README.md").read_text()
    assert "2 corner tokens" in first
    assert "0 corner tokens" in second
    assert "sigmoid loss" in second
    (tmp_path / "README.md").write_text(second.replace("Intended use", "My use"))
    LotlipModel(tiny_config()).save_pretrained(tmp_path)
    changed = (tmp_path / "README.md").read_text()
    assert "My use" in changed
    assert "0 corner tokens" in changed


def test_what_sentence_transformers_reads_does_not_stay_beside_a_model_of_all_tokens(tmp_path):
    LotlipModel(tiny_config()).save_pretrained(tmp_path)
    assert (tmp_path / "modules.json").exists()
    LotlipTokenWiseModel(as_token_wise(tiny_config())).save_pretrained(tmp_path)
    assert not (tmp_path / "modules.json").exists()
    assert not (tmp_path / "sentence_bert_config.json").exists()


def test_others_may_read_the_weights_as_the_configuration(tmp_path):
    LotlipModel(tiny_config()).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode


def test_a_tower_alone_is_itself_with_and_without_the_package(hub, loaded):
    with_package = load_file(hub.alone / "package")
    without_package = load_file(hub.alone / "remote")
    assert set(with_package) == set(hub.names_alone)
    for name in hub.names_alone:
        assert torch.equal(with_package[name], without_package[name]), name


def test_package_and_remote_code_agree(loaded):
    for name, tensor in loaded["package"].items():
        assert tensor.isfinite().all()
        assert tensor.std() > 0
        for source in ("remote", "plain", "again"):
            assert loaded[source].keys() == loaded["package"].keys()
            assert torch.equal(tensor, loaded[source][name]), (source, name)


def auto_maps(folder: Path) -> list[dict]:
    """All of a folder, those of the parts too."""
    found = []
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        parts = [content, *(part for part in content.values() if isinstance(part, dict))]
        found += [part["auto_map"] for part in parts if "auto_map" in part]
    return found


def test_what_was_loaded_without_the_package_is_saved_as_with_it(hub, loaded):
    written = {file.name: file.read_bytes() for file in hub.saved_again.iterdir() if file.is_file()}
    expected = {file.name: file.read_bytes() for file in hub.converted.iterdir()}
    # written by the package: the card, and what sentence-transformers reads
    assert expected.keys() - written.keys() == {"README.md", "modules.json", "sentence_bert_config.json"}
    assert written.keys() <= expected.keys()
    assert all(written[name] == expected[name] for name in written if not name.endswith("config.json"))
    assert auto_maps(hub.saved_again) == auto_maps(hub.converted)
    config = json.loads((hub.saved_again / "text" / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_lotlip.LotlipTextModelWithProjection"
    assert (hub.saved_again / "text" / "modeling_lotlip.py").exists()


def test_the_code_of_another_repository_is_not_named(hub, tmp_path):
    """As some versions of transformers write it when a model is loaded from the Hub."""
    model = LotlipModel.from_pretrained(hub.converted)
    processor = LotlipProcessor.from_pretrained(hub.converted)
    classes = {
        "AutoConfig": "configuration_lotlip.LotlipConfig",
        "AutoModel": "modeling_lotlip.LotlipModel",
        "AutoModelForZeroShotImageClassification": "modeling_lotlip.LotlipModel",
    }
    model.config.auto_map = {name: f"org/other--{code}" for name, code in classes.items()}
    processor.image_processor.auto_map = {"AutoImageProcessor": "org/other--image_processing_lotlip.X"}
    processor.tokenizer.init_kwargs["auto_map"] = {"AutoTokenizer": ["org/other--tokenization_lotlip.X", None]}
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert auto_maps(tmp_path) == auto_maps(hub.converted)


def test_remote_code_needs_no_more_than_transformers_and_ftfy(hub):
    # transformers refuses remote code whose imports, lazy ones too, are not installed
    imported = set()
    for file in hub.converted.glob("*.py"):
        imported.update(get_imports(file))
    assert imported - sys.stdlib_module_names <= {
        "PIL",
        "ftfy",
        "huggingface_hub",
        "numpy",
        "tokenizers",
        "torch",
        "transformers",
    }


@pytest.mark.parametrize("last", [{"truncation": True}, {"padding": "max_length"}])
def test_a_processor_that_was_saved_truncates_at_the_limit_whatever_its_tokenizer_did_last(tmp_path, last):
    save_family("clip", tmp_path / "clip")
    processor = AutoProcessor.from_pretrained(tmp_path / "clip")
    limit = processor.tokenizer.model_max_length
    processor.tokenizer("a boat", max_length=limit - 1, **last)
    save_processor(processor, tmp_path / "saved")
    loaded = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert len(loaded(text="boat " * limit, truncation=True)["input_ids"]) == limit


def test_a_tokenizer_that_cannot_be_written_is_an_error_of_the_system(model_dir, tmp_path):
    """The library raises a bare `Exception`, also on a full disk."""
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(OSError, match="the tokenizer cannot be written: Is a directory"):
        save_processor(LotlipProcessor.from_pretrained(model_dir), tmp_path)


@pytest.mark.parametrize(
    ("vision_config", "expected"),
    [({"image_size": 224}, "224 x 224"), ({"image_size": [20, 30]}, "20 x 30"), ({}, "0 x 0")],
)
def test_a_card_says_the_size_of_images(vision_config, expected):
    assert describe_image_size(vision_config) == expected


@pytest.mark.parametrize(("language", "expected"), [(None, ""), ("en", "en"), (["de", "en"], "de, en")])
def test_a_card_says_the_languages(language, expected):
    assert describe_languages(language) == expected


def test_tables_of_a_card_are_empty_where_there_is_nothing():
    assert format_settings({}) == format_metrics({}) == ""
    assert format_settings({"seed": 0}).splitlines()[2:] == ["| `seed` | 0 |"]
    assert format_metrics({"recall": 12.3456}).splitlines()[2:] == ["| `recall` | 12.35 |"]


@pytest.mark.parametrize(
    ("results", "dataset", "message"),
    [
        ({"recall": 1.0}, None, "`results` without `dataset`"),
        ({"recall": True}, "a", "`results` has True as 'recall': give the metrics only"),
        ({"recall": "1"}, "a", "`results` has '1' as 'recall'"),
    ],
)
def test_results_are_numbers_of_a_dataset(results, dataset, message):
    check_results({"recall": 1, "rank": 2.5}, "a")
    check_results(None, None)
    with pytest.raises(ValueError, match=message):
        check_results(results, dataset)


@pytest.mark.parametrize("dataset", ["drawn scenes", "photos", "a/b/c", "/home/photos"])
def test_results_on_a_dataset_of_this_machine_are_not_for_the_hub(tmp_path, dataset):
    write_eval_results(tmp_path, {"recall": 1.0}, "org/photos", "test")
    assert (tmp_path / EVAL_RESULTS_FILE).exists()
    write_eval_results(tmp_path, {"recall": 1.0}, dataset, "test")
    assert not (tmp_path / EVAL_RESULTS_FILE).exists()


@pytest.mark.parametrize("is_split", [True, False])
def test_the_files_of_a_model_are_its_weights_whole_or_in_parts(tmp_path, is_split):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    names = [
        "config.json",
        "vocab.txt",
        "modeling_lotlip.py",
        "notes.md",
        "model-1.safetensors",
        "model-2.safetensors",
    ]
    for name in names:
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "modeling_lotlip.LotlipModel"}}')
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    expected = ["config.json", "modeling_lotlip.py", "vocab.txt"]
    if is_split:
        expected += ["model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]
    else:
        (tmp_path / "model.safetensors").write_text("{}")
        expected += ["model.safetensors"]
    assert find_model_files(tmp_path) == sorted(expected)
    with pytest.raises(ValueError, match="has no `config.json`: name a folder that a model was saved in"):
        find_model_files(tmp_path / "nowhere")


def write_files(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def list_files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_the_model_that_was_saved_last_is_loaded_whether_whole_or_in_parts(hub, tmp_path):
    model = LotlipModel.from_pretrained(hub.converted)
    for number, max_shard_size in enumerate(["1GB", "10KB", "1GB", "20KB", "1GB", "1GB"]):
        model.logit_scale.data.fill_(number)
        model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
        assert (tmp_path / "model.safetensors").exists() == (max_shard_size == "1GB")
        assert LotlipModel.from_pretrained(tmp_path).logit_scale.item() == number


def test_files_of_an_earlier_model_go_and_those_of_others_stay(tmp_path):
    new = tmp_path / "new"
    folder = tmp_path / "model"
    others = ["notes.md", "my_code.py", "2_Other/notes.md", "1_Dense.md", "adapter/adapter_config.json"]
    earlier = ["config.json", "vocab.txt", EVAL_RESULTS_FILE, *ADAPTER_FILES]
    earlier += ["modeling_lotlip.py", "model-00001-of-00001.safetensors", "sentence_bert_config.json"]
    earlier += ["config_sentence_transformers.json", "1_Dense/config.json", "1_Dense/model.safetensors"]
    write_files(folder, others + earlier)
    (folder / "modules.json").write_text('[{"path": ""}, {"path": "1_Dense"}, {"path": "../new"}]')
    new.mkdir()
    (new / "config.json").write_text('{"new": true}')
    replace_model(new, folder, last="config.json")
    assert list_files(folder) == sorted(["config.json", *others])
    assert (folder / "config.json").read_text() == '{"new": true}'


def test_files_that_a_linked_module_of_an_earlier_model_leads_to_stay(tmp_path):
    new = tmp_path / "new"
    folder = tmp_path / "model"
    other = tmp_path / "other"
    write_files(other, ["1_Dense/config.json", "1_Dense/notes.md"])
    write_files(folder, ["config.json"])
    write_files(new, ["config.json", "1_Dense/config.json"])
    (new / "1_Dense" / "config.json").write_text('{"new": true}')
    (folder / "modules.json").write_text('[{"path": "1_Dense"}]')
    (folder / "1_Dense").symlink_to(other / "1_Dense")
    replace_model(new, folder, last="config.json")
    assert list_files(other) == ["1_Dense/config.json", "1_Dense/notes.md"]
    assert (other / "1_Dense" / "config.json").read_text() == "{}"
    assert list_files(folder) == ["1_Dense/config.json", "config.json"]
    assert (folder / "1_Dense" / "config.json").read_text() == '{"new": true}'


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"name": "0"}]', '[{"path": 1}]'])
def test_a_list_of_modules_that_cannot_be_read_is_deleted(tmp_path, content):
    write_files(tmp_path, ["1_Dense/config.json"])
    (tmp_path / "modules.json").write_text(content)
    delete_earlier_model(tmp_path)
    assert list_files(tmp_path) == ["1_Dense/config.json"]


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_adapters_are_replaced_where_a_model_is_saved(tmp_path, name):
    assert find_replaced_file(tmp_path) is None
    write_files(tmp_path, [name])
    assert find_replaced_file(tmp_path) == name


def test_weights_beside_adapters_are_not_pushed(tmp_path):
    write_files(tmp_path, ["config.json", "model.safetensors", "adapter_config.json"])
    with pytest.raises(ValueError, match="has `adapter_config.json`: it is loaded as adapters of PEFT"):
        find_model_files(tmp_path)


def test_what_sentence_transformers_reads_of_a_model_is_pushed(tmp_path):
    names = ["1_Dense/config.json", "1_Dense/model.safetensors", "config.json"]
    names += ["config_sentence_transformers.json", "modules.json"]
    write_files(tmp_path, names)
    (tmp_path / "modules.json").write_text('[{"path": ""}, {"path": "1_Dense"}]')
    assert find_model_files(tmp_path) == names


def test_what_a_lotlip_was_read_by_is_not_pushed_with_another_model(tmp_path):
    LotlipModel(tiny_config()).save_pretrained(tmp_path)
    assert {"modules.json", "modeling_lotlip.py"} < set(find_model_files(tmp_path))
    CLIPConfig().save_pretrained(tmp_path)
    assert find_model_files(tmp_path) == ["README.md", "config.json", "model.safetensors"]


def test_graphs_alone_are_not_uploaded_as_a_model(tmp_path):
    LotlipTextConfig().save_pretrained(tmp_path)
    assert "config.json" in find_model_files(tmp_path)
    (tmp_path / "onnx").mkdir()
    with pytest.raises(ValueError, match="has graphs that `lotlip export` wrote, and no weights"):
        find_model_files(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert "model.safetensors" in find_model_files(tmp_path)
