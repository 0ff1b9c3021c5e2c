"""The fastest way to compute a model: what is measured, what is chosen, and that it is kept."""

import itertools
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import numpy as np
import pytest
import torch

from modeling_lotlip import DualEncoder
from modeling_lotlip.encoder import fastest
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.backends import Backend, openvino
from modeling_lotlip.encoder.fastest import (
    Computation,
    Measured,
    choose,
    choose_clock,
    choose_half_precision,
    describe_auto,
    explain_choice,
    hint_at_auto,
    list_computations,
    measure_computation,
)
from tests.conftest import WORDS


EXACT = Computation("torch", "float32")
BFLOAT16 = Computation("openvino", "bfloat16")
INT8 = Computation("openvino", "int8")


@pytest.fixture(autouse=True)
def cache(tmp_path, tmp_path_factory, monkeypatch):
    """The folder of what a test chooses; each tower is converted once for all tests."""
    monkeypatch.setattr(fastest, "HF_ASSETS_CACHE", tmp_path)
    monkeypatch.setattr(openvino, "HF_ASSETS_CACHE", tmp_path_factory.getbasetemp() / "openvino")
    return tmp_path / "lotlip" / "fastest"


@pytest.mark.parametrize(
    ("bfloat16", "int8", "expected"),
    [
        ((0.5, 0.9999), (0.3, 0.999), INT8),
        ((0.5, 0.9999), (0.3, 0.997), BFLOAT16),
        ((1.2, 0.9999), (1.5, 0.999), EXACT),
        ((1.2, 0.9999), (0.3, 0.997), EXACT),
        # generated inputs are easier than photographs: 0.998 of them is not enough
        ((0.5, 0.9999), (0.3, 0.9984), BFLOAT16),
        ((0.32, 0.9999), (0.3, 0.999), BFLOAT16),
        ((0.95, 0.9999), (0.94, 0.999), EXACT),
    ],
)
def test_the_fastest_close_one_is_chosen_unless_a_more_exact_one_is_as_fast(bfloat16, int8, expected):
    measured = [Measured(EXACT, 1.0, 1.0), Measured(BFLOAT16, *bfloat16), Measured(INT8, *int8)]
    assert choose(measured).computation == expected


def test_one_that_cannot_be_computed_is_passed_over():
    problem = Measured(INT8, problem="OpenVINO cannot compute it.")
    assert choose([Measured(EXACT, 1.0, 1.0), problem]).computation == EXACT
    with pytest.raises(ValueError, match="OpenVINO cannot compute it"):
        choose([problem])


def test_where_none_is_close_the_closest_is_chosen():
    measured = [Measured(BFLOAT16, 1.0, 0.99), Measured(INT8, 0.5, 0.98)]
    assert choose(measured).computation == BFLOAT16


def test_a_faster_one_that_is_not_close_is_said():
    measured = [
        Measured(EXACT, 1.0, 1.0),
        Measured(BFLOAT16, 0.5, 0.9999),
        Measured(INT8, 0.25, 0.99),
    ]
    lines = explain_choice(measured, choose(measured))
    assert lines == [
        "Not computed in int8 by OpenVINO, which is faster: an embedding has a cosine of 0.9900 to float32, less than "
        "0.999.",
        "This machine computes the model fastest in bfloat16 by OpenVINO: 2.0 times as fast as in float32 by PyTorch, "
        "with cosines of at least 0.9999 to float32.",
    ]


@pytest.mark.parametrize(
    ("missing", "asked", "expected"),
    [
        ((), Computation("auto", "auto"), {"float32", "bfloat16", "int8"}),
        (("nncf",), Computation("auto", "auto"), {"float32", "bfloat16"}),
        ((), Computation("torch", "auto"), {"float32", "bfloat16"}),
        ((), Computation("auto", "bfloat16"), {"bfloat16"}),
    ],
)
def test_what_is_asked_for_and_installed_is_compared(missing, asked, expected, monkeypatch):
    monkeypatch.setattr(fastest, "find_spec", lambda name: None if name in missing else name)
    computations = list_computations(asked)
    assert {computation.dtype for computation in computations} == expected
    assert computations[0].dtype in ("float32", *expected)


