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

# What says that the words before it are those of a sign: "Thank you for sharing is painted on a box".
# But in "Let me know what is written on it" they are not.
IS_WRITTEN = (
    r"(?<!what )(?<!that )(?<!which )\b(?:(?:is|are|was|were) (?:\w+ )?"
    r"(?:carved|circled|crossed out|drawn|engraved|highlighted|marked|painted|printed|scrawled|shown"
    r"|spelled|stitched|typed|underlined|written)"
    r"|(?:appears?|stands?) (?:above|across|at|below|in|on|over|under))\b"
)
# The same right after a word that may be an announcement: "Sure! is on a sign"
SIGN_WORDS = "and appears are has in is marks means on or painted printed reads says stands was were written"
IS_ON_A_SIGN = rf"{any_of(SIGN_WORDS)}\b"
BEGINS_AS_WRITTEN = re.compile(IS_ON_A_SIGN)
# What goes on about such a word: "Caption: the word is printed", "Answer: 42 is written",
# "Answer: yes, says a note", "Caption: 'Home' in white"
GOES_ON_ABOUT_WORDS = (
    rf"(?:(?-i:{IS_ON_A_SIGN}|it\b)|the (?:\w+ )?(?:heading|label|letters?|line|text|words?|writing)\b"
    rf"|(?!(?:the|{NUMBERS})\b)(?:[^\s.!?]+ ){{1,3}}{IS_WRITTEN}"
    r"|[^.!?\n]{0,100}(?:, (?:answers|asks|reads|says|shouts|states)| spells?| says (?:it|so)) "
    r"|[\"“'‘]\0+[\"”'’],? ?\w)"
)

