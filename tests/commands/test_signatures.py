"""Functions do what the commands do unless told otherwise."""

import inspect

import pytest

from modeling_lotlip.align.arguments import HeadArguments, TowersArguments
from modeling_lotlip.align.features import FeatureComputer
from modeling_lotlip.align.heads import HeadSettings
from modeling_lotlip.captioning.arguments import RuleArguments
from modeling_lotlip.captioning.rules import RULES, RuleSettings, apply_rules
from modeling_lotlip.commands.pack import PackArguments
from modeling_lotlip.data.shards import write_shards
from modeling_lotlip.encoder.arguments import InferenceArguments, StoreArguments
from modeling_lotlip.encoder.batches import TOKENS_PER_BATCH
from modeling_lotlip.encoder.dual_encoder import DEFAULT_TEMPLATES
from modeling_lotlip.evaluation.arguments import ClassificationArguments
from modeling_lotlip.evaluation.classification import evaluate_zero_shot
from modeling_lotlip.evaluation.retrieval import embed_dataset, evaluate_retrieval
from modeling_lotlip.search.searcher import Searcher
from modeling_lotlip.serving.embedder import Embedder
from modeling_lotlip.table.embed import embed_to_table
from modeling_lotlip.training.arguments import ObjectiveArguments, OptimizationArguments, TrainOutputArguments
from modeling_lotlip.training.image_features import FeatureCache
from modeling_lotlip.training.step import LossOptions, StepOptions


@pytest.mark.parametrize(
    ("function", "parameter", "arguments", "name"),
    [
        (embed_dataset, "batch_size", InferenceArguments, "batch_size"),
        (evaluate_retrieval, "batch_size", InferenceArguments, "batch_size"),
        (evaluate_zero_shot, "batch_size", InferenceArguments, "batch_size"),
        (evaluate_zero_shot, "label_column", ClassificationArguments, "label_column"),
        (embed_to_table, "batch_size", InferenceArguments, "batch_size"),
        (Searcher, "batch_size", InferenceArguments, "batch_size"),
        (Embedder, "batch_size", InferenceArguments, "batch_size"),
        (FeatureComputer, "batch_size", TowersArguments, "batch_size"),
        (FeatureCache, "batch_size", TrainOutputArguments, "per_device_eval_batch_size"),
        (write_shards, "shard_size", PackArguments, "shard_size"),
        (write_shards, "image_format", PackArguments, "image_format"),
        (apply_rules, "min_words", RuleArguments, "min_words"),
        (apply_rules, "max_words", RuleArguments, "max_words"),
        (RuleSettings, "min_words", RuleArguments, "min_words"),
        (RuleSettings, "max_words", RuleArguments, "max_words"),
        (HeadSettings, "projection_dim", HeadArguments, "projection_dim"),
        (HeadSettings, "batch_size", HeadArguments, "per_device_train_batch_size"),
        (HeadSettings, "learning_rate", HeadArguments, "learning_rate"),
        (HeadSettings, "weight_decay", HeadArguments, "weight_decay"),
        (HeadSettings, "dropout", HeadArguments, "dropout"),
        (HeadSettings, "seed", HeadArguments, "seed"),
        (LossOptions, "short_weight", ObjectiveArguments, "short_loss_weight"),
        (LossOptions, "long_weight", ObjectiveArguments, "long_loss_weight"),
        (LossOptions, "keep_duplicate_negatives", ObjectiveArguments, "keep_duplicate_negatives"),
        (StepOptions, "distill_weight", ObjectiveArguments, "distill_weight"),
        (StepOptions, "max_grad_norm", OptimizationArguments, "max_grad_norm"),
    ],
)
def test_a_function_has_the_default_of_the_command(function, parameter, arguments, name):
    default = inspect.signature(function).parameters[parameter].default
    assert default == arguments.__dataclass_fields__[name].default


def test_rules_templates_and_tokens_are_those_of_the_commands():
    assert RuleArguments().rules == list(RULES)
    assert inspect.signature(apply_rules).parameters["rules"].default == tuple(RULES)
    assert tuple(ClassificationArguments().templates) == DEFAULT_TEMPLATES
    assert StoreArguments.__dataclass_fields__["tokens_per_batch"].default == TOKENS_PER_BATCH