def test_without_openvino_pytorch_computes(monkeypatch):
    monkeypatch.setattr(fastest, "find_spec", lambda name: None)
    computations = list_computations(Computation("auto", "auto"))
    assert computations == [EXACT, fastest.LAST_RESORT]


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_computes_in_its_half_precision(has_bfloat16, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    device = torch.device("cuda:0")
    assert choose_half_precision(Computation("auto", "auto"), device) == Computation("torch", dtype)
    assert choose_half_precision(Computation("torch", "auto"), device) == Computation("torch", dtype)
    assert choose_half_precision(Computation("auto", "float32"), device) == Computation("torch", "float32")


def test_where_other_programs_want_all_cores_the_processor_tells_the_time(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.0, 9.0, 9.0))
    assert choose_clock() is time.perf_counter
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 1.0, 1.0))
    assert choose_clock() is time.process_time


def load(folder, **arguments):
    return DualEncoder.from_pretrained(folder, device="cpu", **arguments)


def test_what_is_chosen_is_measured_once_and_is_what_a_table_keeps(model_dir, cache, monkeypatch, caplog):
    encoder = load(model_dir, backend="auto", dtype="auto")
    (file,) = cache.glob("*.json")
    results = json.loads(file.read_text())
    assert {"dtype": encoder.settings()["dtype"], "backend": encoder.settings()["backend"]} == results["chosen"]
    assert [one["computation"]["dtype"] for one in results["measured"]] == ["float32", "float32", "bfloat16", "int8"]
    assert "This machine computes the model fastest in" in caplog.text

    monkeypatch.delattr(fastest, "measure_all")
    again = load(model_dir, backend="auto", dtype="auto")
    assert again.settings() == encoder.settings()
    named = load(model_dir, **results["chosen"])
    assert named.settings() == encoder.settings()
    cosines = (encoder.encode_text(WORDS) * load(model_dir).encode_text(WORDS)).sum(axis=-1)
    assert cosines.min() >= 0.995


def make_fastest(monkeypatch, chosen: Computation) -> None:
    """Lets a way take a tenth of the time of all others, and nothing is measured."""

    def measure_all(model, family, inputs, computations, towers):
        return [Measured(computation, 0.1 if computation == chosen else 1.0, 1.0) for computation in computations]

    monkeypatch.setattr(fastest, "measure_all", measure_all)


@pytest.mark.parametrize("chosen", fastest.ON_A_CPU, ids=str)
def test_each_way_can_be_chosen(chosen, model_dir, cache, monkeypatch):
    """And an encoder of each can be pickled and used by threads."""

    make_fastest(monkeypatch, chosen)
    encoder = load(model_dir, backend="auto", dtype="auto")
    assert encoder.dtype == chosen.dtype
    assert encoder.backend.name == chosen.backend
    assert encoder.settings() == load(model_dir, backend=chosen.backend, dtype=chosen.dtype).settings()
    expected = encoder.encode_text(WORDS)
    copied = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_allclose(copied.encode_text(WORDS), expected, rtol=0, atol=1e-6)
    with ThreadPoolExecutor(4) as executor:
        for embeds in executor.map(encoder.encode_text, [WORDS] * 4):
            np.testing.assert_allclose(embeds, expected, rtol=0, atol=1e-6)


def test_towers_of_the_chosen_way_alone_are_kept(model_dir, cache, tmp_path, monkeypatch):
    """Once they are measured they are not converted again."""
    monkeypatch.setattr(openvino, "HF_ASSETS_CACHE", tmp_path)
    monkeypatch.setattr(fastest, "choose", lambda measured: next(one for one in measured if one.computation == INT8))
    encoder = load(model_dir, backend="auto", dtype="auto")
    monkeypatch.delattr(openvino.OpenvinoBackend, "convert")
    encoder.encode_text(WORDS)
    towers = list(tmp_path.glob("lotlip/openvino/*/*/tower.xml"))
    assert [tower.parents[1].name for tower in towers] == ["int8", "int8"]
    assert list(cache.glob("*.towers")) == []


def test_a_model_that_openvino_cannot_compute_is_computed_by_pytorch(family_folders, cache, caplog):
    encoder = load(family_folders("align"), backend="auto", dtype="float32")
    assert encoder.backend.name == "torch"
    assert "Not computed in float32 by OpenVINO" in caplog.text


def test_a_backend_or_a_precision_alone_is_chosen(model_dir, cache, monkeypatch):
    make_fastest(monkeypatch, INT8)
    assert load(model_dir, backend="openvino", dtype="auto").backend.name == "openvino"
    assert load(model_dir, backend="auto", dtype="bfloat16").dtype == "bfloat16"
    assert load(model_dir, backend="torch", dtype="auto").backend.name == "torch"
    assert load(model_dir, backend="auto", dtype="int8").backend.name == "openvino"


