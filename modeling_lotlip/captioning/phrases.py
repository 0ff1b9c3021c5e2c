# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The phrases by which models talk to their user in place of describing an image: announcements, offers, refusals.

A pattern must not match in a good caption: people write "I cannot see the far bank", "the scene captures the attention
of the viewer" and "a frame with no photo in it". So a refusal needs its object ("the image"), and most phrases the
beginning of a sentence. The patterns are for texts in which quotations are masked.
"""

import re


PICTURE = r"(?:(?:provided|given|uploaded) )?(?:image|picture|photo|photograph|scene)(?: you (?:provided|shared))?"
AGREEMENT = r"(?:sure|certainly|of course|okay|absolutely)(?: thing)?"
HERE_IS = r"(?:here is|here's|below is|the following is)"

# After "Sure!" on a sign that is not quoted: "Sure! is written on the wall"
IS_WRITTEN = r"(?:appears|are|has|in|is|on|painted|printed|reads|says|stands|was|were|written)\b"

# Sentences at the beginning that only announce
ANNOUNCEMENTS = (
    # "Sure!"
    rf"{AGREEMENT}[.!:]+(?!\s+{IS_WRITTEN})",
    # "I'd be happy to describe this image."
    r"(?:i'd|i would) be (?:happy|glad) to (?:describe|help)[^.!:\n]{0,60}[.!:]+",
    # "Here's what I can see in the image:"
    rf"(?:here is|here's) what (?:i|we|you) (?:can )?see(?: in (?:the|this|your) {PICTURE})?[.!:]+",
    # "Certainly, here is a detailed description of the image:"
    rf"(?:{AGREEMENT}[,!.]* )?{HERE_IS} (?:an?|the|my|your) (?:\w+,? ){{0,4}}(?:description|caption)"
    rf"(?: (?:of|for) (?:the|this|your) {PICTURE})?[.!:]+",
    # "A detailed description of the image is as follows:", but not "The caption reads:" of a meme
    rf"(?:the|an?) (?:\w+ ){{0,2}}(?:description|caption)(?: (?:of|for) (?:the|this) {PICTURE})? is as follows[.:]+",
    rf"(?:the|an?) (?:\w+ ){{0,2}}(?:description|caption) (?:of|for) (?:the|this) {PICTURE} (?:is|reads)[.:]+",
    # "The image can be described as follows:"
    rf"(?:the|this) {PICTURE} (?:is|can be) described (?:as follows|below)[.:]+",
    # "Description:", or as a heading
    r"(?:detailed |image |long )?(?:description|caption|answer|response|assistant):",
    r"(?:detailed |image |long )?(?:description|caption|answer|response)(?=[ \t]*\n)",
)
ANNOUNCEMENT = re.compile(rf"(?:{'|'.join(ANNOUNCEMENTS)})(?:\s+|$)", re.IGNORECASE)

# Beginnings of a sentence that goes on with what is seen: "The image shows", "In this picture, we can see"
ADVERB = r"(?:(?:clearly|vividly|beautifully|mainly|primarily|simply) )?"
SHOWS = rf"{ADVERB}(?:shows|depicts|displays|features|portrays|showcases|illustrates|contains)(?: that)?"
# "The scene captures the attention of the viewer" and "presents a challenge" say something else
CAPTURES = (
    rf"{ADVERB}(?:captures|presents)(?= (?:an?|one|two|three|four|five|several|many|some|various|\d+) )"
    r"(?! (?:\w+ ){1,4}(?:attention|challenge|essence|feeling|glimpse|lot|mood|paradox|problem|question|sense)\b)"
)
IS_PHOTO_OF = r"is an? (?:image|picture|photo|photograph) (?:of|showing)"
CAN_SEE = rf"in (?:the|this) {PICTURE},? (?:we|you|one|i) can see(?: that)?"
# What cannot begin what is seen: "The picture shows how", "The photo captures him", "The image displays well"
NO_BEGINNING = (
    r"(?:and|as|at|both|but|by|for|from|her|him|how|if|in|it|itself|me|off|on|only|or|out|themselves|them|through|to|up|us"
    r"|well|what|when|where|whether|which|who|whom|whose|why|with|within|you|(?!family)\w+ly)\b"
)
PREFIX = re.compile(
    rf"(?:(?:the|this) {PICTURE} (?:{SHOWS}|{CAPTURES}|{IS_PHOTO_OF})|this (?:{SHOWS}|{CAPTURES}|{IS_PHOTO_OF})"
    rf"|{CAN_SEE})(?: the following)?:?\s+(?=\S)(?!{NO_BEGINNING})",
    re.IGNORECASE,
)
# "The image shows a boat and is taken from above": without the beginning the boat would be taken from above
SECOND_VERB = re.compile(
    r",? (?:and|but)(?: also| then)? (?:adds|appears|captures|contains|conveys|creates|depicts|does|draws|emphasizes"
    r"|evokes|features|focuses|gives|had|has|highlights|includes|invites|is|makes|offers|provides|seems|shows|suggests"
    r"|was)\b",
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
    r"(?:would|do) you (?:like|want) me to\b",
    r"(?:i'm|i am|i'd be|i'll be|i would be) (?:always )?(?:happy|glad|here) to (?:help|assist|provide|answer)\b",
    r"thank you for (?:sharing|providing|uploading|your (?:question|request))\b",
)
OFFER = re.compile(
    rf"(?:^|(?<=[.!?…。！？\"”'’)\]])\s|\n[ \t]*)(?:{'|'.join(OFFERS)})"
    r"[^.!?\n]{0,300}[.!?]{0,3}\s{0,9}\Z",
    re.IGNORECASE,
)

PICTURES = r"(?:images?|pictures?|photos?|photographs?|attachments?)"
# The beginning of a sentence, with what may stand before its statement
BEGINNING = r"(?:^|[.!?…][\"”'’)\]]*\s|\n[ \t]*)"
SEEMS = r"it (?:seems|appears|looks)(?: that| like| as if| as though)?,? "
START = (
    rf"{BEGINNING}(?:(?:however|unfortunately|sorry|but)[,:]? )*"
    rf"(?:{SEEMS}|(?:i'm|i am) (?:sorry|afraid)[,;.]? (?:but )?)?"
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
NOT_ON_SOMETHING = rf"(?! (?:at|in|inside|on|to|with) (?!{CHAT}))"
SENT = r"(?:attached|provided|uploaded|shared|included|received)"
YOU_SENT = r"(?:(?:that )?you (?:\w+ )?\w+ )?"
AI = r"(?:ai|artificial intelligence|(?:large |text-based |text-only )*language model)"
SEE = r"(?:see|view|access|open|process|display|load|analy[sz]e|describe|caption|interpret|receive|look at)"
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
    rf"{BEGINNING}(?:i apologi[sz]e|(?:my )?apologies),? (?:but|for)\b",
    rf"{BEGINNING}sorry,? (?:but )?(?:i|as an|there is no)\b",
    rf"{BEGINNING}unfortunately,? (?:i (?:cannot|can't|am unable|don't|do not)|as an)\b",
    # "I cannot see the image"
    rf"{CANNOT}{SEE} {THE_ACTUAL}{PICTURES}\b{NOT_IN_SCENE}",
    rf"\bi (?:do not|don't) (?:actually )?see (?:an?|any|the|your) {PICTURES}\b{NOT_IN_SCENE}",
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
    rf"{START}no {PICTURES} (?:(?:was|is|were|are|has been|have been) )?"
    rf"(?:(?:appears?|seems?) to (?:be|have been) )?{SENT}{NOT_ON_SOMETHING}",
    r"\byou (?:haven't|have not|didn't|did not|forgot to|may have forgotten to|might have forgotten to) "
    rf"(?:actually )?(?:attach|upload|provid|shar|includ)\w*[^.!?\n]{{0,20}}\b{PICTURES}\b",
    # "The image could not be loaded", but not "is not displayed on the wall"
    rf"{START}(?:the |your |this |an )?{PICTURES} {YOU_SENT}"
    r"(?:failed to|did not|didn't|could not|couldn't|cannot|can't|was not|wasn't|has not|hasn't) "
    r"(?:be |been )?(?:properly |correctly )?"
    r"(?:load|loaded|upload|uploaded|come through|displayed|opened|processed|received)\b(?! (?:at|by|in|on|to)\b)",
    # "The image appears to be blank or corrupted", but not "blank, with a red dot" or "empty of people"
    rf"{START}(?:the|this|your) (?:provided |uploaded |attached |shared )?{PICTURES} {YOU_SENT}"
    r"(?:(?:appears|seems|looks)(?: to (?:be|have been))?|is) (?:completely |entirely )?"
    r"(?:blank|corrupt(?:ed)?|unavailable|inaccessible|not (?:available|accessible|loading|visible to me))"
    r"(?=\s*(?:[.!;]|$|or\b|and (?:i|cannot|can't|contains no)\b|,(?! (?:as|but|except|save|showing|with)\b)))",
    # "Please upload the image", "Could you describe it to me?"
    rf"(?:{START}|, )(?:(?:could|can|would) you(?: please)?|please|kindly)(?: try to)? (?:re-?)?"
    r"(?:upload|provide|share|attach|send) (?:me )?(?:the |an? |your |another |it |more )"
    rf"(?:different |valid |new )?(?:{PICTURES}|again|context|details)\b",
    rf"{BEGINNING}(?:could|can|would) you (?:please )?(?:describe (?:it|the|what)|tell me (?:what|more))\b",
    # "Without an image, it is impossible to"
    rf"\bwithout (?:an?|the|any|seeing the|more) (?:actual )?(?:{PICTURES}|context)[^.!?\n]{{0,40}}, "
    r"(?:i (?:cannot|can't|am unable)|it(?:'s| is) (?:impossible|difficult|not possible))\b",
)
# Where one may begin is looked for first, which is cheap: the patterns are many
REFUSAL = re.compile(
    rf"(?=^|[.!?…\n,]|(?<!\w)[abiuwy])(?:{'|'.join(f'(?:{pattern})' for pattern in REFUSALS)})", re.IGNORECASE
)
