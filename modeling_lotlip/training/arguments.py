# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The arguments of a training. A new one is a field here; `compared` makes a resumed run have the same value."""

import os
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from ..data.arguments import (
    CaptionArguments,
    CaptionFileArguments,
    DatasetArguments,
    EvaluationSplitArguments,
    TrainSplitArguments,
    is_folder_of_data,
)
from ..utils.arguments import DTYPES, Arguments, argument, refuse_given
from ..utils.plugins import hash_plugin, load_plugin
from .objectives import OBJECTIVES


# An argument that is compared when a run is resumed, since with another value it would take other steps; the model
# card lists it. What a `Plan` resolves, as the batch size of all processes, is compared there.
compared = partial(argument, compared_on_resume=True)

# The results of an evaluation, by any of which the best model is kept
MEASURES = ("recall@1", "recall@5", "recall@10", "median_rank")
RECALLS = [f"i2t_{name}" for name in MEASURES] + [f"t2i_{name}" for name in MEASURES] + ["mean_recall"]
METRICS = [f"short_{name}" for name in RECALLS] + [f"long_{name}" for name in RECALLS]

# What a whole model, or its configuration, brings with it
OF_NEW_TOWERS = ("text_model_name_or_path", "vision_model_name_or_path", "image_size")

# accelerate's names of the precisions
MIXED_PRECISIONS = {"float32": "no", "float16": "fp16", "bfloat16": "bf16"}


@dataclass
class TrainDataArguments(Arguments):
    """What of the data is trained on, and how much of it may be broken."""

    _argument_group_name = "data"

    data_weights: list[float] | None = compared(
        None,
        "How often to sample from each of --data_files. Of a stream --max_train_samples are other ones in each epoch.",
    )
    eval_data_files: list[str] | None = argument(None, "Evaluate on these files, not on --data_files.")
    row_reader: str | None = compared(
        None,
        "A function of a --plugin that makes columns of captions from a row of another form.",
        requires="plugin",
    )
    shuffle_buffer_size: int = compared(
        10_000,
        "Rows of a stream to sample from.",
        least=1,
        requires="streaming",
    )
    max_bad_fraction: float = argument(
        0.01,
        "Samples that cannot be used are skipped; the run ends if more than this fraction is.",
        least=0,
        most=1,
    )


@dataclass
class TowerArguments(Arguments):
    """The model. Towers that are not named are small, and trained from scratch."""

    _argument_group_name = "model"

    model_name_or_path: str | None = argument(
        None,
        "A LoTLIP, CLIP, SigLIP or another dual encoder to train further.",
        aliases=("--model",),
        excludes=("config_name", "tokenizer_name", *OF_NEW_TOWERS),
    )
    text_model_name_or_path: str | None = argument(
        None, "A BERT to start the text tower from, with its tokenizer.", excludes=("tokenizer_name",)
    )
    vision_model_name_or_path: str | None = argument(
        None,
        "A ViT, also timm's, or DINOv2 to start from.",
    )
    config_name: str | None = argument(
        None, "The configuration of a model from scratch, a Hub id or a folder.", excludes=OF_NEW_TOWERS
    )
    tokenizer_name: str | None = argument(
        None,
        "A BERT tokenizer for a text tower from scratch. Default: one with the words of the captions.",
    )
    num_corner_tokens: int | None = compared(
        None,
        "Corner tokens. Default: those of the model or configuration; else 2 for LoTLIP, else 0.",
        least=0,
    )
    no_corner_attention_mask: bool = compared(False, "Let all tokens see the corner tokens.")
    freeze_vision_model: bool | None = compared(None, "Default: frozen if its weights were loaded.")
    freeze: list[str] = compared(
        [],
        "Modules or parameters of the model that are not trained, as logit_scale; text_head is the "
        "last layer of texts.",
    )
    trust_remote_code: bool = argument(
        False,
        "Run the code that comes with the model.",
        requires="model_name_or_path",
    )
    cache_image_features: bool = argument(
        False,
        "Run a frozen image tower once, and keep its output for later runs.",
        excludes=("streaming",),
    )
    image_features_dir: Path | None = argument(
        None,
        "Its folder, shared by all machines. Default: in the Hub's cache.",
        requires="cache_image_features",
    )
    image_size: int | None = argument(
        None,
        "Pixels of a side. Default: the image tower's; 64 from scratch.",
        least=1,
    )
    max_length: int | None = compared(
        None,
        "Tokens of a text, corners not counted. Default: the limit of the model that is trained "
        "further, else 128 less the corners. Beyond the positions of the text tower these are "
        "stretched, as Long-CLIP does.",
        least=1,
    )
    gradient_checkpointing: bool = argument(False, "Compute layers twice to save memory.")


