# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Rules for captions that models have written: edits, which mend a caption, and rejections, which mark it.

The edits are repeated until they change nothing; then the first rejection that holds marks the caption, which stays as
it was written. So a caption that went through the rules once is left alone by them. A good caption must go through
unharmed, which counts for more than to find every bad one; what is quoted in a caption is left alone (see
[`mask_quotations`]).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import eq

from ..utils.sub_captions import split_sentences
from .phrases import (
    ANNOUNCEMENT,
    BEGINS_AS_WRITTEN,
    IT_WAS_MADE,
    OFFER,
    OTHER_PICTURE,
    PREFIX,
    REFUSAL,
    RELATIVE,
    SECOND_VERB,
    SPOKEN,
)
from .quotations import (
    QUOTATION,
    fill,
    mask_quotations,
    remove_outside_quotations,
    replace_outside_quotations,
)


# Chinese and Japanese characters are words of their own. By these words texts are compared; where they are counted,
# marks such as the vowel signs of Hindi, which are no letters for `re`, and joiners are inside of words, and four
# characters of Thai, Lao, Burmese and Khmer, which have no blanks between words, are one.
IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u9fff"
WITHOUT_BLANKS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
MARKS = "".join(chr(code) for code in range(0x0300, 0xFFFF) if unicodedata.category(chr(code)).startswith("M"))
WRITTEN_WORD = rf"(?:[^\W{IDEOGRAPHS}{WITHOUT_BLANKS}]+[{MARKS}\u200c\u200d]*)+"
WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\W{IDEOGRAPHS}]+")
# "isn't", "well-lit" and "3.5" count as one
JOINED_WORDS = rf"{WRITTEN_WORD}(?:(?:['’‐‑-]|(?<=\d)[.,](?=\d)){WRITTEN_WORD})*"
COUNTED_WORD = re.compile(rf"[{IDEOGRAPHS}]|[{WITHOUT_BLANKS}]{{1,4}}|{JOINED_WORDS}")
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]*]*$")


def compile_tags(opening: str, closing: str) -> tuple[re.Pattern, re.Pattern]:
    """Compiles patterns of opening and closing tags, but not of such tags in quotation marks."""
    return (
        re.compile(rf"(?<![\"“'`])(?:{opening})", re.IGNORECASE),
        re.compile(rf"(?:{closing})(?![\"”'`])", re.IGNORECASE),
    )


# What models that reason write around their thoughts, and some around their answer
THOUGHTS = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis)"
ANSWER = r"(?:answer|caption|description|response)"
# "<|channel|>analysis<|message|>It is a boat.<|end|><|start|>assistant<|channel|>final<|message|>A boat."
OPENING, CLOSING = compile_tags(
    rf"<{THOUGHTS}>|◁think▷|<\|channel\|>analysis<\|message\|>",
    rf"</{THOUGHTS}>|◁/think▷|<\|channel\|>final<\|message\|>",
)
OPENING_OR_CLOSING = re.compile(rf"(?P<opening>{OPENING.pattern})|{CLOSING.pattern}", re.IGNORECASE)
ANSWER_OPENING, ANSWER_CLOSING = compile_tags(rf"<{ANSWER}>|<\|begin_of_box\|>", rf"</{ANSWER}>|<\|end_of_box\|>")
# A tag in the middle of a sentence belongs to it: "A mug with <think> on it"
SENTENCE_START = re.compile(r"(?:^|[.!?…。！？>\n][\"'”’»)\]*]*)\s*$")
MIDDLE_OF_SENTENCE = re.compile(r"[ \t]*[^\W\d_]")
NUM_CHARACTERS_BEFORE = 20  # a tag, which are looked at
FENCE = re.compile(r"^[ \t]*```[\w-]*[ \t]*\r?$\n?", re.MULTILINE)

