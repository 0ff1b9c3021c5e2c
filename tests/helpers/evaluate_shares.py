"""
What each process has of an evaluation, as JSON in a file of its number.

    torchrun --nproc_per_node 2 FILE MODEL_DIR DATASET_DIR OUTPUT_DIR
"""

import json
import sys
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.evaluation.retrieval import evaluate_retrieval


def main():
    model_dir, dataset_dir, output_dir = sys.argv[1:]
    state = PartialState(cpu=True)
    model, processor = LotlipModel.from_pretrained(model_dir).eval(), LotlipProcessor.from_pretrained(model_dir)
    dataset = Dataset.load_from_disk(dataset_dir)
    measured = {
        "num_processes": state.num_processes,
        "results": evaluate_retrieval(model, processor, dataset),
    }
    Path(output_dir, f"{state.process_index}.json").write_text(json.dumps(measured))
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main()
