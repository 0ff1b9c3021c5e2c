# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The phrases by which models talk to their user in place of describing an image: announcements, offers, refusals.

A pattern must not match in a good caption: people write "I cannot see the far bank", "the scene captures the attention
of the viewer" and "a frame with no photo in it". So a refusal needs its object ("the image"), and most phrases the
beginning of a sentence. The patterns are for texts in which quotations are masked.
"""

import re


def any_of(words: str) -> str:
    """Writes a pattern of any of some words, which are separated by blanks."""
    return f"(?:{'|'.join(words.split())})"


PICTURE = r"(?:(?:provided|given|uploaded) )?(?:image|picture|photo|photograph|scene)(?: you (?:provided|shared))?"
AGREEMENT = r"(?:sure|certainly|of course|okay|absolutely)(?: thing)?"
HERE_IS = r"(?:here is|here's|below is|the following is)"

NUMBERS = any_of(
    "a an one two three four five six seven eight nine ten several many some various numerous "
    "multiple people men women children"
)

# What is done with words on a sign
PRINTED = any_of("carved circled crossed engraved painted printed scrawled spelled stitched typed underlined written")
SOMEWHERE = any_of("above across at below in on over under")
# What says that the words before it are those of a sign: "Thank you for sharing is painted on a box".
# But in "Let me know what is written on it" they are not.
IS_WRITTEN = (
    r"(?<!what )(?<!that )(?<!which )\b"
    rf"(?:(?:is|are|was|were) (?:\w+ )?(?:{PRINTED}|(?:drawn|highlighted|marked|shown) {SOMEWHERE})"
    rf"|(?:appears?|stands?) {SOMEWHERE})\b"
)
# The same right after a word that may be an announcement: "Sure! is on a sign", "Sure! in red on a door".
# But "Caption: in the foreground", "Caption: on a table" and "Caption: on top" begin a description.
SIGN_WORDS = any_of("and appears are has is marks means or painted printed reads says stands was were written")
IS_ON_A_SIGN = rf"(?:{SIGN_WORDS}\b|(?:in|on)\b(?! (?:a|an|both|each|front|one|the|this|top)\b))"
BEGINS_AS_WRITTEN = re.compile(IS_ON_A_SIGN)
# In lower case: "Of course! it says", "Caption: the word is printed"
TEXT = any_of("heading label letter letters line sign text word words writing")
GOES_ON_IN_LOWER_CASE = rf"(?-i:{IS_ON_A_SIGN}|it\b|the (?:\w+ )?{TEXT}\b)"
# "Answer: D is circled", "Answer: 42 is written"
IS_ONE_WRITTEN_WORD = rf"(?!(?:the|{NUMBERS})\b)(?:[^\s.!?]+ ){{1,4}}(?:is|was) (?:\w+ )?{PRINTED}\b"
# "Answer: yes, says a note", "Okay! Neon letters spell the word"
IS_SAID = (
    r"[^.!?\n]{0,100}"
    r"(?:, (?:answers|asks|reads|says|shouts|states)\b| spells? the word\b)"
)
# "Caption: 'Home' in white"
IS_QUOTED = r"[\"“'‘]\0+[\"”'’],? ?\w"
GOES_ON_ABOUT_WORDS = rf"(?:{GOES_ON_IN_LOWER_CASE}|{IS_ONE_WRITTEN_WORD}|{IS_SAID}|{IS_QUOTED})"

# Words at the beginning that only announce, but may also be those of a sign
WORDS = (
    # "Sure!"
    rf"{AGREEMENT}[.!:]+",
    # "Description:", or as a heading
    r"(?:detailed |image |long )?(?:description|caption|answer|response):",
    r"(?:detailed |image |long )?(?:description|caption|answer|response)(?=[ \t]*\n(?-i:(?![a-z])))",
    # but not "Assistant: Anna Roth stands at the end of the credits"
    r"assistant:(?!\s+(?-i:[A-Z]\w+ [A-Z]\w+) stands\b)",
)
# Sentences at the beginning that only announce
ANNOUNCEMENTS = (
    # "I'd be happy to describe this image."
    r"(?:i'd|i would) be (?:happy|glad) to (?:describe|help)[^.!:\n]{0,60}[.!:]+",
    # "Here's what I can see in the image:"
    rf"(?:here is|here's) what (?:i|we|you) (?:can )?see(?: in (?:the|this|your) {PICTURE})?[.!:]+",
    # "Certainly, here is a description of the image:", but not "Below is a caption. Above it a cat"
    rf"(?:{AGREEMENT}[,!.]* )?{HERE_IS} (?:an?|the|my|your) (?:\w+,? ){{0,4}}(?:description|caption)"
    rf"(?: (?:of|for) (?:the|this|your) {PICTURE}[.!:]+|:|[.!]+(?=\s*(?:\n|$)))",
    # "A detailed description of the image is as follows:", but not "The caption reads:" of a meme
    rf"(?:the|an?) (?:\w+ ){{0,2}}(?:description|caption)(?: (?:of|for) (?:the|this) {PICTURE})? is as follows[.:]+",
    rf"(?:the|an?) (?:\w+ ){{0,2}}(?:description|caption) (?:of|for) (?:the|this) {PICTURE} (?:is|reads)[.:]+",
    # "The image can be described as follows:"
    rf"(?:the|this) {PICTURE} (?:is|can be) described (?:as follows|below)[.:]+",
)
ANNOUNCEMENT = re.compile(
    rf"(?:{'|'.join(ANNOUNCEMENTS)})(?:\s+|$)"
    rf"|(?:{'|'.join(WORDS)})(?:\s+(?!\s|{GOES_ON_ABOUT_WORDS})|$)",
    re.IGNORECASE,
)

# Beginnings of a sentence that goes on with what is seen: "The image shows", "In this picture, we can see"
ADVERB = r"(?:(?:clearly|vividly|beautifully|mainly|primarily|simply) )?"
SHOWS = rf"{ADVERB}(?:shows|depicts|displays|features|portrays|showcases|illustrates|contains)"
# After some verbs what is seen must begin with an article or a number: other words would often say
# something else, as in "captures the attention of the viewer", "an image of low quality" or "a photograph of 1912"
COUNTED = rf"(?:{NUMBERS}|\d{{1,2}})\b"
CAPTURES = rf"{ADVERB}(?:captures|presents)(?= {COUNTED})(?! a lot\b)"
IS_PHOTO_OF = rf"is an? (?:image|picture|photo|photograph) (?:of|showing)(?= (?:the\b|{COUNTED}))"
CAN_SEE = rf"in (?:the|this) {PICTURE},? (?:we|you|one|i) can see"

# What is seen does not begin with a preposition: "In the picture we can see into the valley"
PREPOSITIONS = any_of(
    "about above across along alongside among around as at behind below beside between beyond by for "
    "from in inside into near of off on out over past through to under up upside with within"
)
# nor with a pronoun: "The photo captures him", "The picture shows everything", "The photograph shows its age"
PRONOUNS = any_of(
    "everything he her hers herself him himself it its itself me myself nobody none nothing our that "
    "their them themselves this us you your yourself"
)
# nor with a question word or a conjunction: "The picture shows how", "The scene contains both"
CONJUNCTIONS = any_of("and both but how if or what when where whether which who whom whose why")
# nor with an adverb: "The image displays well", "The image shows clearly"
ADVERBS = any_of(
    "all badly enough even far farther fine forever further just less little more most much next no only "
    r"right sideways straight well (?!family)\w+ly"
)
# nor is it abstract: "The picture shows the way to the station", "The photo shows signs of age"
ABSTRACT_NOUN = any_of(
    "attention border challenge challenges damage difference effect essence evidence feeling glimpse lack "
    "mood paradox problem problems promise question questions sense way"
)
ABSTRACT = (
    rf"(?:(?:\w+ ){{0,2}}{ABSTRACT_NOUN} (?:between|for|in which|of|that|to)\b"
    r"|(?:\w+ )?(?:signs|traces) of\b)"
)
# nor the file, or a part of the paper: "contains 12 million pixels", "of the highest quality", "one of its corners"
FILE_OR_PAPER = (
    r"(?:\d+ (?:percent|pixels|megapixels|million pixels|x \d)"
    r"|(?:\w+ ){0,3}(?:quality|resolution)\b"
    r"|\w+ of its\b)"
)
NOT_SEEN = rf"(?:(?:{PREPOSITIONS}|{PRONOUNS}|{CONJUNCTIONS}|{ADVERBS})\b|{ABSTRACT}|{FILE_OR_PAPER})"
# But an amount may begin with such a word: "The image shows more than ten boats", "just one dog"
AMOUNT = (
    r"(?:about|almost|around|at least|just|more than|nearly|over|up to) (?:an? (?:dozen|few|hundred)"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|\d+)\b"
)
WHAT_IS_SEEN = rf"(?=\S)(?:(?={AMOUNT})|(?!{NOT_SEEN}))"
# After "we can see that" is a whole sentence
WHOLE_SENTENCE = r"(?=\S)(?!(?:is|was|are|were|has|had|it|they)\b)"
PREFIX = re.compile(
    rf"(?:(?:the|this) {PICTURE} (?:{SHOWS}|{CAPTURES}|{IS_PHOTO_OF})|this {IS_PHOTO_OF}|{CAN_SEE})"
    rf"(?: that\s+{WHOLE_SENTENCE}|(?: the following)?:?\s+{WHAT_IS_SEEN})",
    re.IGNORECASE,
)
# "The image shows a boat and is taken from above": without the beginning the boat would be taken from above
VERBS = any_of(
    "adds appears captures comes contains conveys creates dates depicts does draws emphasizes "
    "evokes features focuses gives had hangs has highlights includes invites is lacks leans "
    "leaves lies looks makes means measures offers omits provides seems shows sits stands "
    "suggests tells uses was"
)
SECOND_VERB = re.compile(rf",? (?:and|but)(?: also| then)? {VERBS}\b", re.IGNORECASE)
# But not after "who": "The image shows a man who wears a hat and sits on a stool" says so of the man
RELATIVE = re.compile(r"\b(?:that|where|which|while|who|whose)\b", re.IGNORECASE)
# "The image shows a dog and the photo below shows a cat"
OTHER_PICTURE = re.compile(rf"\b(?:and|but|while) (?:the|this) (?:\w+ )?{PICTURE}\b", re.IGNORECASE)
# "The picture shows a boat. It was painted in 1920.": perhaps the picture was. But "It is painted red" is said of the
# boat, as is most of what models say of "it" in the present.
WAS = r"(?:was|has been|had been|must have been|(?:appears|seems) to have been)"
MADE = any_of("captured colored cropped drawn edited framed made painted photographed printed shot signed taken")
IS = r"(?:is|(?:appears|seems) to be)"
TAKEN = r"(?:captured (?:by|from)|cropped|photographed|shot|taken)"
IT_WAS_MADE = re.compile(
    rf"\bit (?:{WAS} (?:\w+[ -])?{MADE}|{IS} (?:\w+ )?{TAKEN}|dates|measures)\b",
    re.IGNORECASE,
)

# What models offer to do with a description
OFFERED = any_of(
    "add adjust analy[sz]e break change clarify compare continue convert create describe elaborate "
    "expand explain extract focus format generate give go help identify include list look make provide "
    "refine rewrite shorten suggest summarize tell transcribe translate try turn write zoom"
)
# Sentences at the end that offer more
OFFERS = (
    r"(?:please )?let me know if\b",
    r"(?:please )?feel free to (?:ask|reach out|let me know|share|provide|contact)\b",
    r"(?:i )?hope (?:this|that|it) (?:\w+ )?(?:helps|is helpful|was helpful|meets your|answers your|works for you)\b",
    r"is there anything else (?:i can|you(?:'d| would)? (?:like|want|need))\b",
    r"if you(?:'d like| have| need| want| would like)[^.!?\n]{0,200}"
    r"\b(?:let me know|feel free|just ask|(?:happy|glad) to)\b",
    # but not "Would you like me to call back?" on a phone
    rf"(?:would|do) you (?:like|want) me to {OFFERED}\b",
    r"(?:i'm|i am|i'd be|i'll be|i would be) (?:always )?(?:happy|glad|here) to (?:help|assist|provide|answer)\b",
    # but not "Thank you for sharing our love of apes" at a zoo
    r"(?:thank you|thanks) for (?:sharing|providing|uploading)"
    r"(?: (?:it|such|that|the|this|your)\b|(?=[.!]))",
    r"thank you for your (?:question|request)\b",
)
# "Let me know if you can read this, says a sticker"
ON_A_SIGN = rf"[^.!?\n]{{0,200}}(?:{IS_WRITTEN}|, (?:asks|reads|says)\b)"
OFFER = re.compile(
    rf"(?:^|(?<=[.!?…。！？\"”'’)\]])\s|\n[ \t]*)(?!{ON_A_SIGN})(?:{'|'.join(OFFERS)})"
    r"[^.!?\n]{0,300}[.!?]{0,3}\s{0,9}\Z",
    re.IGNORECASE,
)

# What is said in the image, without quotation marks, may look like a refusal
OWN_WORDS = r"(?:apologies|as an?|i|i'm|my|please|sorry|unfortunately)\b"
OWN_SENTENCE = rf"{OWN_WORDS}[^.!?\n]*"
# "the assistant says I am sorry", "The words I am an AI", "a message: I cannot see the image". But models themselves
# begin with "Error: I cannot see the image", or tell what "the prompt says"
SAYS = any_of("answers asks reads reading replies responds says saying shouts states stating writes")
NOT_OF_THE_TASK = r"(?<!description )(?<!prompt )(?<!request )"
IS_SAID_AFTER = (
    rf"\b(?:{NOT_OF_THE_TASK}{SAYS}[,:]?|headline|phrase|slogan|title|words"
    r"|(?<=\w )(?:caption|error|line|message|text):) (?:that )?"
    rf"(?:{OWN_SENTENCE}(?:[.!?]+ {OWN_SENTENCE})*|(?:could|without|you)\b[^.!?\n]*)"
)
# "I can't see the image, it thinks.", "You have not uploaded an image, says a form". But models say "I can't see the
# image, it says the link is broken"
SAY_SO = r"(?:asks|reads|says|thinks)\b"
IS_SAID_BEFORE = rf"(?:{OWN_WORDS}|you\b)[^.!?\n]*, (?:{SAY_SO}|(?:he|it|she) {SAY_SO}(?=[.!?]|$))"
# "I am an AI is printed on a shirt". But models say "I cannot read what is printed on the shirt"
NOT_OF_A_CLAUSE = r"(?!\b(?:because|but|since|text|that|what|where|which|who|whose|words?)\b)"
IS_SAID_ON_A_SIGN = (
    rf"(?:^|(?<=[.!?] ))(?:the words )?{OWN_WORDS}(?:{NOT_OF_A_CLAUSE}[^.!?\n,;:]){{0,80}}?{IS_WRITTEN}"
)
SPOKEN = re.compile(rf"{IS_SAID_AFTER}|{IS_SAID_BEFORE}|{IS_SAID_ON_A_SIGN}", re.IGNORECASE)

PICTURES = r"(?:images?|pictures?|photos?|photographs?|attachments?)"
# The beginning of a sentence, with what may stand before its statement
BEGINNING = r"(?:^|[.!?…][\"”'’)\]]*\s|\n[ \t]*)"
SEEMS = r"it (?:seems|appears|looks)(?: that| like| as if| as though)?,? "
START = (
    rf"{BEGINNING}(?:(?:however|unfortunately|sorry|but)[,:]? )*"
    rf"(?:{SEEMS}|(?:(?:i'm|i am) (?:sorry|afraid)|(?:my )?apologies)[,;.]? (?:but )?)?"
)
CANNOT = (
    r"\b(?:i (?:cannot|can't|can not|could not|couldn't|will not|won't|do not|don't|didn't)"
    r"|(?:i'm|i am|i was) (?:currently )?(?:unable|not able) to) (?:actually |currently |really |directly )?"
)
# "I cannot see the picture on the wall", "... clearly": there it is part of the scene
CHAT = r"(?:our|the|this|your) (?:chat|conversation|message|post|prompt|request)\b"
NOT_IN_SCENE = (
    r"(?! (?:above|at|behind|below|clearly|hanging|in|inside|of|on|properly|through|very|well)\b"
    rf"(?! {CHAT}))"
)
MY_SIDE = r"(?:my|our) (?:end|side)\b"
NOT_ON_SOMETHING = (
    r"(?! (?:at|between|by|in|inside|on|to|with) "
    rf"(?!{CHAT}|{MY_SIDE}|(?:you|the user)\b))"
)
SENT = r"(?:attached|provided|uploaded|shared|included|received)"
YOU_SENT = r"(?:(?:that )?you (?:\w+ )?\w+ )?"
AI = r"(?:ai|artificial intelligence|(?:large |text-based |text-only )*language model)"
SEE = r"(?:see|view|access|open|process|display|load|analy[sz]e|describe|caption|interpret|receive|look at|find)"
THE_ACTUAL = (
    r"(?:the |an? |any |your |this |that |these |those )?"
    r"(?:contents? of (?:the|this|your) |actual |provided |attached |uploaded |specific )*"
)
REFUSALS = (
    # "As an AI language model, I", "I am just an AI"
    rf"\b(?:as|being) an? {AI}(?: language)?(?: model| assistant| system)?"
    r"(?: (?:made|created|developed|trained) by \w+)?,? (?:i|my)\b",
    rf"\b(?:i am|i'm) (?:just |only |merely )?an? {AI}\b",
    # "I'm sorry, but I", "I apologize, but", "Unfortunately, I cannot"
    rf"{BEGINNING}(?:i'm|i am|we're) (?:so )?(?:sorry|afraid)[,;.]? (?:but )?(?:that )?"
    r"(?:i|there|as|this|the image|no)\b",
    rf"{BEGINNING}(?:i'm|i am) (?:so |very )?sorry[,;.]? (?:but )?(?:the|your) {PICTURES}\b{NOT_IN_SCENE}",
    rf"{BEGINNING}(?:i apologi[sz]e|(?:my )?apologies),? (?:but|for)\b",
    rf"{BEGINNING}sorry,? (?:but )?(?:i|as an|there is no)\b",
    rf"{BEGINNING}unfortunately,? (?:i (?:cannot|can't|am unable|don't|do not)|as an)\b",
    # "I cannot see the image"
    rf"{CANNOT}{SEE}(?: (?:and|nor|or) {SEE})? {THE_ACTUAL}{PICTURES}\b{NOT_IN_SCENE}",
    rf"\bi (?:do not|don't) (?:actually )?see (?:an?|any|the|your) {PICTURES}\b{NOT_IN_SCENE}",
    rf"\b(?:i see no|(?:i am|i was|i'm) not seeing (?:an?|any|the|your)) {PICTURES}\b{NOT_IN_SCENE}",
    # "I can't open the file that you sent", "I can only process text"
    rf"{CANNOT}(?:access|load|open|view) {THE_ACTUAL}(?:files?|links?|urls?)"
    r"(?=\s*(?:[.,;!]|$)| (?:that )?you\b)",
    r"\bi can only (?:process|read|understand|work with) text\b",
    # "I can't assist with that", but not "I can't help but notice"
    rf"{CANNOT}(?:assist|help) (?:you\b|(?:with|in) (?:that|this|your|the|it|identifying|describing|providing))",
    rf"{CANNOT}(?:provide|create|generate|write|give|offer) "
    r"(?:you |any |an? |the |that |this |more |further |specific |detailed |accurate )*(?:\w+ )?"
    r"(?:descriptions?|captions?|information|answer|assistance|response)\b",
    rf"{CANNOT}(?:fulfill?|comply with|complete|process|answer) (?:that|this|your|the) "
    r"(?:request|question|prompt|task)\b",
    rf"{CANNOT}(?:identify|recognize|name) (?:or \w+ )?(?:real |the |specific |any |these |those )*"
    rf"(?:people|persons?|individuals?|anyone) (?:in|from|based on) (?:the |this |an? )?{PICTURES}\b",
    # "I don't have the ability to view images", "I do not have access to the image"
    r"\bi (?:do not|don't) (?:actually |currently )?have (?:the |direct |any )*access to "
    rf"(?:the |any |your |this )?{PICTURES}\b",
    r"\bi (?:do not|don't) (?:actually |currently )?have (?:the |direct |any )*(?:ability|capability) to "
    r"(?:see|view|process|access|analy[sz]e|identify|describe|interpret)\b",
    r"\bi (?:do not|don't) have enough (?:information|context) to "
    r"(?:describe|provide|caption|answer|identify)\b",
    # "It seems there's no image attached", "No image was provided", "You haven't uploaded an image"
    rf"{START}(?:there (?:is|was|are|were)|there's) (?:no|not an?|not any) {PICTURES} "
    rf"(?:to (?:describe|caption|analy[sz]e)|available to me|{SENT}){NOT_ON_SOMETHING}",
    rf"{START}there (?:does not|doesn't|do not|don't) (?:appear|seem) to be "
    rf"(?:an?|any) {PICTURES} {SENT}{NOT_ON_SOMETHING}",
    rf"{START}(?:no {PICTURES} (?:came through|loaded)|nothing (?:was|is|has been) {SENT})\b"
    rf"{NOT_ON_SOMETHING}",
    rf"{START}no {PICTURES} (?:(?:was|is|were|are|has been|have been) )?"
    rf"(?:(?:appears?|seems?) to (?:be|have been) )?{SENT}{NOT_ON_SOMETHING}",
    r"\byou (?:haven't|have not|didn't|did not|forgot to|may have forgotten to|might have forgotten to) "
    rf"(?:actually )?(?:attach|upload|provid|shar|includ)\w*[^.!?\n]{{0,20}}\b{PICTURES}\b",
    # "The image could not be loaded", but not "is not displayed on the wall"
    rf"{START}(?:the |your |this |an )?{PICTURES} {YOU_SENT}"
    r"(?:failed to|did not|didn't|could not|couldn't|cannot|can't|(?:is|was|does|has) not|(?:is|was|does|has)n't) "
    r"(?:be |been )?(?:properly |correctly )?"
    r"(?:load|loaded|loading|upload|uploaded|come through|showing up|displayed|opened|processed|received"
    rf"|display(?=[.,;!]| (?:correctly|for me|on my|properly)\b))\b{NOT_ON_SOMETHING}",
    # "The image appears to be blank or corrupted", but not "blank, with a red dot" or "empty of people"
    rf"{START}(?:the|this|your) (?:provided |uploaded |attached |shared )?{PICTURES} {YOU_SENT}"
    r"(?:(?:appears|seems|looks)(?: to (?:be|have been))?|is) (?:completely |entirely )?"
    r"(?:blank|corrupt(?:ed)?|unavailable|inaccessible|not (?:available|accessible|loading|visible to me))"
    r"(?=\s*(?:[.!;]|$|or\b|and (?:i|cannot|can't|contains no)\b|,(?! (?:as|but|except|save|showing|with)\b)))",
    # "Please upload the image", "Could you describe it to me?"
    rf"(?:{START}|, )(?:(?:could|can|would) you(?: please)?|please|kindly)(?: try(?: to)?)? (?:re-?)?"
    r"(?:upload|provid|shar|attach|send)(?:e|ing)? (?:me )?(?:the |an? |your |another |it |more )"
    rf"(?:different |valid |new )?(?:{PICTURES}|again|context|details)\b",
    rf"{BEGINNING}(?:could|can|would) you (?:please )?(?:describe (?:it|the|what)|tell me (?:what|more))\b",
    # "Without an image, it is impossible to"
    rf"\bwithout (?:an?|the|any|seeing the|more) (?:actual )?(?:{PICTURES}|context)\b{NOT_IN_SCENE}[^.!?\n]{{0,40}}, "
    r"(?:i (?:cannot|can't|am unable)|it(?:'s| is) (?:impossible|difficult|not possible))\b",
)
# Where one may begin is looked for first, which is cheap: the patterns are many
REFUSAL = re.compile(
    rf"(?=^|[.!?…\n,]|(?<!\w)[abiuwy])(?:{'|'.join(f'(?:{pattern})' for pattern in REFUSALS)})", re.IGNORECASE
)