@dataclass
class ObjectiveArguments(Arguments):
    """What is learned, from which captions and views of the images."""

    _argument_group_name = "objective"

    objective: str = compared(
        "lotlip",
        "; ".join(f"{name}: {objective.help}" for name, objective in OBJECTIVES.items()) + ".",
        choices=OBJECTIVES,  # not a copy: plugins add to it before a command line is parsed
    )
    objective_options: list[str] = argument(
        [],
        "Options of the objective: NAME=VALUE ...",
        metavar="NAME=VALUE",
    )
    plugin: list[Path] = argument(
        [],
        "Python files that register objectives, losses, models or readers of rows of your own.",
        metavar="FILE",
    )
    short_loss_weight: float = compared(
        1.0,
        "weight of the slot of short captions in the loss",
        least=0,
    )
    long_loss_weight: float = compared(
        1.0, "weight of each slot of long captions ([CLS] and each corner token)", least=0
    )
    short_captions: str | None = compared(
        None,
        "What the short caption of an image is. given: one of its short captions; any: one of the "
        "short and the long ones, as in LaCLIP; none: train on long captions alone. Default: that "
        "of the objective, else given.",
        choices=("given", "any", "none"),
    )
    num_long_captions: int | None = compared(
        None,
        "Drawn for an image. Default: the objective's.",
        least=0,
    )
    num_sub_captions: int | None = compared(
        None,
        "Consecutive sub-captions sampled of each. Default: all.",
        least=1,
    )
    min_crop_scale: float | None = compared(
        None,
        "Smallest part of an image that is cut out, at random. Default: 0.9, and 1 (all of it) for "
        "drawn scenes and for a frozen image tower.",
        least=0.01,
        most=1,
    )
    matryoshka_dims: list[int] | None = compared(
        None,
        "Train the first N dimensions of each embedding to be an embedding too, for each N given "
        "(Kusupati et al., 2022, https://arxiv.org/abs/2205.13147). Default: those of the model "
        "that is trained further.",
        least=1,
    )
    distill_weight: float = compared(
        0.0,
        "Keep images and short captions near where the model that is trained further has them: the "
        "weight of the squared error of their embeddings in the loss.",
        least=0,
        requires="model_name_or_path",
    )
    keep_duplicate_negatives: bool = compared(
        False,
        "Contrast images whose short captions are the same, too.",
    )

    def __post_init__(self):
        self.plugin = [Path(path) for path in self.plugin]
        for path in self.plugin:  # which may bring the objective
            load_plugin(path)
        super().__post_init__()
        self.check_weights()
        objective = OBJECTIVES[self.objective]
        objective.read_options(self.objective_options)  # says at once what is wrong
        if self.short_captions is None:
            self.short_captions = objective.short_captions
        if self.num_long_captions is None:
            self.num_long_captions = objective.num_long_captions
        if self.distill_weight > 0 and self.short_captions == "none":
            raise ValueError("--distill_weight is for short captions, too: leave out --short_captions none.")
        if self.keep_duplicate_negatives and self.short_captions == "none":
            raise ValueError("--keep_duplicate_negatives has no effect with --short_captions none: leave it out.")

    def check_weights(self) -> None:
        """Raises a `ValueError` for weights that leave no loss."""
        if self.short_loss_weight == 0 and self.long_loss_weight == 0:
            raise ValueError("--short_loss_weight 0 and --long_loss_weight 0 leave no loss: raise one of them.")