# Words at the beginning that only announce, but may also be those of a sign
WORDS = (
    # "Sure!"
    rf"{AGREEMENT}[.!:]+",
    # "Description:", or as a heading
    r"(?:detailed |image |long )?(?:description|caption|answer|response|assistant):",
    r"(?:detailed |image |long )?(?:description|caption|answer|response)(?=[ \t]*\n(?-i:(?![a-z])))",
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
SHOWS = rf"{ADVERB}(?:shows|depicts|displays|features|portrays|showcases|illustrates|contains)(?: that)?"
# What is seen begins with an article or a number where other words would often say something else:
# "captures the attention of the viewer", "an image of low quality", "a photograph of 1912"
COUNTED = rf"(?=(?:{NUMBERS}|\d{{1,2}})\b)"
CAPTURES = rf"{ADVERB}(?:captures|presents)(?= {COUNTED})"
IS_PHOTO_OF = rf"is an? (?:image|picture|photo|photograph) (?:of|showing)(?= {COUNTED})"
CAN_SEE = rf"in (?:the|this) {PICTURE},? (?:we|you|one|i) can see(?: that)?"
# What cannot begin what is seen: "The picture shows how", "The photo captures him", "The image displays well"
FIRST_WORDS = any_of(
    "about above across all almost along alongside among and around as at badly behind below "
    "beside between beyond both but by clear each enough even every everything far farther "
    "fewer fine for forever from further half her herself him himself his how if in inside "
    "into it its itself just less little me more most much my myself near next no nobody none "
    "nothing off on only or our out over past right sideways straight that the their them "
    "themselves these this those through to under up upside us well what when where whether "
    "which who whom whose why with within you your yourself"
)
# "The picture presents a challenge", "contains 12 million pixels", "shows signs of age"
NOT_SEEN = any_of(
    "attention border challenges? damage difference effect essence evidence feeling glimpse "
    "lack lot megapixels mood paradox percent pixels problems? promise quality questions? "
    "resolution sense way"
)
NO_BEGINNING = (
    rf"(?:{FIRST_WORDS}|\d{{3,}}|(?!family)\w+ly"
    rf"|(?:\w+ ){{0,4}}(?:{NOT_SEEN}|(?:signs?|traces?) of)|(?:\w+ ){{0,2}}its)\b"
)
# After "we can see that" is a whole sentence, which may begin with "the"
THAT = r"(?<= that)\s+(?!(?:is|was|are|were|has|had|it|they)\b)"
NOT_OF_A_SIGN = rf"(?![^.!?\n]{{0,200}}(?:{IS_WRITTEN}|, (?:asks|reads|says)\b))"
PREFIX = re.compile(
    rf"(?:(?:the|this) {PICTURE} (?:{SHOWS}|{CAPTURES}|{IS_PHOTO_OF})"
    rf"|this (?:{SHOWS}|{CAPTURES}|{IS_PHOTO_OF}){NOT_OF_A_SIGN}"
    rf"|{CAN_SEE})(?: the following)?(?:{THAT}|:?\s+(?!{NO_BEGINNING}))(?=\S)",
    re.IGNORECASE,
)
# "The image shows a boat and is taken from above": without the beginning the boat would be taken from above
VERBS = any_of(
    "adds appears captures comes contains conveys creates dates depicts does draws emphasizes "
    "evokes features focuses gives had hangs has highlights includes invites is lacks leans "
    "leaves lies looks makes means measures offers omits provides seems shows sits stands "
    "suggests tells uses was"
)
SECOND_VERB = re.compile(
    rf",? (?:and|but)(?: also| then)? {VERBS}\b|\b(?:and|but|while) (?:the|this) (?:\w+ )?{PICTURE}\b",
    re.IGNORECASE,
)
# "The picture shows a boat. It was painted in 1920.": perhaps the picture was
WAS = r"(?:is|was|has been|had been|must have been|(?:appears|seems) to (?:be|have been))"
IT_WAS_MADE = re.compile(
    rf"\bit (?:{WAS} (?:\w+ )?"
    r"(?:captured|cropped|drawn|edited|framed|made|painted|photographed|printed|shot|signed|taken)"
    r"|belongs|captures|conveys|dates|depicts|evokes|hangs|measures|shows)\b",
    re.IGNORECASE,
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
    r"(?:would|do) you (?:like|want) me to (?:add|analy[sz]e|change|create|describe|elaborate|expand|explain"
    r"|focus|give|help|identify|make|provide|rewrite|shorten|summarize|tell|translate|try|write)\b",
    r"(?:i'm|i am|i'd be|i'll be|i would be) (?:always )?(?:happy|glad|here) to (?:help|assist|provide|answer)\b",
    r"thank you for (?:sharing|providing|uploading) (?:it|such|that|the|this|your)\b",
    r"thank you for your (?:question|request)\b",
)
OFFER = re.compile(
    rf"(?:^|(?<=[.!?…。！？\"”'’)\]])\s|\n[ \t]*){NOT_OF_A_SIGN}(?:{'|'.join(OFFERS)})"
    r"[^.!?\n]{0,300}[.!?]{0,3}\s{0,9}\Z",
    re.IGNORECASE,
)

# What is said in the image, without quotation marks: "the assistant says I am sorry",
# "The words I am an AI", and "I am an AI is printed on a shirt"
OWN_WORDS = r"(?:apologies|as an?|i|i'm|my|please|sorry|unfortunately)\b"
SAYS = any_of("answers asks reads reading replies responds says saying shouts states stating writes")
NO_RELATIVE = r"(?!\b(?:because|but|since|text|that|what|where|which|who|whose|words?)\b)"
OWN_SENTENCE = rf"{OWN_WORDS}[^.!?\n]*"
SPOKEN = re.compile(
    rf"\b(?:{SAYS}[,:]?|headline|phrase|slogan|title|words|(?:caption|error|line|message|text):) (?:that )?"
    rf"(?:{OWN_SENTENCE}(?:[.!?]+ {OWN_SENTENCE})*|(?:could|without|you)\b[^.!?\n]*)"
    rf"|(?:{OWN_WORDS}|you\b)[^.!?\n]*, (?:(?:he|it|she) )?(?:asks|reads|says|thinks)\b"
    rf"|(?:^|(?<=[.!?] ))(?:the words )?{OWN_WORDS}(?:{NO_RELATIVE}[^.!?\n,]){{0,80}}?{IS_WRITTEN}",
    re.IGNORECASE,
)

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
NOT_ON_SOMETHING = rf"(?! (?:at|by|in|inside|on|to|with) (?!{CHAT}|{MY_SIDE}|(?:you|the user)\b))"
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
