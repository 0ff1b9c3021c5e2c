"""Rules for captions that models wrote."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_lotlip.captioning.arguments import RuleArguments
from modeling_lotlip.captioning.quotations import mask_quotations
from modeling_lotlip.captioning.rules import RULES, apply_rules, is_repetitive
from tests.captioning.caption_table import ANNOUNCED, GOOD, MENDED, REJECTED
from tests.conftest import SHARED
from tests.helpers.caption_files import BOAT


# What captioners write, and what must become of it: a text, or the rule that rejects it
BAD_CAPTIONS = {
    "thoughts": (f"<think>\nA boat? The user wants prose.\n</think>\n\n{BOAT}", BOAT),
    "thoughts without a beginning": (f"A boat? The user wants prose.\n</think>\n\n{BOAT}", BOAT),
    "long thoughts": (f"<thinking>{'So is it a boat? ' * 200}</thinking><answer>{BOAT}</answer>", BOAT),
    "refusal with a curly apostrophe": ("I’m unable to see the picture. Could you describe it to me?", "refusal"),
    "an AI at the end": (f"{BOAT} As an AI language model, I do not know whose it is.", "refusal"),
    "laughter": (f'{BOAT} A cartoon says "HA HA HA HA HA".',) * 2,
    "thoughts without an end": (f"<think>A boat? The user wants prose. {BOAT}", "reasoning"),
    "JSON": (f'{{"caption": "{BOAT}"}}', "structure"),
    "JSON in a fence": (f'Here it is:\n```json\n[{{"description": "{BOAT}"}}]\n```\nEnjoy!', "structure"),
    "a fence": (f"```\n{BOAT}\n```", BOAT),
    "a fence with line ends of Windows": (f"```markdown\r\n{BOAT}\r\n```", BOAT),
    "a speaker with a line end of Windows": (f"assistant\r\n{BOAT}", BOAT),
    "brackets": (f"[A sign] {BOAT}",) * 2,
    "refusal": ("I'm sorry, but I cannot assist with identifying people in images.", "refusal"),
    "no image": ("It seems that no image was provided. Please upload the image you want described.", "refusal"),
    "a sign that is sorry": (f'{BOAT} A sign reads "Sorry, we are closed" and "I am afraid of dogs".',) * 2,
    "a sentence without end": (f"{BOAT} {'There is a person in the background. ' * 12}There is a", "repetition"),
    "a phrase without end": (f"{BOAT} Beside it {'a chair, and a table, and ' * 9}a chair", BOAT),
    "nothing but a phrase without end": ("There is " + "a chair, and a table, and " * 9, "repetition"),
    "one word without end": ("a red red red red red red red red red red red boat", "repetition"),
    "cut off": (f"{BOAT} In the distance, there are several smaller boats and a", BOAT),
    "one sentence without a full stop": ("a red boat on the beach",) * 2,
    "two words": ("Red boat.", "too_short"),
    "a novel": (BOAT * 50, "too_long"),
    "a numbered list": (
        "Things that are in it:\n\n1. A red boat\n2. Two **white** dogs;\n(3) A lighthouse.",
        "Things that are in it:\n\nA red boat\nTwo white dogs;\nA lighthouse.",
    ),
    "decimals and years": ("The boat is 3.5 m long. It was built in 1920. 2. Bundesliga is written on it.",) * 2,
    "an announcement": (f"Sure! Here is a detailed description of the image:\n\n{BOAT}", BOAT),
    "an announcement with content": (f"The image shows two boats. {BOAT}", f"Two boats. {BOAT}"),
    "a polite model": (f"I'd be happy to describe this image. Here's what I can see in the image:\n{BOAT}", BOAT),
    "only an announcement": ("Here's a caption for your image:", "announcement"),
    "the medium": ("This is a watercolor of a red boat.",) * 2,
    "Chinese": ("一艘红色的船停在沙滩上。海面很平静。",) * 2,
}  # fmt: skip


@pytest.mark.parametrize("caption", GOOD)
def test_a_good_caption_stays_as_it_is(caption):
    assert apply_rules(caption) == (caption, None, [])


@pytest.mark.parametrize("caption", MENDED)
def test_what_models_leave_around_a_caption_is_removed(caption):
    text, rejected_by, _ = apply_rules(caption)
    assert (text, rejected_by) == (MENDED[caption], None)


@pytest.mark.parametrize(("announcement", "description"), ANNOUNCED)
def test_a_description_that_is_announced_stays_without_the_announcement(announcement, description):
    text, rejected_by, changed = apply_rules(f"{announcement} {description}")
    assert text == description[0].upper() + description[1:]
    assert rejected_by is None
    assert changed == ["announcement"]


@pytest.mark.parametrize("caption", REJECTED)
def test_what_is_no_caption_is_rejected(caption):
    assert apply_rules(caption) == (caption, REJECTED[caption], [])


@pytest.mark.parametrize(
    "text, masked",
    [
        ('A sign reads "No". It', 'A sign reads "--". It'),
        ('Cut off: "No', 'Cut off: "--'),
        ('A 5" screen, "No"', 'A 5" screen, "--"'),
        ("It's the dogs' 'No', isn't it", "It's the dogs' '--', isn't it"),
        ("‘I’m’ “No” «No» „No“ 「No」", "‘---’ “--” «--» „--“ 「--」"),
        ('One "mark\n\nTwo "marks"', 'One "----\n\nTwo "-----"'),
        ('Two "lines\nof it"', 'Two "-----------"'),
    ],
)
def test_what_counts_as_a_quotation(text, masked):
    assert mask_quotations(text).replace("\0", "-") == masked


def read_published_captions(path: Path) -> list[str]:
    """Reads captions by people: of ImageInWords, of flags or of lamps."""
    captions = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        long_captions = row.get("IIW", row.get("long_captions"))
        if isinstance(long_captions, str):
            long_captions = [long_captions]
        captions += long_captions
    return captions


# Beside those of the table the captions of datasets, where these are beside the repository
BY_PEOPLE = [None, *sorted((SHARED / "data").glob("*/*/*.jsonl"))]


@pytest.mark.parametrize("path", BY_PEOPLE, ids=lambda path: "table" if path is None else "-".join(path.parts[-3:-1]))
def test_captions_that_people_wrote_are_neither_cut_nor_rejected(path):
    """Some are longer than a captioner's may be."""
    captions = GOOD if path is None else read_published_captions(path)
    outcomes = {caption: apply_rules(caption, max_words=1000) for caption in captions}
    rejected = {caption: rule for caption, (_, rule, _) in outcomes.items() if rule is not None}
    assert rejected == {}
    changed = {caption[:28]: rules for caption, (_, _, rules) in outcomes.items() if rules}
    assert changed == {}


