"""Models that several tests use: the reference's, whose data lies beside the repository, and a small random one."""

import gc
import importlib
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import datasets
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from hypothesis import HealthCheck, settings
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

import lotlip
from modeling_lotlip import (
    LotlipConfig,
    LotlipImageProcessor,
    LotlipModel,
    LotlipProcessor,
    LotlipTokenizer,
    LotlipTokenWiseConfig,
    LotlipTokenWiseModel,
)
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.dual_encoder import DualEncoder, load_encoder
from modeling_lotlip.training import loop
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.utils.addresses import listen
from modeling_lotlip.utils.arguments import parse


WORDS = "a photo of red green blue yellow boat car house tree the ground is sand sea".split()
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TINY_TOWER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}

ROOT = Path(__file__).resolve().parents[1]
# Data beside the repository, which a clone does not have: a test that needs some of it names that in a `skipif`
SHARED = ROOT.parent / "shared"
# A small checkpoint of the original with what it computes
TINY_REFERENCE = SHARED / "reference" / "tiny"
needs_tiny_reference = pytest.mark.skipif(not TINY_REFERENCE.is_dir(), reason=f"needs {TINY_REFERENCE}")

# Processes of their own that need not import torch again
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.reliability.commands"])

# Made-up inputs: always the same ones; and, by hand, many more, drawn from a seed:
# pytest tests/test_fuzz.py --hypothesis-profile long --hypothesis-seed 0
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)
settings.register_profile("short", QUIET, max_examples=100, derandomize=True)
settings.register_profile("long", QUIET, max_examples=10_000)
settings.load_profile("short")

# after each stream of several files it waits five seconds for threads of pyarrow, lest the process end before them
datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0.1

# the models of the tests are too small to share out
torch.set_num_threads(1)


def pytest_collection_finish():
    # it is off while all is imported, of which nothing is garbage; nor is it looked for by the tests
    gc.enable()
    gc.freeze()


def pytest_collection_modifyitems(items):
    # the first ones are run by the same worker, whose SERVER imports all once
    items.sort(key=lambda item: item.get_closest_marker("processes") is None)


@pytest.fixture(autouse=True)
def logging_stays_as_it_is():
    """A test that leaves logging off, or quieter, hides the warnings that a later one waits for."""

    def describe():
        root = logging.getLogger()
        loggers = root.manager.loggerDict
        silent = [name for name, logger in loggers.items() if getattr(logger, "disabled", False)]
        levels = [root.manager.disable, root.level, *(handler.level for handler in root.handlers)]
        return {"levels": levels, "filters": root.filters[:], "silent": silent}

    before = describe()
    yield
    assert describe() == before


@pytest.fixture(autouse=True)
def no_workers_unless_asked_for(monkeypatch):
    """Processes that decode take longer to start than these images take."""
    monkeypatch.setattr("modeling_lotlip.encoder.batches.count_workers", lambda: 0)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """No test turns the computer off."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def build_lotlip(**text_fields: int) -> tuple[LotlipModel, LotlipProcessor]:
    """A small random model, and the processor that knows its words."""
    tower = {**TINY_TOWER, "initializer_range": 0.2}
    vocab = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *WORDS])}
    config = LotlipConfig(
        text_config={**tower, "vocab_size": len(vocab), "projection_dim": 32, **text_fields},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    image_processor = LotlipImageProcessor(size=32, crop_size=32)
    return LotlipModel(config), LotlipProcessor(image_processor, LotlipTokenizer(vocab=vocab))


def save_small_model(folder: Path) -> None:
    torch.manual_seed(0)
    for part in build_lotlip():
        part.save_pretrained(folder)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_small_model(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(model_dir) -> DualEncoder:
    """That model as commands load it, which tests leave as it is."""
    return load_encoder(str(model_dir), InferenceArguments(device="cpu"))


@pytest.fixture(scope="session")
def token_wise_dir(model_dir, tmp_path_factory) -> Path:
    """A small random model with late interaction, and its processor."""
    folder = tmp_path_factory.mktemp("token_wise")
    torch.manual_seed(1)
    LotlipTokenWiseModel(as_token_wise(LotlipConfig.from_pretrained(model_dir))).save_pretrained(folder)
    LotlipProcessor.from_pretrained(model_dir).save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(model_dir):
    """That model, which keeps its attention, and its processor."""
    model = AutoModel.from_pretrained(model_dir, attn_implementation="eager").eval()
    return model.requires_grad_(False), AutoProcessor.from_pretrained(model_dir)


def tiny_config(config_class: type[LotlipConfig] = LotlipConfig, dropout: float = 0.1, **text_fields) -> LotlipConfig:
    tower = {**TINY_TOWER, "hidden_dropout_prob": dropout}
    text = {"vocab_size": 64, "projection_dim": 32, "attention_probs_dropout_prob": dropout}
    return config_class(
        text_config={**tower, **text, **text_fields},
        vision_config={**tower, "image_size": 32, "patch_size": 16},
        projection_dim=32,
    )


def as_token_wise(config: LotlipConfig) -> LotlipTokenWiseConfig:
    """The configuration of a model with late interaction, without corner tokens, otherwise as the given one."""
    fields = config.to_dict()
    return LotlipTokenWiseConfig(
        text_config=fields["text_config"] | {"num_corner_tokens": 0},
        vision_config=fields["vision_config"],
        projection_dim=config.projection_dim,
    )


def training_argv(folder: Path, name: str, **options) -> list[str]:
    """The command line of a short training on a few scenes, with its output in `folder / name`."""
    config = folder / "config"
    if not config.exists():
        tiny_config().save_pretrained(config)
    defaults = {
        "config_name": config,
        "max_train_samples": 44,
        "max_eval_samples": 24,
        "per_device_train_batch_size": 8,
        "max_train_steps": 8,
        "warmup_steps": 0.2,
        "learning_rate": 1e-3,
    }
    options = {option: value for option, value in (defaults | options).items() if value is not None}
    argv = ["-m", "lotlip", "train", "--output_dir", str(folder / name)]
    for option, value in options.items():
        argv.append(f"--{option}")
        if isinstance(value, list):
            argv += map(str, value)
        elif value is not True:
            argv.append(str(value))
    return argv


def python_environment(**variables: object) -> dict[str, str]:
    """The environment of a process that imports this package, with no settings of the Hub but given ones."""
    of_the_hub = ("HF_HUB_", "HF_TOKEN", "HF_ENDPOINT", "TRANSFORMERS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(of_the_hub)}
    variables = {"OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT, "HF_HUB_OFFLINE": 1} | variables
    variables["HF_HUB_DISABLE_TELEMETRY"] = 1
    variables["HF_HUB_DISABLE_XET"] = 1  # the server of the tests speaks git-lfs
    return kept | {name: str(value) for name, value in variables.items()}


def training_environment() -> dict[str, str]:
    """The environment of a training in a process of its own."""
    return python_environment(ACCELERATE_USE_CPU="true", LOCAL_WORLD_SIZE=os.cpu_count())


def forget_accelerator() -> None:
    """A process may train again, otherwise than before."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Runs a training in this process; returns its output folder."""

    def run(name: str, **options) -> Path:
        (args,) = parse((TrainArguments,), training_argv(tmp_path, name, **options)[3:])
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(os.cpu_count()))  # one thread
        forget_accelerator()
        loop.run(args)
        return tmp_path / name

    yield run
    torch.set_num_threads(1)