# Marks of a chat: of the prompt before an answer, of the turn after it, and of the ends of texts. `</s>` inside a text
# stays: it ends sub-captions.
PROMPT = re.compile(
    r"(?:\s|</?s>)*(?:\[INST\].{0,4000}?\[/INST\]|USER:.{0,4000}?ASSISTANT:"
    # "User: Describe it. Assistant: A red boat", but not "User: Ann and Assistant: Ben are on badges"
    r"|(?P<speaker>(?:(?i:User)|Human):).{0,4000}?[.!?…\n][\"'”’)]*\s*(?i:Assistant):(?=\s))",
    re.DOTALL,
)
TURN = re.compile(
    r"\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<end_of_utterance>|### ?(?:Human|Instruction|User|Assistant):"
    r"|<\|(?:im_start|im_end|endoftext|end_of_text|eot_id|start_header_id|end_header_id|user|assistant|system|end|return)\|>"
)
# Who speaks, after the mark of a turn: "<|im_start|>assistant"; or alone in the first line, where marks were left out
SPEAKER = (
    r"(?:<\|(?:im_start|start_header_id)\|>|<start_of_turn>)\s?(?:assistant|model)(?:<\|end_header_id\|>|\s)"
    r"|\A\s*(?:assistant|ASSISTANT|model)[ \t]*\r?\n"
)
USER = re.compile(r"\bUSER:")
# The next turn of a text that has begun with such a prompt
NEXT_SPEAKER = re.compile(r"(?:^|(?<=[.!?…\"'”’)])\s+|\n)(?:(?i:User)|Human):\s")
# A mark in the middle of a sentence belongs to it: "A T-shirt with [INST] printed on it"
WORD_BEFORE = re.compile(r"[\w,;:\"”’)-][ \t]+\Z")
WORD_AFTER = re.compile(r",?[ \t]+[a-z]")
TEXT_END = r"</?s>|<bos>|<eos>|<pad>|<unk>"
LEADING_MARKS = re.compile(rf"(?:{SPEAKER}|\s|{TEXT_END}|{TURN.pattern})*")
TRAILING_MARK = re.compile(rf"(?:{TEXT_END})\Z")
# An object or a list as the whole answer, or an object with a key that captioners choose at the start of a line
JSON_KEYS = "answer|caption|captions|content|description|image|objects|response|scene|text"
JSON = re.compile(
    r"\A\s*\{\s*[\"'][\w -]+[\"']\s*:|\A\s*\[\s*(?:[\"'][^\[\]]*(?:\]\s*)?\Z|\{\s*[\"'])"
    rf"|^[ \t]*(?:\[\s*)?\{{\s*[\"'](?:{JSON_KEYS})[\"']\s*:",
    re.MULTILINE,
)

# The marks of lists and headings. A single number may be part of the text, as in "2. Bundesliga", "# 1 fan" and
# "- 5 degrees", and so may a mark, as in "* * * are printed" and "+ is engraved on one end of the battery".
MARK = re.compile(
    r"^[ \t]*(?:#(?![ \t]+\d+(?:[ \t]|$))|#{2,6}|[-+–](?![ \t]+\d)|[*•‣])"
    r"(?![ \t]+(?:\*(?:\s|\Z)|(?:and|are|is|marks|means|of|or|stands|was|were)\b))(?:[ \t]+|$)",
    re.MULTILINE,
)
SIGN = re.compile(r"^[ \t]*[-+–][ \t]+(?=\d)", re.MULTILINE)
NUMBER_MARK = re.compile(r"^[ \t]*\(?\d{1,2}[.)](?:[ \t]+|$)", re.MULTILINE)
# Bold print, but neither `2**3` nor `__init__`
EMPHASIS = re.compile(r"(?<!\w)(?:\*\*(?=\S)([^*_\n]{1,200})\*\*|__(?=\S)([^*_\n ]+ [^*_\n]{1,200})__)(?!\w)")