@pytest.mark.parametrize(
    "caption, expected",
    [
        (f"{BOAT} Behind it", (BOAT, None, ["cut_off"])),
        (f"{BOAT} Behind it lies a fishing net", (BOAT, None, ["cut_off"])),
        (f"- {BOAT}\n- Two dogs.\n- A light", (f"{BOAT}\nTwo dogs.", None, ["cut_off", "lists"])),
        (BOAT, (BOAT, None, [])),
        ("A red boat that lies on", ("A red boat that lies on", "cut_off", [])),
    ],
)
def test_of_an_answer_that_is_known_to_be_cut_off_the_last_sentence_goes(caption, expected):
    assert apply_rules(caption, is_cut_off=True) == expected


@pytest.mark.parametrize("caption", [f"{BOAT} Behind it lies a fishing net", "A red boat that lies on"])
def test_without_the_rule_an_answer_that_was_cut_off_stays(caption):
    rules = RULES.keys() - {"cut_off"}
    assert apply_rules(caption, rules, is_cut_off=True) == (caption, None, [])


@pytest.mark.parametrize("name", BAD_CAPTIONS)
def test_what_becomes_of_bad_captions(name):
    caption, expected = BAD_CAPTIONS[name]
    text, rejected_by, changed = apply_rules(caption)
    if expected in RULES:
        assert (text, rejected_by, changed) == (caption, expected, [])
        assert apply_rules(caption, RULES.keys() - {expected})[1] != expected
    else:
        assert (text, rejected_by) == (expected, None)
        assert bool(changed) == (caption != expected)