@dataclass
class OptimizationArguments(Arguments):
    """The steps of a training."""

    _argument_group_name = "steps"

    seed: int = compared(0, "The random seed of weights, data order, crops and captions.", least=0)
    per_device_train_batch_size: int = argument(64, "Images in a step, for each process.", least=1)
    gradient_accumulation_steps: int = compared(
        1,
        "Batches in a step, each contrasted by itself.",
        least=1,
    )
    grad_cache_tokens: int | None = argument(
        None,
        "Encode N tokens at a time, and once more in the backward pass: the accelerator holds the "
        "pixels and the activations of these alone, whatever the batch.",
        least=1,
    )
    learning_rate: float | None = compared(
        None,
        "The highest rate. Default: 1e-5 for a model, 1e-4 for a text tower trained further, else 1e-3.",
        above=0,
    )
    lr_scheduler_type: str = compared(
        "cosine",
        "How the learning rate falls after the warm-up. warmup_stable_decay: it stays, then falls. As in the scripts "
        "of transformers, cosine_with_restarts has one cycle, as cosine, and polynomial is linear.",
        choices=(
            "linear",
            "cosine",
            "cosine_with_restarts",
            "polynomial",
            "constant",
            "constant_with_warmup",
            "warmup_stable_decay",
        ),
    )
    decay_steps: float = compared(
        0.3,
        "With warmup_stable_decay: the last steps, in which the rate falls; below 1, their fraction, rounded down.",
        least=0,
    )
    warmup_steps: float = compared(
        0.1,
        "Steps of a rising learning rate; below 1, a fraction of all steps, rounded down.",
        least=0,
    )
    num_train_epochs: int = argument(
        10,
        "Passes over the training data.",
        least=1,
        excludes=("max_train_steps",),
    )
    max_train_steps: int | None = argument(
        None,
        "Optimizer steps, instead of a number of epochs.",
        least=1,
    )
    weight_decay: float = compared(0.1, "Of matrices only.", least=0)
    adam_beta1: float = compared(0.9, "AdamW's decay of the mean.", least=0, below=1)
    adam_beta2: float = compared(0.98, "AdamW's decay of the variance.", least=0, below=1)
    adam_epsilon: float = compared(1e-6, "AdamW's least divisor.", above=0)
    max_grad_norm: float = compared(1.0, "Clip gradients to this norm; 0: do not.", least=0)
    mixed_precision: str | None = compared(
        None,
        "Default: as accelerate is configured.",
        choices=tuple(DTYPES),
    )
    ddp_timeout: int = argument(
        1800,
        "Seconds after which a process gives up waiting for another.",
        least=1,
    )

    def __post_init__(self):
        super().__post_init__()
        self.mixed_precision = MIXED_PRECISIONS.get(DTYPES.get(self.mixed_precision))
        if self.lr_scheduler_type == "constant":
            refuse_given(self, ("warmup_steps",), "with --lr_scheduler_type constant")
        if self.lr_scheduler_type != "warmup_stable_decay":
            refuse_given(self, ("decay_steps",), "without --lr_scheduler_type warmup_stable_decay")


@dataclass(kw_only=True)
class TrainOutputArguments(Arguments):
    """The output folder, what is measured and kept in it, and the upload of the model."""

    _argument_group_name = "output"

    output_dir: Path = argument(help="Where model, checkpoints and results go.")
    overwrite_output_dir: bool = argument(
        False,
        "Replace an earlier run there.",
        excludes=("resume_from_checkpoint",),
    )
    checkpointing_steps: str | None = argument(None, "Save the state every N steps, or every `epoch`.")
    checkpoints_total_limit: int | None = argument(
        None,
        "Keep the last N.",
        least=1,
        requires="checkpointing_steps",
    )
    resume_from_checkpoint: str | None = argument(
        None,
        "A checkpoint, or `latest`: the last of the output folder.",
    )
    per_device_eval_batch_size: int = argument(64, "Images in a batch of an evaluation.", least=1)
    eval_steps: int = argument(500, "Evaluate every N steps, and at the end.", least=1)
    metric_for_best_model: str | None = argument(
        None,
        "Keep the model with the best METRIC in `OUTPUT_DIR/best`.",
        choices=METRICS,
        metavar="METRIC",
    )
    logging_steps: int = argument(10, "Log loss and speed every N steps.", least=1)
    with_tracking: bool = argument(False, "Send measurements and results to trackers.")
    report_to: str = argument(
        "all",
        "`tensorboard`, ..., or `all` that are installed.",
        requires="with_tracking",
    )
    push_to_hub: bool = argument(False, "Upload the model at the end, the best one if one is kept.")
    hub_model_id: str | None = argument(
        None,
        "Default: the name of the output folder.",
        requires="push_to_hub",
    )
    language: list[str] = argument(["en"], "The captions' languages, ISO codes, for the model card.")

    def __post_init__(self):
        super().__post_init__()
        self.output_dir = Path(self.output_dir)
        steps = self.checkpointing_steps
        if steps not in (None, "epoch") and not (str(steps).isdecimal() and int(steps) >= 1):
            raise ValueError(f"--checkpointing_steps must be a number or `epoch`, got {steps}.")