# Words that a sentence hardly ends with
UNFINISHED = set(
    "a an the and or but nor of at to from with for into onto between as which whose is are was were has have "
    "been its their my your very".split()
)
# But some do: "what the dog looks at", "a ball to play with", "a meal that is paid for", "larger than it is"
SUBJECT = (
    r"(?:an?|everyone|he|her|his|i|it|its|my|nobody|one|our|people|she|someone|the|their|these|they|this|those|we|you)"
)
LAST_PREPOSITION = r"(?:at|for|from|into|of|to|with)$"
FINISHED = re.compile(
    rf"\b(?:what|where|which|who|whom|that) {SUBJECT}\b.* {LAST_PREPOSITION}"
    rf"|\bto (?!be\b)\w+ {LAST_PREPOSITION}"
    r"|\b(?:gazed|laughed|looked|stared) at$|\b(?:accounted|cared|paid) for$|\b(?:listened|spoken|talked) to$"
    rf"|\b(?:as|how|than|what|where|who)(?: \w+)? {SUBJECT}\b.* (?:are|been|has|have|is|was|were)$"
    r"|\bin[ -]between$"
    # "The first word is 'the'", and letters: "e, i, and a"
    r"|[\"'’”]$|\b\w, (?:and|or) a$",
    re.IGNORECASE,
)
MAX_CLAUSE_LENGTH = 200  # in which the beginning of such a clause is looked for
PREPOSITION = re.compile(
    r"(?:above|across|along|around|at|behind|below|beside|between|beyond|in|inside|near|next|on|over|to|under|with)\b",
    re.IGNORECASE,
)
MAX_FRAGMENT_WORDS = 3
MAX_MARK_LENGTH = 5
MAX_SENTENCE_LENGTH = 500  # in which is looked for what is said of the picture itself

# A phrase that is repeated has at most so many words, and with all its repetitions at least so many.
MAX_PHRASE_WORDS = 30
MIN_REPEATED_WORDS = 8
MIN_SENTENCE_WORDS = 3
NUM_REPETITIONS = 4
MAX_WORD_LENGTH = 40  # on average

# What each rule does; `duplicate` needs the other captions: see [`filter_captions`]
RULES = {
    "reasoning": "removes a model's thoughts before its answer (<think>); rejects what is nothing else",
    "structure": "removes ``` fences, and marks of a chat with the turns before and after; rejects JSON",
    "lists": "removes the marks of lists, headings and bold print",
    "announcement": 'removes "The image shows", "Here is a description:" from the beginning, "Let me know if" '
    "from the end; rejects what is nothing else",
    "cut_off": "drops a last sentence that breaks off",
    "too_short": "rejects fewer than --min_words words",
    "too_long": "rejects more than --max_words words",
    "refusal": "rejects refusals and talk about being an AI",
    "repetition": f"rejects a sentence that comes {NUM_REPETITIONS} times, or a phrase that does in a row",
    "duplicate": "rejects a caption that more than three images have from the same captioner",
}


def is_sentence(text: str) -> bool:
    """Says whether a text ends as a sentence does."""
    return SENTENCE_END.search(text[-50:]) is not None


def strip_reasoning(text: str) -> str:
    """Removes the thoughts before an answer, which may lack an end or a beginning, and the tags around an answer."""
    start, end = find_answer(text)
    answer = remove_tags(ANSWER_OPENING, text[start:end], begins_sentence)
    answer = remove_tags(ANSWER_CLOSING, answer, ends_sentence)
    if answer == text:
        return text
    return answer.strip()


def find_answer(text: str) -> tuple[int, int]:
    """Finds where the answer of a model that reasons begins, after its thoughts, and ends, before new ones."""
    start = 0
    end = len(text)
    is_inside_sentence = False
    for tag in OPENING_OR_CLOSING.finditer(text):
        is_inside_thoughts = end < len(text)
        if tag["opening"] is not None:
            if is_inside_thoughts:
                continue  # they may talk about tags
            if begins_sentence(text, tag):
                end = tag.start()
            else:
                is_inside_sentence = True
        elif is_inside_sentence and not is_inside_thoughts:
            is_inside_sentence = False
        elif is_inside_thoughts or ends_sentence(text, tag):
            start = tag.end()
            end = len(text)
            is_inside_sentence = False
    return start, end


def begins_sentence(text: str, tag: re.Match) -> bool:
    """Whether a tag stands where a sentence may begin."""
    before = text[max(0, tag.start() - NUM_CHARACTERS_BEFORE) : tag.start()]
    return SENTENCE_START.search(before) is not None