FRAGMENTS = [
    *("The image shows", "In this image, you can see", "Sure!", "Description:", "that"),
    *("Here is a caption:", "1.", "2)", "- ", "* ", "# ", "**", "__", "\n", "\n\n", " ", ". ", ".", "!", '"', ":"),
    *("A red boat lies here", "It is 3.5 m long", "Mr.", "and a dog and a dog", "I'm sorry", "船。", "\u00a0", "é"),
    *("The image", "</s>", "<think>", "</think>", "<answer>", "```", "```json\n", '{"caption": "', '"}', '["', '"]'),
]  # fmt: skip
CAPTIONS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8), max_size=25).map(" ".join) | st.lists(
    st.sampled_from(FRAGMENTS), max_size=25
).map("".join)


@settings(max_examples=150, deadline=None)
@given(CAPTIONS, st.sets(st.sampled_from(sorted(RULES))))
def test_rules_leave_alone_what_they_made(caption, rules):
    text, rejected_by, changed = apply_rules(caption, rules)
    assert (text == caption) == (not changed) or rejected_by is None
    if rejected_by is not None:
        assert text == caption
        assert changed == []
        assert rejected_by in rules
    assert apply_rules(text, rules) == (text, rejected_by, [])


def different_words(number: int) -> str:
    """So many words, none of which comes twice, in sentences of eleven."""
    words = [f"w{chr(97 + n // 676)}{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}" for n in range(number)]
    return " ".join(word + "." * (n % 11 == 10 or n == number - 1) for n, word in enumerate(words))


def sentences(number: int, words: str) -> str:
    """A sentence so many times, each time behind another one."""
    return " ".join(f"Number{chr(97 + n)} is {chr(97 + n)} thing. The boat {words}." for n in range(number))


# What a rule just lets pass, and what it just rejects
BOUNDS = {
    "too_long": (different_words(500), different_words(501)),
    "too_short": ("One two three four five.", "One two three four."),
    "repetition": (sentences(3, "is red"), sentences(4, "is red")),
}
# Phrases in a row: so many times, of at least eight words in all, and at most thirty in one
PHRASES = [
    ("Here " + "a chair and a table " * 3, "Here " + "a chair and a table " * 4),
    ("See " + "big red " * 3 + "boat", "See " + "big red " * 4 + "boat"),
    ("On " + "a chair and a table " * 3 + "a chair", "On " + "a chair and a table " * 4 + "a chair"),
    tuple("Here " + (different_words(number).replace(".", "") + " ") * 4 for number in (31, 30)),
]


@pytest.mark.parametrize("rule", BOUNDS)
def test_bounds_of_a_rule(rule):
    passing, rejected = BOUNDS[rule]
    assert apply_rules(passing, [rule]) == (passing, None, [])
    assert apply_rules(rejected, [rule]) == (rejected, rule, [])


