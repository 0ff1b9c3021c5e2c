"""Rules for captions that models wrote, and the files that they are applied to."""

import gzip
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from transformers import AutoModel, AutoProcessor, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from modeling_lotlip.captioning import files
from modeling_lotlip.captioning.files import read_rows
from modeling_lotlip.captioning.report import NUM_EXAMPLES
from modeling_lotlip.captioning.rules import DEFAULT_RULES, apply_rules, read_rules
from modeling_lotlip.commands import filter as filter_captions
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.data.side_captions import SideCaptions
from modeling_lotlip.sub_captions import join_sub_captions, split_sub_captions
from tests.conftest import SHARED


PROMPT = "Describe this image in detail."
BOAT = "A red boat lies on the beach, half in the sand. Behind it the sea is calm."

# What captioners write, and what must become of it: a text, or the rule that rejects it
BAD_CAPTIONS = {
    "the prompt of a LLaVA": (f"USER: <image>\n{PROMPT} ASSISTANT: {BOAT}", BOAT),
    "the prompt in other case, twice": (f"describe this image in detail.  {PROMPT}\n\n{BOAT}", BOAT),
    "nothing but the prompt": (f"{PROMPT}\n", "prompt_echo"),
    "words that begin like the prompt": (f"Describe this image in detailed words. {BOAT}",) * 2,
    "refusal": ("I'm sorry, but I cannot assist with identifying people in images.", "refusal"),
    "refusal with a curly apostrophe": ("I’m unable to see the picture. Could you describe it to me?", "refusal"),
    "no image": ("It seems that no image was provided. Please upload the image you want described.", "refusal"),
    "an AI at the end": (f"{BOAT} As an AI language model, I do not know whose it is.", "refusal"),
    "a sign that is sorry": (f'{BOAT} A sign reads "Sorry, we are closed" and "I am afraid of dogs".',) * 2,
    "a sentence without end": (f"{BOAT} {'There is a person in the background. ' * 12}There is a", "repetition"),
    "a phrase without end": (f"{BOAT} Beside it {'a chair, and a table, and ' * 9}a chair", BOAT),
    "nothing but a phrase without end": ("There is " + "a chair, and a table, and " * 9, "repetition"),
    "counting on": ("There is 1 boat. " + " ".join(f"There are {n} boats." for n in range(2, 30)), "repetition"),
    "one word without end": ("a red red red red red red red red red red red boat", "repetition"),
    "laughter": (f'{BOAT} A cartoon says "HA HA HA HA HA".',) * 2,
    "cut off": (f"{BOAT} In the distance, there are several smaller boats and a", BOAT),
    "cut off after an abbreviation": (f"{BOAT} It belongs to Mr. Hill and his", BOAT),
    "one sentence without a full stop": ("a red boat on the beach",) * 2,
    "nothing": ("", "too_short"),
    "full stops": (" . . . \n", "too_short"),
    "two words": ("Red boat.", "too_short"),
    "a novel": (BOAT * 50, "too_long"),
    "a numbered list": (
        "The image contains:\n\n1. A red boat\n2. Two **white** dogs;\n3. A lighthouse.",
        "A red boat. Two white dogs. A lighthouse.",
    ),
    "a numbered list in a line": ("1. A red boat. 2. Two dogs. 3. The sea.", "A red boat. Two dogs. The sea."),
    "a bulleted list that was cut off": (
        "Objects in it:\n- A red boat on the beach.\n- Two dogs in it.\n- A light",
        "Objects in it: A red boat on the beach. Two dogs in it.",
    ),
    "headings": ("### Boat\nA red one.\n## Sea\nIt is calm.", "Boat.\nA red one.\nSea.\nIt is calm."),
    "decimals and years": ("The boat is 3.5 m long. It was built in 1920. 2. Bundesliga is written on it.",) * 2,
    "an announcement": (f"Sure! Here is a detailed description of the image:\n\n{BOAT}", BOAT),
    "an announcement with content": (f"The image shows two boats. {BOAT}", f"Two boats. {BOAT}"),
    "in this picture": ("In this picture we can see that a boat is on fire.", "A boat is on fire."),
    "a polite model": (f"I'd be happy to describe this image. Here's what I can see in the image:\n{BOAT}", BOAT),
    "a model that sees": ("In the image, I can see the red boat on sand.", "The red boat on sand."),
    "only an announcement": ("Here's a caption for your image:", "announcement"),
    "the medium": ("This is a watercolor of a red boat.",) * 2,
    "Chinese": ("一艘红色的船停在沙滩上。海面很平静。",) * 2,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CAPTIONS)