def ends_sentence(text: str, tag: re.Match) -> bool:
    """Whether a tag stands where a sentence may have ended: no sentence goes on after it."""
    following = MIDDLE_OF_SENTENCE.match(text, tag.end())
    return following is None or not following.group()[-1].islower() or begins_sentence(text, tag)


def remove_tags(pattern: re.Pattern, text: str, is_alone: Callable[[str, re.Match], bool]) -> str:
    """Removes the tags of a pattern that are not in the middle of a sentence, by what `is_alone` says."""
    return pattern.sub(lambda tag: "" if is_alone(text, tag) else tag.group(), text)


def strip_structure(text: str) -> str:
    """Removes the fences of a code block and what a chat leaves around an answer."""
    if "```" in text:
        text = FENCE.sub("", text).strip()
    return strip_chat(text)


def strip_chat(text: str) -> str:
    """Removes the marks of a chat, with the prompt before an answer and the turns after it."""
    rest = text
    prompt = PROMPT.match(rest)
    if prompt is not None:
        rest = rest[prompt.end() :]
    marks = LEADING_MARKS.match(rest)
    if BEGINS_AS_WRITTEN.match(rest, marks.end()) is None:  # else "<|user|> is printed on a mug"
        rest = rest[marks.end() :]
    masked = mask_quotations(rest)
    ends = [len(rest)]
    for turn in TURN.finditer(masked):
        if turn.start() > 0 and is_alone(masked, turn):
            ends.append(turn.start())
    users = [user for user in USER.finditer(masked) if is_alone(masked, user)]
    if users and masked.rfind("ASSISTANT:") > users[0].start():
        ends.append(users[0].start())
    if prompt is not None and prompt["speaker"] is not None:
        ends += [speaker.start() for speaker in NEXT_SPEAKER.finditer(masked)]
    rest = rest[: min(ends)].rstrip()
    mark = TRAILING_MARK.search(rest, len(rest) - MAX_MARK_LENGTH)
    while mark is not None:
        rest = rest[: mark.start()].rstrip()
        mark = TRAILING_MARK.search(rest, len(rest) - MAX_MARK_LENGTH)
    if rest == text.strip():
        return text
    return rest


def is_alone(text: str, mark: re.Match) -> bool:
    """Whether a mark of a chat is not in a sentence, between a word and another one in lower case."""
    before = text[max(0, mark.start() - NUM_CHARACTERS_BEFORE) : mark.start()]
    return WORD_BEFORE.search(before) is None or WORD_AFTER.match(text, mark.end()) is None


def strip_marks(text: str) -> str:
    """Removes the marks of lists, headings and bold print: a line break ends a sub-caption as it is."""
    text = replace_outside_quotations(EMPHASIS, text, lambda match: match.span(match.lastindex))
    masked = mask_quotations(text)
    num_marks = len(MARK.findall(masked)) + len(SIGN.findall(masked))
    text = remove_outside_quotations(MARK, text)
    if num_marks > 1:
        text = remove_outside_quotations(SIGN, text)
    if len(NUMBER_MARK.findall(mask_quotations(text))) > 1:
        text = remove_outside_quotations(NUMBER_MARK, text)
    return text


def strip_announcement(text: str) -> str:
    """Removes what announces a description, up to the first words of what is seen, and offers after it."""
    masked = mask_quotations(text).replace("’", "'")
    start = find_beginning(masked)
    end = len(text)
    offer = OFFER.search(masked, start)
    if offer is not None:
        end = offer.start()
    rest = text[start:end]
    if end < len(text):
        rest = rest.rstrip()
    if start > len(text) - len(text.lstrip()):
        rest = rest[:1].upper() + rest[1:]
    elif end == len(text):
        return text
    return rest


def find_beginning(text: str) -> int:
    """Finds where a description begins, after the white space and the announcements."""
    start = len(text) - len(text.lstrip())
    while True:
        match = ANNOUNCEMENT.match(text, start)
        if match is None:
            match = PREFIX.match(text, start)
            if match is None:
                return start
            if is_said_of_picture(text[match.end() : match.end() + MAX_SENTENCE_LENGTH]):
                return start
        start = match.end()


