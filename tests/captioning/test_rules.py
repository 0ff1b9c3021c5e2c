"""Rules for captions that models wrote."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_lotlip.captioning.rules import DEFAULT_RULES, apply_rules, is_repetitive, read_rules
from modeling_lotlip.sub_captions import split_sub_captions
from tests.conftest import SHARED


PROMPT = "Describe this image in detail."
BOAT = "A red boat lies on the beach, half in the sand. Behind it the sea is calm."

# What captioners write, and what must become of it: a text, or the rule that rejects it
BAD_CAPTIONS = {
    "the prompt of a LLaVA": (f"USER: <image>\n{PROMPT} ASSISTANT: {BOAT}", BOAT),
    "the prompt in other case, twice": (f"describe this image in detail.  {PROMPT}\n\n{BOAT}", BOAT),
    "nothing but the prompt": (f"{PROMPT}\n", "prompt_echo"),
    "words that begin like the prompt": (f"Describe this image in detailed words. {BOAT}",) * 2,
    "thoughts": (f"<think>\nA boat? The user wants prose.\n</think>\n\n{BOAT}", BOAT),
    "thoughts without a beginning": (f"A boat? The user wants prose.\n</think>\n\n{BOAT}", BOAT),
    "thoughts without an end": (f"<think>A boat? The user wants prose. {BOAT}", "reasoning"),
    "long thoughts": (f"<thinking>{'So is it a boat? ' * 200}</thinking><answer>{BOAT}</answer>", BOAT),
    "JSON": (f'{{"caption": "{BOAT}"}}', BOAT),
    "JSON in a fence": (f'Here it is:\n```json\n{{"description": "{BOAT}", "tags": ["boat"]}}\n```\nEnjoy!', BOAT),
    "a list in JSON": ('["A red boat on the sand.", "A calm sea."]', "A red boat on the sand. A calm sea."),
    "JSON that was cut off": ('{"caption": "A red boat lies on the beach. The', "structure"),
    "several texts in JSON": ('{"foreground": "A red boat on sand.", "background": "A calm sea."}', "structure"),
    "a fence": (f"```\n{BOAT}\n```", BOAT),
    "brackets": (f"[A sign] {BOAT}",) * 2,
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
    *("The image", "</s>", "<think>", "</think>", "<answer>", "```", "```json\n", '{"caption": "', '"}', '["', '"]'),
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
    "too_long=20": (different_words(20), different_words(21)),
    "too_short": ("One two three four five.", "One two three four."),
    "too_short=8": (different_words(8), different_words(7)),
    "repetition": (sentences(3, "is red"), sentences(4, "is red")),
    "repetition=2": (sentences(1, "is red"), sentences(2, "is red")),
    # a sentence counts from three words on
    "repetition=3": ("Two boats. A car. Two boats. The sea. Two boats.", "It is so. A car. It is so. Sea. It is so."),
}
# Phrases in a row: so many times, of at least eight words in all, and at most thirty in one
PHRASES = {
    "a phrase three times": ("Here " + "a chair and a table " * 3, "Here " + "a chair and a table " * 4),
    "eight words in all": ("See " + "big " * 7 + "boat", "See " + "big " * 8 + "boat"),
    "two words, eight in all": ("See " + "big red " * 3 + "boat", "See " + "big red " * 4 + "boat"),
    "thirty words": (
        "Here " + (different_words(31).replace(".", "") + " ") * 4,
        "Here " + (different_words(30).replace(".", "") + " ") * 4,
    ),
    "the last time half": (
        "On " + "a chair and a table " * 3 + "a chair",
        "On " + "a chair and a table " * 4 + "a chair",
    ),
}


@pytest.mark.parametrize("rule", BOUNDS)
def test_bounds_of_a_rule(rule):
    rules = read_rules([rule], [])
    passing, rejected = BOUNDS[rule]
    assert apply_rules(passing, None, rules) == (passing, None, [])
    assert apply_rules(rejected, None, rules) == (rejected, rule.partition("=")[0], [])


@pytest.mark.parametrize("name", PHRASES)
def test_bounds_of_repeated_phrases(name):
    passing, rejected = PHRASES[name]
    assert not is_repetitive(passing, 4)
    assert is_repetitive(rejected, 4)


PARTS = ["a ", "A red boat. ", '."', "\n", PROMPT, "The image shows ", "- a boat\n", "1. a 2. b ", "**a", "Sure! "]


@pytest.mark.parametrize("part", [*PARTS, "<think>", "</think> ", '{"', "["])
def test_a_quarter_of_a_megabyte_is_no_trouble(part):
    caption = part * (2**18 // len(part))
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