def assert_same_weights(folder: Path, expected_folder: Path, atol: float = 0) -> None:
    """Whether the models in two folders are the same, without a tolerance bit by bit."""
    weights = load_file(folder / "model.safetensors")
    expected = load_file(expected_folder / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=atol)


def torchrun(folder: Path, num_processes: int, script: Path, *arguments: object, **variables: str) -> CompletedProcess:
    """Runs a script as `torchrun` does, in forks of a process that has imported all."""
    from tests.reliability.commands import launch, run_quietly  # imports all commands

    options = ["--nproc_per_node", num_processes, "--start_method", "fork", "--run_path"]
    output, errors = folder / "stdout", folder / "stderr"
    argv = [str(word) for word in (output, *options, script, *arguments)]
    process = SERVER.Process(target=run_quietly, args=(errors, argv, True, launch), kwargs=variables)
    process.start()
    process.join(300)
    process.kill()
    process.join()
    return CompletedProcess(argv, process.exitcode, output.read_text(), errors.read_text())


def run_together(log: Path, num_processes: int, argv: list[str], program: Callable = lotlip.main, **variables) -> str:
    """Runs a program in processes that have the variables of torchrun, and of which none may fail; what they say."""
    from tests.reliability.commands import run_quietly  # imports all commands

    with listen("127.0.0.1", 0) as free:
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    variables |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_processes))
    processes = []
    for rank in range(num_processes):
        own = variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = SERVER.Process(target=run_quietly, args=(log, argv, False, program), kwargs=own)
        process.start()
        processes.append(process)
    for process in processes:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * num_processes, log.read_text()
    return log.read_text()


@pytest.fixture(scope="session")
def family_folders(tmp_path_factory):
    """Makes the folder of a small random model of a family of dual encoders, once."""
    from tests.helpers.dual_encoders import save_family  # imports every family, which few tests need

    @cache
    def make_folder(name):
        folder = tmp_path_factory.mktemp(name)
        save_family(name, folder)
        return folder

    return make_folder


@pytest.fixture(scope="session")
def noise_dir(tmp_path_factory):
    """Images and captions that these models tell apart."""
    from tests.helpers.dual_encoders import save_data

    folder = tmp_path_factory.mktemp("data")
    save_data(folder)
    return folder


@pytest.fixture
def vocab_dir(tmp_path) -> Path:
    folder = tmp_path / "bert"
    folder.mkdir()
    words = [*SPECIAL_TOKENS, ".", '"', "'", "##s", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return folder


@pytest.fixture
def load_modules(monkeypatch, tmp_path):
    """Writes modules of a user from their sources by name, and imports the first one."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = set()

    def load(sources: dict[str, str]) -> ModuleType:
        names.update(sources)
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module(next(iter(sources)))

    yield load
    for name in names:
        sys.modules.pop(name, None)