def is_said_of_picture(following: str) -> bool:
    """Says whether what follows "The picture shows" goes on about the picture itself, which must then be named."""
    clause = re.split(r"[.!?;\n]", following)[0]
    main_clause = RELATIVE.split(clause)[0]
    return (
        SECOND_VERB.search(main_clause) is not None
        or OTHER_PICTURE.search(clause) is not None
        or IT_WAS_MADE.search(following) is not None
    )


def keep_whole_sentences(text: str) -> str:
    """Removes the last sentence, or line, of a text that was cut off, if it has no end; leaves nothing if none has."""
    stripped = text.rstrip()
    sentences = split_sentences(stripped)
    if is_sentence(stripped) or not sentences:
        return text
    if not stripped.endswith(sentences[-1]):
        return ""
    return stripped.removesuffix(sentences[-1]).rstrip()


def drop_unfinished_sentence(text: str) -> str:
    """Removes the last sentence, if the one before has an end and this one breaks off; many a good one has no end."""
    sentences = split_sentences(text)
    if len(sentences) < 2 or not is_sentence(sentences[-2]) or not breaks_off(sentences[-1]):
        return text
    return keep_whole_sentences(text) or text


def breaks_off(sentence: str) -> bool:
    """Says whether a sentence breaks off: after "and a" or a comma, after "In the back", or in repetitions."""
    if is_sentence(sentence):
        return False
    words = WORD.findall(sentence.lower())
    if not words or sentence[-1] in ",;:(-–":
        return True
    is_fragment = PREPOSITION.match(sentence) is not None and len(words) <= MAX_FRAGMENT_WORDS
    is_letter = WORD.findall(sentence)[-1] == "A"  # "The key on the right is A"
    is_finished = is_letter or FINISHED.search(sentence[-MAX_CLAUSE_LENGTH:]) is not None
    is_unfinished = words[-1] in UNFINISHED and not is_finished
    return is_fragment or is_unfinished or is_repetitive(sentence)