@pytest.mark.parametrize(
    ("dtype", "backend", "expected"),
    [
        ("auto", None, "auto"),
        ("auto", "torch", "torch"),
        ("int8", None, "openvino"),
        ("int8", "auto", "openvino"),
        ("float16", "auto", "torch"),
        ("float32", None, None),
    ],
)
def test_the_backend_of_a_precision(dtype, backend, expected):
    assert InferenceArguments(dtype=dtype, backend=backend).backend == expected


def find_without_openvino(name: str) -> str | None:
    """Finds any package but OpenVINO."""
    return None if name == "openvino" else name


def change_version(changed: str):
    """Makes a function that knows another version of one package."""

    def find_version(name: str) -> str:
        return "99" if name == changed else version(name)

    return find_version


@pytest.mark.parametrize(
    ("module", "name", "changed"),
    [
        (torch, "get_num_threads", lambda: 77),
        (fastest, "describe_processor", lambda: "another processor"),
        (fastest, "find_spec", find_without_openvino),
        (fastest, "version", change_version("openvino")),
        (fastest, "version", change_version("nncf")),
        (fastest, "version", change_version("transformers")),
        (fastest, "version", change_version("torch")),
        (fastest, "__version__", "99"),
        (fastest, "hash_model", lambda model: "other weights"),
    ],
    ids=[
        "threads",
        "processor",
        "without openvino",
        "openvino",
        "nncf",
        "transformers",
        "torch",
        "lotlip",
        "weights",
    ],
)
def test_when_what_a_choice_depends_on_has_changed_it_is_measured_anew(
    module, name, changed, model_dir, cache, monkeypatch
):
    make_fastest(monkeypatch, BFLOAT16)
    load(model_dir, backend="auto", dtype="auto")
    monkeypatch.setattr(module, name, changed)
    make_fastest(monkeypatch, EXACT)
    assert load(model_dir, backend="auto", dtype="auto").computation == EXACT
    assert len(list(cache.glob("*.json"))) == 2


def test_other_weights_of_a_model_are_measured_anew(model_dir, cache, tmp_path, monkeypatch):
    make_fastest(monkeypatch, BFLOAT16)
    encoder = load(model_dir, backend="auto", dtype="auto")
    encoder.model.logit_scale.data += 1
    encoder.model.save_pretrained(tmp_path / "trained")
    encoder.processor.save_pretrained(tmp_path / "trained")
    make_fastest(monkeypatch, EXACT)
    assert load(tmp_path / "trained", backend="auto", dtype="auto").computation == EXACT


class Rounding(Backend):
    """Rounds the first two dimensions of its embeddings away, which the others hide."""

    def __init__(self, first):
        self.embeds = torch.tensor([[first, 0.1 - first, 3.0, 4.0]])

    def embed_texts(self, inputs, is_long=False):
        return self.embeds

    embed_images = embed_texts


@pytest.mark.parametrize(("truncate_dim", "is_close"), [(None, True), (2, False)])
def test_cosines_are_those_of_the_dimensions_that_are_kept(truncate_dim, is_close):
    sample = fastest.TimingSample({}, {}, truncate_dim)
    exact = fastest.embed_sample(Rounding(0.1), sample)
    clock = itertools.count().__next__  # a second goes by at each look
    measured = measure_computation(INT8, lambda computation: Rounding(0.0), sample, exact, clock)
    assert (measured.cosine > fastest.MIN_MEASURED_COSINE) == is_close


def test_a_choice_for_truncated_embeddings_is_another_one(model_dir, cache, monkeypatch):
    make_fastest(monkeypatch, INT8)
    load(model_dir, backend="auto", dtype="auto")
    make_fastest(monkeypatch, EXACT)
    assert load(model_dir, backend="auto", dtype="auto", truncate_dim=4).computation == EXACT
    assert load(model_dir, backend="auto", dtype="auto").computation == INT8


def test_two_runs_that_agree_are_enough(monkeypatch):
    seconds = iter([0.0, 1.0, 0.0, 1.04])
    monkeypatch.setattr(fastest, "embed_sample", lambda backend, sample: torch.ones(1, 1))
    measured = measure_computation(EXACT, lambda computation: Backend, None, torch.ones(1, 1), lambda: next(seconds))
    assert measured == Measured(EXACT, 1.0, 1.0)


def test_of_runs_that_differ_the_shortest_counts(monkeypatch):
    seconds = iter([0.0, 2.0, 0.0, 1.0, 0.0, 1.5])
    monkeypatch.setattr(fastest, "embed_sample", lambda backend, sample: torch.ones(1, 1))
    measured = measure_computation(EXACT, lambda computation: Backend, None, torch.ones(1, 1), lambda: next(seconds))
    assert measured.seconds == 1.0


