"""What commands do unless told otherwise, and which numbers they take: scripts rely on both."""

import dataclasses
import importlib

import pytest

from modeling_lotlip.utils.arguments import check_value, get_default


# By command: the default of an argument
DEFAULTS = {
    "search": {
        "k": 5,
        "kind": "image",
        "backend": "auto",
        "dtype": "auto",
        "batch_size": 64,
    },
    "app": {"k": 12, "port": 7860, "host": "127.0.0.1", "backend": "auto", "dtype": "auto"},
    "serve": {
        "port": 8000,
        "host": "127.0.0.1",
        "max_batch_size": 256,
        "max_bytes": 32 * 1024 * 1024,
        "max_pixels": 100_000_000,
        "dtype": "float32",
        "backend": None,
    },
    "embed": {
        "storage_dtype": "float32",
        "tokens_per_batch": 2048,
        "dataloader_num_workers": None,
        "image_column": "image",
        "caption_column": "caption",
        "long_captions_column": "long_captions",
        "eval_split": "test",
        "sub_caption_splitter": "paper",
    },
    "train": {
        "objective": "lotlip",
        "short_loss_weight": 1,
        "long_loss_weight": 1,
        "distill_weight": 0,
        "shuffle_buffer_size": 10_000,
        "max_bad_fraction": 0.01,
        "per_device_train_batch_size": 64,
        "per_device_eval_batch_size": 64,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 10,
        "warmup_steps": 0.1,
        "decay_steps": 0.3,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.1,
        "adam_beta1": 0.9,
        "adam_beta2": 0.98,
        "adam_epsilon": 1e-6,
        "max_grad_norm": 1,
        "ddp_timeout": 1800,
        "eval_steps": 500,
        "logging_steps": 10,
        "seed": 0,
        "dataloader_num_workers": 0,
        "train_split": "train",
        "report_to": "all",
        "language": ["en"],
    },
    "interpolate": {
        "alphas": [0.2, 0.4, 0.6, 0.8],
        "max_loss": 0.5,
        "batch_size": 64,
        "label_column": None,
    },
    "align": {
        "head": None,
        "keep": None,
        "captions": ["short", "long", "sub"],
        "projection_dim": 256,
        "per_device_train_batch_size": 1024,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "dropout": 0.3,
        "seed": 0,
        "batch_size": 32,
    },
    "evaluate": {
        "batch_size": 64,
        "dtype": "float32",
        "file_key_column": "key",
        "file_caption_columns": ["caption"],
    },
    "classify": {"label_column": "label", "templates": ["a photo of a {}"]},
    "statistics": {"tokenizer_path": "google-bert/bert-base-uncased"},
    "recaption": {
        "max_new_tokens": 512,
        "num_beams": 1,
        "temperature": None,
        "batch_size": 8,
        "concurrency": 32,
        "timeout": 120,
        "max_retries": 6,
        "shard_size": 200_000,
        "min_words": 5,
        "max_words": 500,
        "seed": 0,
    },
    "filter": {"min_words": 5, "max_words": 500, "without_rules": []},
    "pack": {"shard_size": 1000, "image_format": "jpg"},
    "visualize": {"row": 0},
    "sensitivity": {"num_tokens": [8, 16, 32, 48, 64, 77, 96, 128, 192, 256], "seed": 0},
    "export": {"dtype": ["float32"]},
}
# By command: a number of an argument that is just allowed, and one that is just refused
BOUNDS = {
    "search": [
        ("k", 1, 0),
        ("k", 10**9, 10**9 + 1),
        ("batch_size", 1, 0),
        ("truncate_dim", 1, 0),
        ("max_length", 3, 2),
    ],
    "app": [("k", 1, 0), ("k", 10**9, 10**9 + 1), ("port", 1, 0), ("port", 65535, 65536)],
    "serve": [
        ("port", 0, -1),
        ("port", 65535, 65536),
        ("max_batch_size", 1, 0),
        ("max_bytes", 1, 0),
        ("max_pixels", 1, 0),
    ],
    "embed": [
        ("tokens_per_batch", 1, 0),
        ("dataloader_num_workers", 0, -1),
        ("max_eval_samples", 1, 0),
        ("split_seed", 0, -1),
    ],
    "train": [
        ("max_train_samples", 1, 0),
        ("dataloader_num_workers", 0, -1),
        ("shuffle_buffer_size", 1, 0),
        ("max_bad_fraction", 0, -0.1),
        ("max_bad_fraction", 1, 1.1),
        ("num_corner_tokens", 0, -1),
        ("image_size", 1, 0),
        ("max_length", 1, 0),
        ("short_loss_weight", 0, -1),
        ("long_loss_weight", 0, -1),
        ("num_long_captions", 0, -1),
        ("num_sub_captions", 1, 0),
        ("min_crop_scale", 0.01, 0.001),
        ("min_crop_scale", 1, 1.1),
        ("matryoshka_dims", 1, 0),
        ("distill_weight", 0, -1),
        ("seed", 0, -1),
        ("per_device_train_batch_size", 1, 0),
        ("per_device_eval_batch_size", 1, 0),
        ("gradient_accumulation_steps", 1, 0),
        ("grad_cache_tokens", 1, 0),
        ("learning_rate", 1e-9, 0),
        ("decay_steps", 0, -1),
        ("warmup_steps", 0, -1),
        ("num_train_epochs", 1, 0),
        ("max_train_steps", 1, 0),
        ("weight_decay", 0, -1),
        ("adam_beta1", 0, -0.1),
        ("adam_beta1", 0.999, 1),
        ("adam_beta2", 0, -0.1),
        ("adam_beta2", 0.999, 1),
        ("adam_epsilon", 1e-12, 0),
        ("max_grad_norm", 0, -1),
        ("ddp_timeout", 1, 0),
        ("checkpoints_total_limit", 1, 0),
        ("eval_steps", 1, 0),
        ("logging_steps", 1, 0),
    ],
    "interpolate": [
        ("alphas", 0, -0.1),
        ("alphas", 1, 1.1),
        ("max_loss", 0, -0.1),
        ("batch_size", 1, 0),
    ],
    "align": [
        ("max_length", 3, 2),
        ("batch_size", 1, 0),
        ("projection_dim", 1, 0),
        ("num_train_epochs", 1, 0),
        ("per_device_train_batch_size", 2, 1),
        ("learning_rate", 1e-9, 0),
        ("weight_decay", 0, -1),
        ("dropout", 0, -0.1),
        ("dropout", 0.9, 1),
        ("seed", 0, -1),
    ],
    "recaption": [
        ("max_new_tokens", 1, 0),
        ("num_beams", 1, 0),
        ("temperature", 0, -0.1),
        ("batch_size", 1, 0),
        ("concurrency", 1, 0),
        ("timeout", 0, -1),
        ("max_retries", 0, -1),
        ("max_image_size", 1, 0),
        ("shard_size", 1, 0),
        ("min_words", 1, 0),
        ("max_words", 1, 0),
    ],
    "pack": [("shard_size", 1, 0)],
    "visualize": [("row", 0, -1)],
    "sensitivity": [("num_tokens", 3, 2)],
}