def test_what_becomes_of_bad_captions(name):
    caption, expected = BAD_CAPTIONS[name]
    text, rejected_by, changed = apply_rules(caption, PROMPT)
    if expected in DEFAULT_RULES:
        assert (text, rejected_by, changed) == (caption, expected, [])
        others = {rule: number for rule, number in DEFAULT_RULES.items() if rule != expected}
        assert apply_rules(caption, PROMPT, others)[1] != expected
    else:
        assert (text, rejected_by) == (expected, None)
        assert bool(changed) == (caption != expected)


FRAGMENTS = [
    *(PROMPT, "USER:", "<image>", "The image shows", "In this image, you can see", "Sure!", "Description:", "that"),
    *("Here is a caption:", "1.", "2)", "- ", "* ", "# ", "**", "__", "\n", "\n\n", " ", ". ", ".", "!", '"', ":"),
    *("A red boat lies here", "It is 3.5 m long", "Mr.", "and a dog and a dog", "I'm sorry", "船。", "\u00a0", "é"),
    *("The image", "</s>"),
]  # fmt: skip
CAPTIONS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8), max_size=25).map(" ".join) | st.lists(
    st.sampled_from(FRAGMENTS), max_size=25
).map("".join)


@settings(max_examples=400, deadline=None)
@given(CAPTIONS, st.sampled_from([None, PROMPT, "A"]), st.sets(st.sampled_from(sorted(DEFAULT_RULES)), min_size=1))
def test_rules_leave_alone_what_they_made(caption, prompt, names):
    rules = read_rules(sorted(names), [])
    text, rejected_by, changed = apply_rules(caption, prompt, rules)
    assert (text == caption) == (not changed) or rejected_by is None
    if rejected_by is not None:
        assert text == caption and changed == [] and rejected_by in rules
    assert apply_rules(text, prompt, rules) == (text, rejected_by, [])