@dataclass(kw_only=True)
class TrainArguments(
    OptimizationArguments,
    ObjectiveArguments,
    TowerArguments,
    CaptionFileArguments,
    CaptionArguments,
    TrainDataArguments,
    TrainSplitArguments,
    EvaluationSplitArguments,
    DatasetArguments,
    TrainOutputArguments,
):
    """All arguments of a training. Whatever a command line can say, `TrainArguments(output_dir=..., ...)` can say."""

    def __post_init__(self):
        super().__post_init__()
        self.choose_defaults()
        self.check_image_side()
        self.check_data()

    def choose_defaults(self) -> None:
        """Sets what depends on the objective and on what the model starts from."""
        num_corner_tokens = OBJECTIVES[self.objective].num_corner_tokens
        is_new = self.model_name_or_path is None and (self.config_name is None or num_corner_tokens == 0)
        if self.num_corner_tokens is None and is_new:
            self.num_corner_tokens = num_corner_tokens
        if self.learning_rate is None:
            self.learning_rate = self.choose_learning_rate()
        if self.freeze_vision_model is None:
            self.freeze_vision_model = bool(self.model_name_or_path or self.vision_model_name_or_path)
        if self.min_crop_scale is None:
            sees_whole_images = self.dataset_name is None or self.freeze_vision_model
            self.min_crop_scale = 1.0 if sees_whole_images else 0.9

    def choose_learning_rate(self) -> float:
        """Chooses a rate that fits what the model starts from."""
        if self.model_name_or_path:
            return 1e-5
        if self.text_model_name_or_path:
            return 1e-4
        return 1e-3

    def check_image_side(self) -> None:
        """Raises a `ValueError` for arguments that do not fit a frozen, or a trained, image tower."""
        if self.freeze_vision_model and self.min_crop_scale < 1:
            raise ValueError(
                f"--min_crop_scale {self.min_crop_scale} would be ignored: a frozen image tower sees "
                "whole images. Give --no_freeze_vision_model."
            )
        if self.cache_image_features and not self.freeze_vision_model:
            raise ValueError("--cache_image_features is for a frozen image tower: add --freeze_vision_model.")

    def check_data(self) -> None:
        """Raises a `ValueError` for a stream without an end, or weights that do not fit the files."""
        if self.streaming and self.max_train_steps is None:
            raise ValueError("--streaming needs --max_train_steps: a stream does not know its length.")
        num_sources = len(self.data_files or [])
        if self.data_weights is not None and (len(self.data_weights) != num_sources or min(self.data_weights) <= 0):
            raise ValueError(
                f"--data_weights must be a number above 0 for each of the {num_sources} values of "
                f"--data_files (a value may be a pattern), got {self.data_weights}."
            )

    @property
    def all_objective_options(self) -> dict[str, object]:
        """The options of the objective, those that were given in place of its defaults."""
        return OBJECTIVES[self.objective].read_options(self.objective_options)

    def compared_on_resume(self) -> dict[str, object]:
        """Returns what a resumed run must have in common with the first one, to take the same steps."""
        names = [field.name for field in fields(self) if field.metadata["compared_on_resume"]]
        settings = {name: getattr(self, name) for name in names}
        # of a folder on this machine, which may be a copy, what is in it is compared
        settings["data_dir"] = self.data_dir
        if self.data_dir is not None and os.path.isdir(self.data_dir):
            settings["data_dir"] = None
        if self.dataset_name is not None and is_folder_of_data(self):
            settings["dataset_name"] = None
        settings["data_files"] = self.data_file_names
        settings["objective_options"] = self.all_objective_options
        settings["plugin"] = {path.name: hash_plugin(path) for path in self.plugin}
        return settings

    def in_model_card(self) -> dict[str, object]:
        """Returns what the model card lists: no names of files, which are of this machine."""
        choices = {field.name for field in fields(self) if field.metadata["choices"]}
        settings = self.compared_on_resume()
        settings["per_device_train_batch_size"] = self.per_device_train_batch_size
        listed = {}
        for name, value in settings.items():
            if isinstance(value, (int, float)) or name in choices:
                listed[name] = value
        for name in ("freeze", "data_weights"):
            if settings[name]:
                listed[name] = ", ".join(map(str, settings[name]))
        for name, value in self.all_objective_options.items():
            listed[f"objective_options {name}"] = value
        for name, digest in settings["plugin"].items():
            listed[f"plugin {name}"] = digest
        return listed