def is_repetitive(text: str) -> bool:
    """
    Says whether a sentence, or a phrase in a row, comes `NUM_REPETITIONS` times. Numbers count as the same: a model
    that counts on without end repeats itself. A quotation counts as one word.
    """
    text = QUOTATION.sub(lambda quotation: f'"q{"".join(WORD.findall(quotation.group()))}"', text)
    counts = Counter()
    for sentence in split_sentences(text):
        words = tuple(normalize_words(sentence))
        if len(words) >= MIN_SENTENCE_WORDS:
            counts[words] += 1
    if max(counts.values(), default=0) >= NUM_REPETITIONS:
        return True
    words = normalize_words(text)
    # a repeated phrase has four words in a row that come nearly as often as itself: most texts have none
    runs_of_four = Counter(zip(words, words[1:], words[2:], words[3:]))
    if max(runs_of_four.values(), default=0) < NUM_REPETITIONS - 1:
        return False
    for length in range(1, min(MAX_PHRASE_WORDS, len(words) // 2) + 1):
        if count_repeated_words(words, length) >= max(NUM_REPETITIONS * length, MIN_REPEATED_WORDS):
            return True
    return False


def count_repeated_words(words: Sequence[str], length: int) -> int:
    """Counts the words of the longest run in which each word is the one `length` words before, with the first ones."""
    longest = 0
    for is_same, run in groupby(map(eq, words, words[length:])):
        if is_same:
            longest = max(longest, sum(1 for _ in run))
    return longest + length


def normalize_words(text: str) -> list[str]:
    """Lists the words of a text in lower case, all numbers as one."""
    words = []
    for word in WORD.findall(text.lower()):
        if word.isdecimal():
            word = "0"
        words.append(word)
    return words


def is_refusal(text: str) -> bool:
    """Says whether a captioner refuses, or talks about itself; not a chat or sign in the image."""
    masked = mask_quotations(text).replace("’", "'")
    return REFUSAL.search(SPOKEN.sub(fill, masked)) is not None


EDITS = {
    "reasoning": strip_reasoning,
    "structure": strip_structure,
    "lists": strip_marks,
    "announcement": strip_announcement,
    "cut_off": drop_unfinished_sentence,
}


@dataclass
class RuleSettings:
    """
    Sets which rules apply, and their bounds.

    Args:
        names (`Collection[str]`, *optional*):
            The names of the rules that apply, of `RULES`. By default all.
        min_words (`int`, *optional*, defaults to 5):
            Of the rule `too_short`. Each Chinese or Japanese character is a word, and four of a script without blanks.
        max_words (`int`, *optional*, defaults to 500):
            Of the rule `too_long`.
    """

    names: Collection[str] = tuple(RULES)
    min_words: int = 5
    max_words: int = 500


def find_rejection(text: str, settings: RuleSettings) -> str | None:
    """Finds the first rule that rejects a caption, which the edits have changed already."""
    num_words = len(COUNTED_WORD.findall(text))
    if "too_long" in settings.names and num_words > settings.max_words:
        return "too_long"
    if "structure" in settings.names and JSON.search(text) is not None:
        return "structure"
    if "refusal" in settings.names and is_refusal(text):
        return "refusal"
    if "repetition" in settings.names and is_repetitive(text):
        return "repetition"
    if "too_short" in settings.names and num_words < settings.min_words:
        return "too_short"
    return None


def apply_edits(text: str, settings: RuleSettings, changed: list[str]) -> tuple[str, str | None]:
    """
    Applies the edits until they change nothing: one may uncover what another one removes.

    Args:
        text (`str`):
            A caption.
        settings (`RuleSettings`):
            Which rules apply.
        changed (`list[str]`):
            Is given the names of the rules that change the caption.

    Returns:
        `tuple[str, str | None]`: the text, and the rule that leaves nothing of it, or finds it far too long.
    """
    before = None
    while text != before:
        before = text
        for name, edit in EDITS.items():
            if name in settings.names:
                edited = edit(text)
                if text.strip() and not edited.strip():
                    return text, name
                if edited != text and name not in changed:
                    changed.append(name)
                text = edited
            # after the first rule has removed thoughts, and before others have to read it
            if "too_long" in settings.names and len(text) > MAX_WORD_LENGTH * settings.max_words:
                return text, "too_long"
    return text, None


def apply_rules(
    caption: str,
    rules: Collection[str] = tuple(RULES),
    min_words: int = 5,
    max_words: int = 500,
    is_cut_off: bool = False,
) -> tuple[str, str | None, list[str]]:
    """
    Mends a caption, or rejects it.

    Args:
        caption (`str`):
            What the model wrote.
        rules (`Collection[str]`, *optional*):
            The names of the rules that apply, of `RULES`. By default all.
        min_words (`int`, *optional*, defaults to 5):
            The rule `too_short` rejects captions of fewer words. Each Chinese or Japanese character is a word, and
            four of a script without blanks.
        max_words (`int`, *optional*, defaults to 500):
            The rule `too_long` rejects captions of more words.
        is_cut_off (`bool`, *optional*, defaults to `False`):
            Whether the model was stopped before its end, at the maximum of tokens. Then the rule `cut_off` removes a
            last sentence without an end, and rejects a caption that has no other; else it only removes one that
            breaks off visibly.

    Returns:
        `tuple[str, str | None, list[str]]`: the caption, mended, or as it was where it is rejected; the rule that
        rejects it, None if none does; the rules that changed it.

    Example:

    ```python
    >>> from modeling_lotlip.captioning.rules import apply_rules

    >>> apply_rules("The image shows a red boat on the beach. The sea is calm. In the back")
    ('A red boat on the beach. The sea is calm.', None, ['announcement', 'cut_off'])
    >>> apply_rules("I'm sorry, but I cannot see the image.")
    ("I'm sorry, but I cannot see the image.", 'refusal', [])
    ```"""
    text = caption
    changed = []
    if is_cut_off and "cut_off" in rules:
        text = keep_whole_sentences(caption)
        if not text:
            return caption, "cut_off", []
        if text != caption:
            changed.append("cut_off")
    settings = RuleSettings(rules, min_words, max_words)
    text, rejected_by = apply_edits(text, settings, changed)
    if rejected_by is None:
        rejected_by = find_rejection(text, settings)
    if rejected_by is not None:
        return caption, rejected_by, []
    return text, None, changed
