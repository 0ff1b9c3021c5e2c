import json
import runpy
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from scaffold import timing
from scaffold.original import build_lotlip
from torch.distributed.tensor import DTensor

import lotlip
from examples.benchmarks import fsdp, gpu, rank, startup, train_step
from modeling_lotlip import LotlipModel
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from tests.conftest import tiny_config


BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a benchmark in this process in miniature, and returns the tables that it wrote."""
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parents[1]))  # of its own processes
    monkeypatch.setattr(timing, "matrix_product_ceiling", partial(timing.matrix_product_ceiling, size=256))

    def run(name: str, *options: object) -> list[dict]:
        file = tmp_path / f"{name}.json"
        argv = [str(BENCHMARKS / f"{name}.py"), "--output_file", file, "--repeats", 2, "--device", "cpu", *options]
        monkeypatch.setattr(sys, "argv", list(map(str, argv)))
        threads = torch.get_num_threads()
        runpy.run_path(argv[0], run_name="__main__")
        torch.set_num_threads(threads)
        results = json.loads(file.read_text())
        assert results["machine"]["torch"] == torch.__version__ and results["settings"]["repeats"] == 2
        return results["tables"]

    return run


def test_embed(run):
    short, long, images = run("embed", "--layers", 1, "--texts", 2, "--images", 1, "--lengths", 5, 9, "--profile")
    for table in (short, long, images):
        assert list(table["rows"]) == ["original", "float32", "bfloat16"]
        assert table["rows"]["original"]["ratio"] == 1
        assert all(row["share_of_ceiling"] > 0 for row in table["rows"].values())
        assert all(0 < share < 1 for share in table["share_inside_products"].values())
        # the original computes attention as products, and without padding ours needs no mask
        assert set(table["attention_kernels"]) == {"float32", "bfloat16"}
        assert all(kernel.startswith("flash_attention") for kernel in table["attention_kernels"].values())


def test_corpus(run):
    (table,) = run("corpus", "--layers", 1, "--texts", 12, "--dtypes", "float32")
    assert list(table["rows"]) == ["original", "float32, model alone", "float32, from texts"]


def test_train_step(run):
    names = ["original", "float32", "float32, with data", "bfloat16, cached, padded", "bfloat16, in chunks"]
    (table,) = run(
        "train_step",
        "--layers",
        1,
        "--images",
        2,
        "--lengths",
        "mean_46",
        "--tokens_per_chunk",
        1,
        "--share_of_peak",
        "--variants",
        *names,
    )
    assert list(table["rows"]) == names and table["peak_memory"] > 1e8
    assert all(row["share_of_ceiling"] > 0 for row in table["rows"].values())


@pytest.mark.parametrize("tokens_per_chunk", [None, 1])
def test_a_training_step_in_float16_takes_scaled_gradients(monkeypatch, tokens_per_chunk):
    model = build_lotlip(layers=1, device="cpu")
    monkeypatch.setattr(train_step, "build_lotlip", lambda *args: model)
    scaled = []
    model.text_projection.weight.register_hook(lambda gradient: scaled.append(gradient.abs().max().item()))
    args = train_step.StepArguments(device="cpu", layers=1, images=2, short_length=3, long_length=3)
    batch = train_step.random_batch(args)
    batch["vision_output"] = batch.pop("pixel_values").flatten(1)[:, :768]
    before = model.text_projection.weight.detach().clone()
    train_step.build_our_step(args, "float16")(batch, tokens_per_chunk)
    assert max(scaled) > 100  # and the optimizer divides by the scale
    moved = (model.text_projection.weight - before).abs().max().item()
    assert 0 < moved < 1e-4


def test_operations_of_a_training_step():
    args = train_step.StepArguments(device="cpu", layers=2, images=3)
    counted = train_step.count_flops(args, ["original", "bfloat16, with data", "bfloat16, cached, in chunks"])
    image = timing.encoder_flops(3 * 197, 197, num_layers=2)
    texts = 3 * (timing.encoder_flops(3 * 15, 15, num_layers=2) + timing.encoder_flops(3 * 124, 124, num_layers=2))
    assert counted["original"] == counted["bfloat16, with data"] == pytest.approx(image + texts, rel=0.05)
    assert counted["bfloat16, cached, in chunks"] == pytest.approx(texts, rel=0.05)


def test_the_largest_batch_is_written(monkeypatch, tmp_path):
    def step_once(batch_size, args, dtype):
        if batch_size > 50_000:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return batch_size

    monkeypatch.setattr(train_step, "step_once", step_once)
    args = train_step.StepArguments(device="cpu", dtypes=["bfloat16"], output_file=tmp_path / "largest.json")
    train_step.find_largest_batch(args)
    (table,) = json.loads(args.output_file.read_text())["tables"]
    assert 45_000 <= table["rows"]["bfloat16"]["images"] <= 50_000


def test_fsdp(run):
    (table,) = run("fsdp", "--layers", 1, "--images", 2, "--processes", 1)
    assert list(table["rows"]) == ["bfloat16, whole", "bfloat16, sharded"]
    assert all(row["median"] > 0 and row["peak_memory"] > 1e8 for row in table["rows"].values())


def test_fsdp_shards_all_but_the_scale():
    model = ContrastiveModel(LotlipModel(tiny_config()))
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        fsdp.shard(model, "float32")
        whole = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
    finally:
        torch.distributed.destroy_process_group()
    assert whole == ["model.logit_scale"]


@pytest.mark.parametrize("lengths, mean, most", [("mean_46", 46, 125), ("lamps", 86, 126), (None, 122, 122)])
def test_captions_of_a_training_step_are_as_long_as_asked_for(capsys, lengths, mean, most):
    args = train_step.StepArguments(device="cpu", images=128, lengths=lengths)
    batch = train_step.random_batch(args)
    tokens = batch["attention_mask"].sum(dim=2)
    assert tokens.float().mean().item() == pytest.approx(mean, abs=1) and tokens.max() == most
    assert torch.equal(batch["input_ids"] > 0, batch["attention_mask"] > 0) and batch["input_ids"].shape[1] == 1
    train_step.report_tokens(args)
    assert ("in 1 groups" in capsys.readouterr().out) == (lengths is None)
    is_sorted = bool((tokens[1:, 0] >= tokens[:-1, 0]).all())
    assert is_sorted == (lengths is None) and (batch["short_attention_mask"].sum(dim=1) == 15).all() == (
        lengths is None
    )


def test_search(run, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without faiss
    (table,) = run("search", "--num_vectors", 1000, "--width", 16, "--device", "cpu:0")
    rows = table["rows"]
    # the second device has an exact search of its own
    assert "faiss is left out" in capsys.readouterr().out and list(rows) == ["index", "exact", "exact, cpu:0"]
    assert rows["exact"]["recall@10"] == rows["exact, cpu:0"]["recall@10"] == 1 and rows["index"]["recall@10"] > 0.98
    assert all(row["queries_a_second"] > 0 for row in rows.values())
    assert table["rows"]["index"]["megabytes_on_disk"] > 0.03


def test_serve(run):
    (table,) = run("serve", "--layers", 1, "--clients", 3, "--requests", 2, "--words", 4)
    assert table["title"] == "3 clients, 4 words" and list(table["rows"]) == ["together", "one after the other"]
    assert table["rows"]["one after the other"]["ratio"] == 1
    assert all(row["95th_percentile_seconds"] >= row["median_seconds"] > 0 for row in table["rows"].values())


def test_visitors(run, model_dir):
    (table,) = run(
        "visitors", "--model_name_or_path", model_dir, "--pictures", 12, "--questions", 3, "--visitors", 1, 4
    )
    assert [(row["answers"], row["lost"]) for row in table["rows"].values()] == [(3, 0), (12, 0)]
    assert all(row["95th_percentile_seconds"] >= row["median_seconds"] > 0 for row in table["rows"].values())


def test_rank(run):
    (table,) = run("rank", "--images", 300, "--width", 16)
    assert list(table["rows"]) == ["product alone", "product in blocks", "ranks", "sorting"]


def test_recaption(run):
    (table,) = run("recaption", "--keys", 2500, "--shard_size", 1000)
    assert len(table["rows"]) == 4 and all(number > 0 for number in table["rows"].values())


def test_weights_are_used_where_they_lie_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parents[1]))
    build_lotlip(layers=1, device="cpu").save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    before = startup.IMPORTS["modeling_lotlip, model and processor"]
    _, own, whole = startup.run(before, startup.LOAD.format(folder=tmp_path), startup.USE)
    assert own < 0.2 * size and 0.9 * size < whole < 1.2 * size


def test_what_lotlip_answers_at_once(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parents[1]))
    for status, *command in startup.ANSWERS.values():
        startup.answer(status, *command)
        with pytest.raises(RuntimeError, match=f"ended with status {status}"):
            startup.answer(status + 1, *command)


def test_the_search_whose_start_up_is_measured_finds_pictures(tmp_path, capsys):
    _, _, *command = startup.make_collection(tmp_path, startup.StartupArguments(device="cpu", layers=1, pictures=3))
    assert lotlip.main(command) == 0
    told = capsys.readouterr()
    assert "3 pictures" in told.err and ".png" in told.out


def test_wrong_arguments_are_named():
    for arguments, values, message in (
        (rank.RankArguments, {"images": 3, "texts": 4}, "--texts must be a multiple of --images"),
        (train_step.StepArguments, {"device": "cpu", "largest_batch": True}, "--largest_batch needs an accelerator"),
        (rank.RankArguments, {"repeats": 0}, "--repeats must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            arguments(**values)


def test_storage(run, model_dir):
    sizes, reading = run("storage", "--model_name_or_path", model_dir, "--max_eval_samples", 20)
    assert [row["bytes_per_vector"] for row in sizes["rows"].values()] == [128, 64, 32, 4]
    assert list(reading["rows"]) == list(sizes["rows"])
    whole, first = (sizes["rows"][name] for name in ("float32", "binary"))
    assert "deviation" not in whole and whole["overlap@10"] == 100 > first["overlap@10"]


def test_storage_of_first_numbers(run, model_dir, capsys):
    models = ("--model_name_or_path", model_dir, model_dir)
    sizes, _ = run("storage", *models, "--max_eval_samples", 20, "--truncate_dims", 8, 4)
    rows = sizes["rows"]
    assert rows["float32, first 8"]["bytes_per_vector"] == 32 == rows["int8"]["bytes_per_vector"]
    assert rows["binary, first 8"]["bytes_per_vector"] == 1 and "binary, first 4" not in rows
    assert all(row["deviation"] == 0 for row in rows.values()) and "mean of 2 models" in sizes["title"]
    assert rows["float32, first 8"]["overlap@10"] < 100
    assert f"{rows['int8, first 4']['t2i_recall@1']:.1f} ± 0.0" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("storage", "--model_name_or_path", model_dir, "--max_eval_samples", 20, "--truncate_dims", 33)
    assert "storage.py: error: `--truncate_dims` must be from 1 to 32" in capsys.readouterr().err


def test_backends(run, tmp_path):
    (tmp_path / "texts.txt").write_text("a red boat at a green house\n" * 40)
    options = ("--layers", 1, "--texts", 70, "--images", 2, "--batch_size", 2, "--texts_file", tmp_path / "texts.txt")
    names = ("OpenVINO float32", "ONNX Runtime float32")
    texts, images, products = run("backends", *options, "--variants", *names)
    assert texts["rows"]["torch float32"]["recall@1"] == pytest.approx(100 / 35)  # all halves are alike
    assert list(texts["rows"]) == ["torch float32", *names]
    assert list(images["rows"]) == ["torch float32", *names]
    for table in (texts, images):
        assert table["rows"]["OpenVINO float32"]["least_cosine"] > 1 - 1e-6
        assert table["rows"]["ONNX Runtime float32"]["least_cosine"] > 1 - 1e-5
        assert all(row["first_call"] > 0 for row in table["rows"].values())
    assert set(products["rows"]) == {"torch", "NumPy", "OpenVINO"}


def test_onnx_graphs(run):
    text, image = run("onnx_graphs", "--layers", 1, "--length", 6)
    assert list(text["rows"]) == list(image["rows"]) == ["torch", "float32", "float16", "q8"]


def test_choices(run):
    corners, optimizers, dtypes = run("choices", "--layers", 1, "--texts", 2, "--length", 9)
    assert len(corners["rows"]) == len(optimizers["rows"]) == 2 and len(dtypes["rows"]) == 3
    assert dtypes["least_cosine"]["bfloat16"] > 0.99


def test_scale(run):
    options = {"layers": 1, "num_images": 1000, "num_views": 2, "num_train_epochs": 3, "num_measured_images": 4}
    options = [word for name, value in options.items() for word in (f"--{name}", value)]
    tables = run("scale", *options, "--per_device_train_batch_size", 8, "--gpus", 2, 4, "--global_batch_sizes", 16)
    rows = {table["title"].split(",")[0].split(" at ")[0]: table["rows"] for table in tables}
    hours = {name: row["GPU hours an epoch"] for name, row in rows["The towers"].items()}
    assert hours["cached image features"] < hours["frozen image tower"] < hours["trained image tower"]
    assert all(hours[name] < hours[f"{name.split()[0]}, in chunks"] for name in list(hours)[:3])
    storage = rows["Storage of 1"]
    assert storage["image features, views: 2"]["TB in all"] == pytest.approx(1000 * 2 * 4 * 768 / 1e12)
    assert all(row["images/s of a core"] > 0 for row in rows["Making batches"].values())
    two, four = rows["The exchange of a step"].values()
    assert four["gathered (MB)"] == 2 * two["gathered (MB)"] and four["gradients (MB)"] == two["gradients (MB)"]
    assert [row["steps"] for row in rows["3 epochs"].values()] == [3 * 63, 3 * 32]
    steps = rows["A step"].values()
    for step, watched in zip(steps, rows["Measuring every 10 steps"].values(), strict=True):
        share = watched["a measurement (s)"] / 10 / step["step (s)"]
        assert watched["of a step (%)"] == pytest.approx(100 * share) and share > 0


def test_photos(run):
    options = ("--layers", 1, "--pictures", 3, "--width", 1400, "--height", 1360, "--batch_size", 2)
    speed, decoding = run("photos", *options, "--dataloader_num_workers", 0)
    assert list(speed["rows"]) == ["model alone", "from files, 0 workers", "sentence-transformers"]
    assert speed["bytes_per_file"] > 1e5
    whole, reduced = decoding["rows"].values()
    assert whole["largest_difference"] == 0 < reduced["largest_difference"] < 0.04


@pytest.fixture
def run_gpu(monkeypatch, tmp_path):
    """Runs the benchmarks of a GPU on the CPU."""

    def run(*options: object) -> Path:
        argv = [
            "gpu.py",
            "--output_dir",
            tmp_path / "results",
            "--device",
            "cpu",
            "--layers",
            1,
            "--repeats",
            1,
            *options,
        ]
        monkeypatch.setattr(sys, "argv", list(map(str, argv)))
        monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parents[1]))
        gpu.main()
        return tmp_path / "results"

    return run


def test_gpu_writes_what_each_benchmark_measured(run_gpu):
    folder = run_gpu("--only", "ranks", "--rows", 64)
    (table,) = json.loads((folder / "ranks.json").read_text())["tables"]
    assert list(table["rows"]) == ["product in blocks", "ranks"]
    with pytest.raises(SystemExit):
        run_gpu("--only", "largest_batch")  # no device that says when its memory is full


def test_gpu_goes_on_after_a_benchmark_that_fails(run_gpu, monkeypatch, tmp_path, capfd):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name in ("embed", "train_step", "fsdp", "rank", "search"):
        (scripts / f"{name}.py").write_text(f"import sys; print(sys.argv[1:]); sys.exit('{name}' == 'embed')")
    monkeypatch.setattr(gpu, "FOLDER", scripts)
    with pytest.raises(SystemExit, match="Not measured: dtypes, attention, corners"):
        run_gpu("--size", 2)
    printed = capfd.readouterr().out
    assert printed.count("'--device', 'cpu'") == 8
    assert "'--num_vectors', '100000', '--methods', 'exact'" in printed
    assert "'--corners', '--attn_implementation', 'sdpa', 'eager', 'flex_attention'" in printed