@pytest.mark.parametrize("value", [0.9, float("nan")])
def test_a_way_whose_embeddings_are_wrong_is_not_chosen(value, monkeypatch):
    monkeypatch.setattr(fastest, "embed_sample", lambda backend, sample: torch.full((1, 1), value))
    monkeypatch.setattr(Backend, "min_cosine", 0.99)
    measured = measure_computation(INT8, lambda computation: Backend, None, torch.ones(1, 1), lambda: 0.0)
    assert measured.problem == f"an embedding has a cosine of {value:.6f} to PyTorch's in float32."


def describe(encoder: DualEncoder) -> str | None:
    return describe_auto(encoder.model, encoder.processor)


def test_what_auto_would_give_is_said_where_it_was_measured(model_dir, cache, monkeypatch):
    encoder = load(model_dir)
    assert "`--backend auto --dtype auto` is faster on most" in describe(encoder)
    make_fastest(monkeypatch, INT8)
    load(model_dir, backend="auto", dtype="auto")
    assert describe(encoder) == (
        "Computing in float32 by PyTorch, as on every machine. `--backend auto --dtype auto` would compute in int8 by "
        "OpenVINO here, 10.0 times as fast, with cosines of at least 1.0000 to this."
    )


@pytest.mark.parametrize(
    "content", ["", '{"chosen": {', "[]", '{"chosen": {}}', '{"chosen": {"backend": "torch"}, "measured": []}']
)
def test_a_choice_that_cannot_be_read_is_measured_anew(content, model_dir, cache, monkeypatch, caplog):
    make_fastest(monkeypatch, EXACT)
    load(model_dir, backend="auto", dtype="auto")
    (file,) = cache.glob("*.json")
    measured = file.read_text()
    file.write_text(content)
    assert "`--backend auto --dtype auto` is faster on most" in describe(load(model_dir))
    assert f"{file} is damaged" in caplog.text
    assert load(model_dir, backend="auto", dtype="auto").computation == EXACT
    assert json.loads(file.read_text())["chosen"] == json.loads(measured)["chosen"]


def test_where_float32_by_pytorch_was_the_fastest_auto_gives_the_same(model_dir, cache, monkeypatch):
    make_fastest(monkeypatch, EXACT)
    load(model_dir, backend="auto", dtype="auto")
    assert "would give the same here" in describe(load(model_dir))


def test_the_library_says_it_to_those_who_listen(model_dir, cache, caplog):
    caplog.set_level("INFO", "modeling_lotlip")
    load(model_dir)
    assert "`--backend auto --dtype auto` is faster on most" in caplog.text
    caplog.clear()
    load(model_dir, backend="openvino")
    assert "auto" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "is_said"),
    [({}, True), ({"dtype": "bfloat16"}, False), ({"backend": "torch"}, False), ({"dtype": "auto"}, False)],
)
def test_a_command_says_what_auto_gives_where_nothing_is_asked_for(arguments, is_said, model_dir, cache, capsys):
    encoder = load(model_dir)
    hint_at_auto(InferenceArguments(**arguments), encoder.model, encoder.processor, encoder.computation)
    assert ("`--backend auto --dtype auto`" in capsys.readouterr().err) == is_said


def test_a_processor_is_described_the_same_at_every_start(tmp_path, monkeypatch):
    descriptions = []
    for megahertz in (2400, 3100):
        lines = [
            "model name\t: EPYC",
            f"cpu MHz\t\t: {megahertz}",
            "flags\t\t: avx2",
            "",
            "model name\t: another core",
        ]
        (tmp_path / "cpuinfo").write_text("\n".join(lines))
        monkeypatch.setattr(fastest, "Path", lambda name: tmp_path / "cpuinfo")
        descriptions.append(fastest.describe_processor())
    assert descriptions[0] == descriptions[1]
    assert descriptions[0].splitlines()[1:] == ["model name: EPYC", "flags: avx2"]


@pytest.mark.parametrize("arguments", [{"dtype": "auto"}, {"backend": "auto"}, {"backend": "auto", "dtype": "auto"}])
def test_a_command_says_how_it_computes_where_that_was_chosen(arguments, model_dir, cache, monkeypatch, capsys):
    """Also where it was chosen before, and nothing is measured."""
    make_fastest(monkeypatch, EXACT)
    encoder = load(model_dir, backend="auto", dtype="auto")
    hint_at_auto(InferenceArguments(**arguments), encoder.model, encoder.processor, encoder.computation)
    assert capsys.readouterr().err.endswith("Computing in float32 by PyTorch.\n")
