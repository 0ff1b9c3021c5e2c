"""LoTLIP under MTEB's own tasks."""

import sys

import mteb
import torch
from torch.nn.functional import normalize

from examples import mteb_model
from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.data.scenes import load_scenes


def make_task(category: str):
    """A retrieval task of MTEB on drawn scenes, `t2i` or `i2t`."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.mocks.mock_tasks import MockAny2AnyRetrievalI2TTask, MockAny2AnyRetrievalT2ITask

    scenes = load_scenes(12, seed=3)
    ids = [str(index) for index in range(len(scenes))]
    texts = Dataset.from_dict({"id": ids, "text": scenes["caption"]})
    images = scenes.select_columns(["image"]).add_column("id", ids)
    queries, corpus = (texts, images) if category == "t2i" else (images, texts)
    mock = MockAny2AnyRetrievalT2ITask if category == "t2i" else MockAny2AnyRetrievalI2TTask

    class ScenesRetrieval(AbsTaskRetrieval):
        metadata = mock.metadata.model_copy(update={"name": f"Scenes{category.upper()}"})

        def load_data(self, *args, **kwargs):
            relevant = {index: {index: 1} for index in ids}
            split = RetrievalSplitData(queries=queries, corpus=corpus, relevant_docs=relevant, top_ranked=None)
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return ScenesRetrieval()


@torch.no_grad()
def test_image_text_retrieval(model_dir, tmp_path, monkeypatch, capsys):
    model, processor = LotlipModel.from_pretrained(model_dir).eval(), LotlipProcessor.from_pretrained(model_dir)
    folder = tmp_path / "my-model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    own_tasks = {"ScenesT2I": make_task("t2i"), "ScenesI2T": make_task("i2t")}
    monkeypatch.setattr(mteb, "get_tasks", lambda tasks: [own_tasks[name] for name in tasks])
    argv = ["mteb_model.py", "--model_name_or_path", str(folder), "--output_dir", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", [*argv, "--device", "cpu", "--tasks", *own_tasks])
    mteb_model.main()
    table = capsys.readouterr().out
    assert all(f"| {name} | ndcg_at_10 | 0." in table for name in own_tasks)

    scenes = load_scenes(12, seed=3)
    inputs = processor(text=list(scenes["caption"]), images=list(scenes["image"]), return_tensors="pt")
    text_embeds = normalize(model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output)
    image_embeds = normalize(model.get_image_features(inputs["pixel_values"]).pooler_output)
    similarity = text_embeds @ image_embeds.t()
    results = mteb.evaluate(mteb_model.load_mteb_model(str(folder), "cpu"), own_tasks.values(), cache=None)
    assert results.model_name == "local/my-model" and str(tmp_path) not in str(results)
    for result, similarities in zip(results, (similarity, similarity.t())):
        # captions that are equal leave the order open: at best and at worst
        better = (similarities > similarities.diag()[:, None] + 1e-6).sum(dim=1)
        not_worse = (similarities > similarities.diag()[:, None] - 1e-6).sum(dim=1)
        (scores,) = result.scores["test"]
        for k in (1, 3, 5):
            least, most = (not_worse <= k).float().mean(), (better < k).float().mean()
            assert least - 1e-4 <= scores[f"recall_at_{k}"] <= most + 1e-4