@pytest.mark.parametrize(
    "text, num_words",
    [
        ("A boat of the 1920s", 5),
        ("Bob’s well-lit boat isn't 3.5 m long, 1,200 kg", 9),
        ("Boats, cars,trees - and - so on", 6),
        ("एक लाल नाव समुद्र तट पर दिखाई देती है", 9),
        (unicodedata.normalize("NFD", "Über dem Fluß hängen größere Blätter"), 6),
        ("می‌خواهم بروم", 2),
        ("一艘红色的船", 6),
        ("เรือสีแดงอยู่บนหาด", 5),
    ],
    ids=["English", "joined", "not joined", "Hindi", "decomposed German", "Persian", "Chinese", "Thai"],
)
def test_words_are_counted_in_any_script(text, num_words):
    rules = ["too_short", "too_long"]
    assert apply_rules(text, rules, min_words=num_words, max_words=num_words)[1] is None


def test_numbers_in_other_digits_are_no_repetition():
    assert not is_repetitive("เรือสีแดง โทร ๐๘๑๒๓๔๕๖๗๘")
    assert is_repetitive("เรืออยู่บนหาดทรายและมีนกบินอยู่เหนือน้ำทะเล " * 5)


def test_other_numbers_of_words():
    assert apply_rules("Red boat.", ["too_short"], min_words=2)[1] is None
    assert apply_rules("Red boat.", ["too_long"], max_words=1)[1] == "too_long"


@pytest.mark.parametrize(("passing", "rejected"), PHRASES)
def test_bounds_of_repeated_phrases(passing, rejected):
    assert not is_repetitive(passing)
    assert is_repetitive(rejected)


@pytest.mark.parametrize("part", ["A red boat. ", "\n", "The image shows ", "- a boat\n", "**a", "<think>", '{"', "["])
def test_a_quarter_of_a_megabyte_is_no_trouble(part):
    caption = part * (2**18 // len(part))
    assert apply_rules(caption)[1] is not None
    apply_rules(caption + "x", RULES.keys() - {"too_long"})


@pytest.mark.parametrize(("num_characters", "rejected_by"), [(80, None), (81, "too_long")])
def test_a_caption_of_few_endless_words_is_too_long(num_characters, rejected_by):
    assert apply_rules("x" * num_characters, ["too_long", "lists"], max_words=2)[1] == rejected_by


def test_thoughts_do_not_count_as_a_part_of_a_long_caption():
    """However long they are, unless they are no thoughts by the rules that are named."""
    thoughts = f"<think>{'So is it a boat? ' * 2000}</think>\n\n"
    assert apply_rules(thoughts + BOAT, max_words=100) == (BOAT, None, ["reasoning"])
    assert apply_rules(thoughts + BOAT * 50, max_words=100)[1] == "too_long"
    assert apply_rules(thoughts + BOAT, RULES.keys() - {"reasoning"}, max_words=100)[1] == "too_long"


@pytest.mark.parametrize(
    ("last", "is_dropped"),
    [("Behind the house", True), ("Behind the old house", False), ("Two, three:", True), ("It is red", False)],
)
def test_a_last_sentence_that_breaks_off_is_dropped(last, is_dropped):
    text, _, changed = apply_rules(f"{BOAT} {last}", ["cut_off"])
    assert text == (BOAT if is_dropped else f"{BOAT} {last}")
    assert changed == ["cut_off"] * is_dropped


def test_rules_are_left_out_one_by_one_or_all_at_once():
    assert RuleArguments(without_rules=["all"]).rules == []
    assert RuleArguments(without_rules=["lists", "refusal"]).rules == [
        name for name in RULES if name not in ("lists", "refusal")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"without_rules": ["too_short"], "min_words": 50},
            "--min_words has no effect with --without_rules too_short",
        ),
        (
            {"without_rules": ["lists", "too_long"], "max_words": 9},
            "--max_words has no effect with --without_rules lis",
        ),
        (
            {"without_rules": ["all"], "max_words": 9},
            "--max_words has no effect with --without_rules all: leave it out",
        ),
    ],
)
def test_a_number_of_words_without_its_rule_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RuleArguments(**options)


def test_a_number_of_words_beside_another_rule_is_taken():
    assert RuleArguments(without_rules=["too_long"], min_words=50).min_words == 50