# the options that take some values only, by command
ENCODER_CHOICES = ["backend", "dtype"]
CHOICES = {
    "align": [
        "captions",
        "head",
        "keep",
        "sub_caption_splitter",
    ],
    "app": ENCODER_CHOICES,
    "classify": ENCODER_CHOICES,
    "embed": [*ENCODER_CHOICES, "only", "storage_dtype", "sub_caption_splitter"],
    "evaluate": [*ENCODER_CHOICES, "sub_caption_splitter"],
    "export": ["dtype"],
    "filter": [*ENCODER_CHOICES, "without_rules"],
    "interpolate": ["sub_caption_splitter"],
    "pack": ["image_format"],
    "recaption": ["dtype", "without_rules"],
    "search": [*ENCODER_CHOICES, "kind"],
    "sensitivity": [*ENCODER_CHOICES, "sub_caption_splitter"],
    "serve": ENCODER_CHOICES,
    "statistics": ["sub_caption_splitter"],
    "train": [
        "lr_scheduler_type",
        "metric_for_best_model",
        "mixed_precision",
        "objective",
        "short_captions",
        "sub_caption_splitter",
    ],
    "visualize": ["dtype", "sub_caption_splitter"],
}


def list_arguments(command: str) -> list[type]:
    return importlib.import_module(f"modeling_lotlip.commands.{command}").ARGUMENTS


def find_field(command: str, name: str) -> dataclasses.Field:
    for arguments in list_arguments(command):
        for field in dataclasses.fields(arguments):
            if field.name == name:
                return field
    raise LookupError(f"{command} has no --{name}")


@pytest.mark.parametrize("command", DEFAULTS)
def test_a_command_has_its_defaults(command):
    expected = DEFAULTS[command]
    assert {name: get_default(find_field(command, name)) for name in expected} == expected


@pytest.mark.parametrize("command", CHOICES)
def test_some_options_take_no_other_value_than_those_that_are_shown(command):
    declared = [field for arguments in list_arguments(command) for field in dataclasses.fields(arguments)]
    assert sorted(field.name for field in declared if field.metadata["choices"] is not None) == CHOICES[command]


@pytest.mark.parametrize("command", BOUNDS)
def test_a_number_is_allowed_up_to_its_bounds(command):
    for name, allowed, refused in BOUNDS[command]:
        field = find_field(command, name)
        check_value(field, allowed)
        with pytest.raises(ValueError, match=f"--{name} must be (at least|at most|greater than|less than) "):
            check_value(field, refused)