@pytest.mark.parametrize(
    "part", ["a ", "A red boat. ", '."', "\n", PROMPT, "The image shows ", "- a boat\n", "1. a 2. b ", "**a", "Sure! "]
)
def test_a_megabyte_is_no_trouble(part):
    caption = part * (2**20 // len(part))
    without = {rule: number for rule, number in DEFAULT_RULES.items() if rule != "too_long"}
    assert apply_rules(caption, PROMPT)[1] is not None
    apply_rules(caption + "x", PROMPT, without)


@pytest.mark.skipif(not (SHARED / "data" / "flags").exists(), reason="the flags are not beside the repository")
def test_real_captions():
    paths = (SHARED / "data" / "flags").glob("*/metadata.jsonl")
    captions = [text for path in paths for line in path.open() for text in json.loads(line)["long_captions"]]
    assert len(captions) == 233
    generator = np.random.default_rng(0)
    for caption in captions:
        assert apply_rules(caption, PROMPT) == (caption, None, [])
        announced = f"{PROMPT} The image shows {caption}"
        assert apply_rules(announced, PROMPT)[0] == caption[0].upper() + caption[1:]
        # cut off anywhere, nothing but the sentence that was cut is lost
        cut = caption[: generator.integers(len(caption) // 2, len(caption) - 1)]
        text, rejected_by, _ = apply_rules(cut, PROMPT)
        assert rejected_by is None and cut.startswith(text)
        assert len(split_sub_captions(cut[len(text) :], "sentences")) <= 1


def test_names_and_numbers_of_rules():
    assert read_rules(["all"], []) == DEFAULT_RULES
    assert read_rules(["all", "too_short=8"], ["refusal"]) == {
        name: 8 if name == "too_short" else number for name, number in DEFAULT_RULES.items() if name != "refusal"
    }
    for names, without, message in (
        (["too_shor"], [], "too_shor` names no rule"),
        (["all"], ["dup"], "`--without_rule dup`"),
        (["refusal=3"], [], "has no number"),
        (["too_short=few"], [], "needs a whole number"),
        (["too_short=0"], [], "needs a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            read_rules(names, without)


def rows_of_captions() -> list[dict]:
    """Two captioners on 12 images: a caption of six images, two of the same file, a failure, a mark, a refusal."""
    rows = []
    for image in range(12):
        texts = {
            "blip": "A picture of some things." if image < 6 else f"Picture number {image} of a boat.",
            "llava": BOAT,
        }
        texts["llava"] = f"The image shows boat {image}. {BOAT}"
        for captioner, caption in texts.items():
            digest = hashlib.sha256(str(max(image, 1)).encode()).hexdigest()  # 0 and 1 are the same file
            row = {"key": f"{image:04}", "url": None, "sha256": digest, "caption": caption, "captioner": captioner}
            row |= {"revision": None, "prompt": PROMPT, "generation_settings": "{}", "num_tokens": image}
            rows.append(row | {"rejected_by": None, "error": ""})
    rows[21] |= {"caption": None, "error": "timeout"}
    rows[23] |= {"rejected_by": "of_the_past"}
    rows[19] |= {"caption": "I cannot see the image."}
    return rows


SCHEMA = pa.schema(
    [(name, pa.int64() if name == "num_tokens" else pa.string()) for name in rows_of_captions()[0]],
    metadata={"note": "kept"},
)


@pytest.fixture
def captions_dir(tmp_path) -> Path:
    """Two shards in each of the formats."""
    folder = tmp_path / "captions"
    folder.mkdir()
    for shard, rows in enumerate((rows_of_captions()[:10], rows_of_captions()[10:])):
        parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / f"{shard}.parquet", row_group_size=4)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{shard}.jsonl").write_text(lines)
        with gzip.open(folder / f"{shard}.jsonl.gz", "wt") as file:
            file.write(lines)
    return folder


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the script; returns its report."""

    def run(captions, output: str, *arguments) -> dict:
        argv = ["filter_captions.py", "--captions", captions, "--output_dir", tmp_path / output, *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, argv)))
        filter_captions.main()
        report = tmp_path / output / "report"
        assert (report / "report.md").read_text().startswith("# Captions")
        return json.loads((report / "report.json").read_text())

    return run


def read_folder(folder: Path, suffix: str) -> list[dict]:
    paths = sorted(folder.glob(f"*{suffix}"))
    assert [path.name for path in paths] == [f"0{suffix}", f"1{suffix}"]
    return [row for path in paths for rows in read_rows(path) for row in rows]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".jsonl.gz"])
def test_files(captions_dir, run, tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(files, "ROWS_PER_BATCH", 3)
    report = run(captions_dir / f"*{suffix}", "out", "--rules", "all", "duplicate=4")
    before, after = rows_of_captions(), read_folder(tmp_path / "out", suffix)
    if suffix != ".parquet":
        assert {row["rejected_by"] for row in after} == {"", "duplicate", "refusal", "of_the_past"}
        after = [{**row, "rejected_by": row["rejected_by"] or None} for row in after]
    expected = [None] * 24
    expected[19], expected[23] = "refusal", "of_the_past"
    expected[10] = "duplicate"  # of the images 0 to 5, of which 0 and 1 are one, the fifth
    assert [row["rejected_by"] for row in after] == expected
    for old, new in zip(before, after):
        assert {**old, "caption": None, "rejected_by": None} == {**new, "caption": None, "rejected_by": None}
    assert after[1]["caption"] == f"Boat 0. {BOAT}" and after[21]["caption"] is None
    assert after[19]["caption"] == before[19]["caption"] and after[23]["caption"] == before[23]["caption"]
    llava = report["captioners"]["llava"]
    assert llava == {
        "num_captions": 12,
        "num_failed": 1,
        "num_kept": 9,
        "rejected": {"refusal": 1, "of_the_past": 1},
        "changed": {"announcement": 9},
    }
    assert report["captioners"]["blip"]["num_kept"] == 11 and report["rules"]["duplicate"] == 4
    (example,) = report["examples"]["refusal"]["llava"]
    assert example == {"rejected": "I cannot see the image."}
    assert len(report["examples"]["announcement"]["llava"]) == NUM_EXAMPLES

    # a second time nothing changes
    again = run(tmp_path / "out" / f"*{suffix}", "again", "--rules", "all", "duplicate=4")
    for shard in (f"0{suffix}", f"1{suffix}"):
        content = [list(read_rows(tmp_path / folder / shard)) for folder in ("out", "again")]
        assert content[0] == content[1]
    assert {name: of["rejected"] for name, of in again["captioners"].items()} == {
        name: of["rejected"] for name, of in report["captioners"].items()
    }
    assert not any(of["changed"] for of in again["captioners"].values())
    # and the files are read as side files
    captions = SideCaptions([str(tmp_path / "out" / f"*{suffix}")], "key", ["caption"])
    assert captions["0000"] == ["A picture of some things.", f"Boat 0. {BOAT}"]
    assert captions["0005"] == [f"Boat 5. {BOAT}"] and captions["0011"] == ["Picture number 11 of a boat."]
    if suffix == ".parquet":
        assert parquet.read_schema(tmp_path / "out" / "0.parquet").equals(SCHEMA, check_metadata=True)


def test_other_files(run, tmp_path):
    """Columns of another name, and none of what `recaption.py` writes beside the caption."""
    table = pa.table({"id": [1, 2], "text": [f"The image shows a dog. {BOAT}", "Dog."], "box": [[1, 2], []]})
    parquet.write_table(table, tmp_path / "other.parquet")
    report = run(tmp_path / "other.parquet", "out", "--caption_column", "text", "--without_rule", "duplicate")
    assert report["captioners"]["captions"]["num_kept"] == 1
    assert parquet.read_table(tmp_path / "out" / "other.parquet").to_pylist() == [
        {"id": 1, "text": f"A dog. {BOAT}", "box": [1, 2], "rejected_by": None},
        {"id": 2, "text": "Dog.", "box": [], "rejected_by": "too_short"},
    ]
    with pytest.raises(ValueError, match="`--caption_column caption` is no column .* has .*'text'"):
        run(tmp_path / "other.parquet", "out")


def test_nothing_is_kept(captions_dir, run, capsys):
    """The report, for which nothing is loaded, says why."""
    options = ["--report", "--tokenizer_path", "nothing", "--dual_encoder", "nothing"]
    report = run(captions_dir / "*.parquet", "out", "--rules", "too_short=100", *options)
    assert {name: of["num_kept"] for name, of in report["captioners"].items()} == {"blip": 0, "llava": 0}
    assert report["captioners"]["llava"]["rejected"] == {"too_short": 10, "of_the_past": 1}
    assert "statistics" not in report and "No caption is kept" in capsys.readouterr().out


def test_bad_files(captions_dir, run, tmp_path):
    (captions_dir / "1.parquet").write_bytes((captions_dir / "1.parquet").read_bytes()[:-20])
    (captions_dir / "1.jsonl").write_text('{"caption": "a"}\n{"capt')
    for suffix, message in (
        (".parquet", "1.parquet is no parquet file"),
        (".jsonl", "Line 2 of .*1.jsonl is no JSON"),
    ):
        with pytest.raises(ValueError, match=message):
            run(captions_dir / f"*{suffix}", "out")
        assert list((tmp_path / "out").iterdir()) == []  # nothing by halves
    with pytest.raises(ValueError, match="names no file"):
        run(captions_dir / "*.csv", "out")
    with pytest.raises(ValueError, match="is the folder of"):
        run(captions_dir / "0.parquet", "captions")
    parquet.write_table(SCHEMA.empty_table(), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="have no rows"):
        run(tmp_path / "empty.parquet", "empty")
    run(captions_dir / "0.parquet", "out")
    with pytest.raises(ValueError, match="holds other captions, such as 0.parquet"):
        run(captions_dir / "0.jsonl", "out")


def test_report_of_lengths_and_agreement(captions_dir, run, tmp_path):
    words = sorted({word for row in rows_of_captions() for word in (row["caption"] or "").lower().split()})
    vocab = {
        word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *words])
    }
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**small, vocab_size=len(vocab), initializer_range=0.5)).save_pretrained(tmp_path / "bert")
    BertTokenizer(vocab=vocab).save_pretrained(tmp_path / "bert")
    options = ["--report", "--tokenizer_path", tmp_path / "bert", "--text_model", tmp_path / "bert"]
    report = run(captions_dir / "*.parquet", "out", *options, "--num_lowest", "2")
    assert (tmp_path / "out" / "report" / "lengths.png").stat().st_size > 1000
    kept = [row for row in read_folder(tmp_path / "out", ".parquet") if row["caption"] and not row["rejected_by"]]
    for captioner, statistics in report["statistics"].items():
        rows = [row for row in kept if captioner in ("all", row["captioner"])]
        assert statistics["num_images"] == len({row["key"] for row in rows}) and statistics["num_texts"] == len(rows)
        split = [len(split_sub_captions(row["caption"])) for row in rows]
        assert statistics["sub_captions_per_text"] == pytest.approx(sum(split) / len(rows))

    model, tokenizer = AutoModel.from_pretrained(tmp_path / "bert"), AutoTokenizer.from_pretrained(tmp_path / "bert")
    pairs = {}
    for row in kept:
        text = join_sub_captions(split_sub_captions(row["caption"]))
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        pairs.setdefault(row["key"], []).append(states.mean(dim=0))
    scores = {key: torch.cosine_similarity(*both, dim=0).item() for key, both in pairs.items() if len(both) == 2}
    agreement = report["agreement"]["blip / llava"]
    assert agreement["num_images"] == len(scores)
    assert agreement["mean"] == pytest.approx(sum(scores.values()) / len(scores), abs=1e-5)
    lowest = sorted(scores.values())[:2]
    assert [low["similarity"] for low in agreement["lowest"]] == pytest.approx(lowest, abs=1e-5)
    # of fewer images, the same ones in every run
    for _ in range(2):
        few = run(captions_dir / "*.parquet", "out", *options, "--max_report_images", "3")["agreement"]
        assert few["blip / llava"]["num_images"] <= 3


def test_captions_unlike_their_images(run, tmp_path, model_dir):
    scenes = load_scenes(8, seed=5)
    files = [row["image"]["bytes"] for row in undecoded(scenes, "image")]
    digests = [hashlib.sha256(file).hexdigest() for file in files]
    texts = {"llava": "a photo of a {} boat. the ground is sand.", "blip": "the tree is {} and {}. a house."}
    colors = ["red", "green", "blue", "yellow", "sea", "sand", "house", "tree"]
    rows = [
        {"key": None, "sha256": digest, "captioner": captioner, "caption": text.format(color, color)}
        for captioner, text in texts.items()
        for digest, color in zip([*digests[:7], "f" * 64], colors)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "captions.parquet")
    scenes.save_to_disk(tmp_path / "scenes")
    images = ["--dataset_name", tmp_path / "scenes", "--key_column", "image", "--side_key_column", "sha256"]
    options = ["--dual_encoder", model_dir, *images, "--batch_size", "3", "--eval_split", "train"]

    model, processor = AutoModel.from_pretrained(model_dir).eval(), AutoProcessor.from_pretrained(model_dir)
    expected = {}
    for row in rows:
        if row["sha256"] in digests:
            image = scenes[digests.index(row["sha256"])]["image"]
            text = join_sub_captions(split_sub_captions(row["caption"]))  # as evaluations read it
            with torch.inference_mode():
                outputs = model(**processor(text=[text], images=image, return_tensors="pt"))
            similarity = torch.cosine_similarity(outputs.text_embeds, outputs.image_embeds).item()
            expected[row["captioner"], row["sha256"]] = similarity
    threshold = sorted(expected.values())[5] + 1e-4

    report = run(tmp_path / "captions.parquet", "out", *options, "--min_image_text_similarity", threshold)
    for row in parquet.read_table(tmp_path / "out" / "captions.parquet").to_pylist():
        is_unlike = expected.get((row["captioner"], row["sha256"]), 1) < threshold
        assert row["rejected_by"] == ("image_text_similarity" if is_unlike else None)
    found = report["image_text_similarity"]
    assert {name: of["num_captions"] for name, of in found["captioners"].items()} == {"blip": 7, "llava": 7}
    assert found["lowest"][0]["similarity"] == pytest.approx(min(expected.values()), abs=1e-5)
    assert not (tmp_path / "out" / ".judged").exists()
    # without a threshold they are listed only
    listed = run(tmp_path / "captions.parquet", "listed", *options, "--report", "--tokenizer_path", model_dir)
    assert listed["image_text_similarity"] == found
    with pytest.raises(ValueError, match="None of 8 images has a caption"):
        run(tmp_path / "captions.parquet", "none", *options[:-6], "--side_key_column", "captioner", "--report")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--text_model", "bert"],
        ["--dual_encoder", "clip"],
        ["--min_image_text_similarity", "0.2"],
        ["--report", "--num_lowest", "0"],
    ],
)
def test_arguments_that_do_not_go_together(run, arguments, capsys):
    with pytest.raises(SystemExit):
        run("captions/*.parquet", "out", *arguments)
    assert arguments[-2] in capsys.readouterr().err
