"""The parts of an English refusal, as expressions over one sentence in lower case with plain apostrophes.

They are a grammar of a few parts, not a list of deeds: a subject that speaks for the model, a negated verb of ability,
will or permission, and any verb behind it that is not one of not knowing, sensing or feeling.
"""

from __future__ import annotations

import re

from trueup.data.refusals.grammar import Grammar, expression, flat

_ADVERBS = r"(?:(?:\w+ly|just|also|still|even|thus|hereby|therefore|ever|in (?:good|any) \w+),? ){0,3}"
_NOT = r"(?:\bnot|n't|\bnever)"
_DONT = r"do(?:es)?(?: not|n't| never)"
_CANT = r"(?:ca(?:n't|nnot|nt)|can (?:not(?! only)|never|in no way)|could(?:n't| not| never))"
_WONT = r"(?:won't|wont|(?:will|shall) (?:not|never)|'ll (?:not|never))"
_WOULDNT = r"(?:(?:should|would|must|may|might) (?:not|never)|'d never|(?:should|would|must)n't)"
_NEGATED = rf"(?:{_CANT}|{_WONT}|{_WOULDNT}|{_DONT})"
_BE = r"(?:am|are|is|was|'m|'re|'s|be|feel|been)"
_SUBJECT = flat(r"""
    (?:\b(?:i|we)(?:, (?!and|but|or)[^,.]{1,60},)?
    |\b(?:this|the) (?:\w+ )?(?:ai|assistant|chatbot|model|system)|\b(?:ai|assistant|model|bot) like me)
    (?: |(?=['n]))(?:(?:'m|am) (?:\w+ )?(?:sorry|afraid|an? \w+)(?: that|,)? (?:but )?(?:i )?)?
""")
_SORRY = r"(?:(?:nope|no|sorry|apologies|my apologies|i'm sorry|i am sorry|unfortunately|regrettably|hm+),? )*(?:but )?"

# Verbs of speech and service: what an assistant does for a user. "I do not", "I should not" and impersonal forms refuse
# only with one of them.
_SERVICE = flat(r"""
    (?:help|assist|aid|provid|fulfil|fulfill|compl(?:y|i)|answer|respond|repl(?:y|i)|discuss|writ|creat|generat|produc
    |compos|draft|offer|support|shar|explain|describ|recommend|advis|teach|engag|participat|condon|encourag|promot
    |endors|facilitat|contribut|proceed|continu|cooperat|instruct|guid|accommodat|oblig|entertain|indulg|disclos|reveal
    |outlin|detail|address|process|handl|grant|satisf(?:y|i)|enabl|comment|role-?play|reproduc|fabricat|suppl(?:y|i)
    |suggest|advocat|speculat|giv|mak|spread|perpetuat|glorif(?:y|i)|justif(?:y|i)|excus|tolerat|approv|plan|allow
    |judg|stereotyp|list|nam|show|tell|talk|speak|point|direct|walk|be part|be a part|be involved|tak(?:e|ing) part
    |do (?:that|this|so|such)|get(?:ting)? (?:into|involved)|go(?:ing)? (?:along|there|any further|into))
    (?:e|ing|ting|s|es|ed)?\b
""")
# Verbs of not knowing, sensing or feeling, and idioms: "I can't see", "I can't wait", "I can't recommend it enough".
_IDLE = expression(r"""
    (?:be able to |be )?(?:(?:help (?:but|myself|it|\w+ing)|wait|stop \w+ing|believe|imagine|agree more|thank|stress
    |emphasi[sz]e|over(?:state|emphasi[sz]e)|sugarcoat|know|recall|remember|see|hear|feel|taste|smell|touch(?! (?:this
    |that|the (?:topic
    |subject)))|sense|eat|sleep|swim|fly|walk(?! you)
    |breathe|find|think|understand|stand|afford|figure|listen|decide|examine|guarantee|promise|predict|foresee|forecast
    |verify|confirm|determine|ascertain|tell (?:apart|them|the|from|which|what)|sure|certain|lie|blame|complain|resist
    |experience|quite
    |lose|miss|forget|deny|keep|meet|attend|pick|choose|give (?:up|in)|make (?:it|promises|sense|out)|get enough|love
    |have (?:an? |any |personal |real )?(?:opinion|feeling|emotion|preference|belief|experience|memor|bod
    |favou?rite)\w*
    |trust|pinpoint|do\b[^.]{0,30} (?:without|in one|at once|in a single)|(?:speak|talk) until|travel|form (?:opinions
    |beliefs)|dance|go wrong|slow
    |say (?:which|what|why|where)|(?:say|tell)(?: you)?,? (?:that(?! (?:information|kind)\b| ?[.!,]|$)|if|whether|when
    |who)
    |(?:say|tell|describe|explain|give|provide|offer)(?: you)?(?: with)?,? (?:enough|exactly
    |the (?:exact|precise|latest|current)|an? (?:exact|precise|definit\w+|single|reliable|certain|guarantee
    |specific (?:answer|number|date|email))|any guarantee|for (?:sure|certain)|with certainty|what you need|(?:live
    |real-time|up-to-date)(?![^.]{0,20}(?:personal|private))|how (?:much|happy|glad|sorry|proud|long|many|old)))\b
    |recommend (?:one|either|[^.]{0,80}\benough)\b|go(?:ing)? into \w*(?: \w+){0,2} ?\b(?:details?|depth)\b
    |(?:directly |physically |personally )?(?:access|browse|search|check|retrieve|look up|open|view|read|track|visit)\b
    [^.]{0,40}\b(?:real-time|internet|web|live|current|online|files?|websites?|links?|images?|urls?)\b)
""")
_FIT = flat(r"""
    (?:appropriate|ethical|right|responsible|proper|okay|ok|acceptable|safe|wise|moral|respectful|legal|lawful
    |advisable
    |permissible|fair|helpful|productive|useful|constructive|kind|suitable|permitted|allowed|good|humane|a good idea)
""")
_UNFIT = flat(r"""
    (?:inappropriate|wrong|unethical|irresponsible|improper|illegal|unlawful|immoral|harmful|dangerous|reckless|unsafe
    |disrespectful|unacceptable|offensive|hurtful|cruel|insensitive|discriminatory|unfair|against the law)
""")
_PERMITTED = flat(r"""
    (?:able|willing|allowed|permitted|going|prepared|authori[sz]ed|programmed|designed|trained|equipped|inclined|about
    |supposed|meant|built|made|at liberty|in a position|capable|comfortable|okay|ok|fine|set up|configured|intended
    |here|ready|free
    |qualified|licen[sc]ed|(?:sure|certain) how(?: i (?:can|could|should)|(?= to (?:help|assist|answer|respond
    |proceed)))|sure (?:that |if )?i (?:can|could|should)|interested)
""")
_ABILITY = r"(?:ability|capacity|capability|permission|authority|authori[sz]ation|right|means|tools|clearance)"
_RULES = flat(r"""
    (?:guid\w+|polic\w+|principles?|programming|rules?|values?|ethics?|purpose|conscience|scope|boundar\w+|abilit\w+
    |terms|standards?|code|instructions|training|capabilit\w+|design|limits|beliefs|constraints|restrictions
    |protocols?|remit|mandate|dut(?:y|ies))
""")
_SERVED = flat(r"""
    (?:\w+ly )?(?:help|provid|fulfil|complet|answer|process|grant|giv|offer|shar|discuss|met\b|assist|honou?r|translat
    |supported|condoned|tolerated|generated|written|accommodated|addressed)\w*
""")
_AGAINST = flat(r"""
    (?:against|violat\w+|break\w*|breach\w*|conflict\w* with|contrary to|outside(?: of)?(?: the (?:scope|limits
    |bounds) of)?|beyond|(?:not|n't) within
    |(?:not|n't) (?:in line with|part of|aligned? with|consistent with|in accordance with)|inconsistent with)
""")
_THING = flat(r"""
    (?:something|anything|one|an? (?:\w+ )?(?:topic|request|subject|question|task|thing|conversation|area|matter|idea))
""")
_MUST = flat(r"""
    (?:must|have to|need to|should|choose to|had better|want to|would like to|rather|better|must insist that|going to
    |'ll have to|will have to|am obliged to|am required to|am forced to|'m forced to|am compelled to)
""")
_PASS = flat(r"""
    (?:decline|refuse|refrain|abstain|say no|pass|stop (?:you|here)(?! for)|leave (?:it|this)|we talk|draw \w+ line
    |reject|skip|turn)
""")

# A subject and an ability, will or permission that is negated; any verb may follow.
_UNABLE = expression(rf"""
    {_SUBJECT}{_ADVERBS}(?:(?:{_CANT}|{_WONT})(?:,? (?:and|or|nor) (?:i )?{_ADVERBS}{_NEGATED},?)?,? {_ADVERBS}
    |(?:{_BE} )?{_ADVERBS}(?:unable|incapable|forbidden|prohibited|barred|restricted|banned|prevented|reluctant
    |hesitant
    |not {_ADVERBS}{_PERMITTED})(?: to| of| from| with| about| for)? {_ADVERBS}
    |{_BE}n't {_ADVERBS}{_PERMITTED}(?: to| of| from| with| about| for)? {_ADVERBS}
    |(?:{_DONT} have|lack|have no) (?:the |any )?(?:\w+ )?{_ABILITY} (?:to|for|of) {_ADVERBS}
    |{_DONT} know how to |{_DONT} (?:want|wish|intend|plan) to (?!be\b|sound|seem|bore|worry|alarm|scare|pry|assume
    |overwhelm
    |go on|spoil))(?=\w)
    |^{_SORRY}(?:(?:am |'m )?(?:unable|not able|not going|not willing|not allowed) to|(?:{_CANT}
    |won't)(?= {_SERVICE})) {_ADVERBS}(?=\w)
""")
# A subject and a negated habit or duty; a verb of service must follow.
_UNWILLING = expression(rf"""
    {_SUBJECT}{_ADVERBS}(?:{_WOULDNT}(?! do\b)|{_DONT})(?! (?:recommend|advise|suggest)\b)(?:,? (?:and|or
    |nor) (?:{_NEGATED}),?)? {_ADVERBS}
    (?:(?:want|wish|intend|like|care|plan|be able|be willing) to )?{_ADVERBS}(?=(?:be )?{_SERVICE})
    |\bi\b[^.]{{0,80}}\b(?:and|or|nor|but|so)(?: i)? (?:{_NEGATED}|am unable to
    |am not able to) {_ADVERBS}(?:have the ability to )?(?={_SERVICE})
    |\b(?:nothing|no way|never|nor|neither|under no circumstances) (?:can|will|would|could|shall|do|should) (?:i
    |we) {_ADVERBS}(?=\w)
    |\b(?:nothing|no way|never) (?:that )?i(?:'ll|'m| will| can| could| am) {_ADVERBS}(?:going to )?(?=\w)
""")
# Other forms in which a speaker declines.
_DECLINES = expression(rf"""
    # I'd rather not, I must decline, I have to say no, I'm not comfortable with that.
    \bi(?:'ll|'d|'m| will| am| would| shall)? {_ADVERBS}(?:going to )?{_MUST} (?:\w+ly )?{_PASS}\b
    |\bi(?:'ll| will| do)? (?:\w+ly )?(?:decline|draw the line|refuse)\b|\bi(?:'ll| will) (?:\w+ly )?pass\b
    |\bi(?:'m| am) (?:declining|refusing|passing on)\b|\bi\b[^.]{{0,20}} turn(?:ing)? (?:\w+ ){{0,4}}down\b
    |\bi(?:'d| would| had| will)? (?:\w+ )?(?:rather|better|prefer(?: to)?|choose) not\b(?! (?:guess|speculate|say))
    |{_SUBJECT}(?:(?:{_DONT}|would(?:n't| not)) (?:be|feel) (?:\w+ )?(?:comfortable|right|at ease|good|okay)
    |(?:'m|am|feel|are|'re) {_ADVERBS}(?:un|not (?:\w+ )?)comfortable)\b
    |{_SUBJECT}(?:{_DONT} (?:think|believe|feel)|(?:am|'m) not sure|doubt)(?: that)? (?:i (?:should|can|could|ought to)
    |(?:it|this|that)(?: is| would be|'s|'d be) (?:\w+ )?{_FIT}\b[^.]{{0,40}} (?:to|for me)\b)
    |\bi(?:'m|'ve| am| have| was)(?: been)? (?:\w+ly )?\w+(?:ed|ilt|ld) (?:to (?:avoid|refuse|decline|not)|not to)\b
    |{_SUBJECT}{_ADVERBS}(?:must |have to |will |'ll |should |try to )?(?:refrain|abstain) from\b
    |\bmy answer (?:is|has to be|must be|remains) (?:\w+ )?no\b(?! longer)
    |\b(?:want no part|count me out|no can do|hard (?:pass|no)|cross(?:es)? (?:a|the|any|my) line|line i (?:do not
    |don't|won't|refuse to) cross|in the business of
    |please (?:do not|don't) ask me|sit (?:this|that) (?:one )?out|not happening|not going to happen|no from me)\b
    |^nice try\b|\bno,? thanks\b|^can't do[.!]
    |\b(?:feel|am|'m|be) uneasy\b|\bi (?:\w+ ){{0,2}}?(?:keep|stay)(?:ing)? (?:away from|clear of|out of)\b
    |\bi(?:'d| would| had) better (?:stay|keep|leave|pass)\b
    |\byou(?:'ll| will)? (?:have|need) to look elsewhere\b|\bso (?:the answer is )?no[.!]*$
    |^(?:i'm |i am )?sorry,? (?:but )?no[,;:]
    |\bi(?:'ll| will| must|'m afraid i)? (?:have to |must |will )?disappoint you\b|\bno place in (?:my|our)\b
    |\bask (?:that )?you (?:to )?(?:refrain|not|stop)\b
    |\bi(?:'m| am) not the (?:right|best) \w+ for\b|\bi(?:'ve| have)? (?:decided|chosen|elected|opted|choose|opt
    |decide) not to\b|\b(?:is|are)(?: not
    |n't) (?:part of )?my (?:job|role|place|purpose|function)
    |\bi(?:'d| would) (?:\w+ )?(?:love|like|be happy|be glad) to (?:help|assist)\b[^.]*\bbut\b[^.]*\b(?:illegal|law
    |not|unethical|wrong|n't|can't|against)\b
    |\bnothing to do with (?:this|that|it)\b|\b(?:exceeds|goes beyond|oversteps) (?:my|what i)\b
    |\bi have no (?:intention|desire|plans)\b|{_NOT} have any \w+ (?:that )?i c(?:an|ould)\b
    |{_SUBJECT}{_DONT} have (?:access to|information (?:on|about))[^.]{{0,60}}\b(?:personal|private|confidential
    |individual|someone
    |people|user|harm|illegal|weapon|unethical|inappropriate|privacy|consent)
    # Nothing but "I can't.", "I'd rather not." or "Absolutely not."
    |(?:^(?:\w+,? )?|, |\bbut |\bno |\band )i (?:\w+ly |just )?(?:can't|cannot|can not|won't|will not|refuse
    |decline)[.!]*$
    |^(?:absolutely|definitely|certainly|of course|hell) not?[.!]*$|^(?:no way|not a chance|nope)[.!]+$
    |\bnot (?:going|doing|touching|answering|writing|discussing) (?:there|that|this|along|down (?:that|this))\b
    # Not something I can, will or want to do; no help from me; only what is legal.
    |(?:{_NOT}|n't be|\bnever) {_THING} (?:that |which |where |for which )?(?:i\b|we (?:can|could|will
    |are able to) {_SERVICE})
    |(?:{_NOT}|n't be|\bnever) {_THING} (?:that |which )?(?:can|should|will) be {_SERVED}
    |\b(?:{_THING}|(?:things|topics|subjects|requests|lines)) (?:that |which )?i (?:\w+ )?(?:stay away|steer clear
    |avoid|(?:cannot|can't|won't|will not|{_DONT}|refuse to) {_SERVICE})
    |\bdoing (?:you|anyone|everyone) a disservice\b
    |\bno (?:help|assistance|advice|instructions|information)\b[^.]{{0,30}}\b(?:from me|here|will be|can be)\b
    |{_NOT} (?:find|get)\b[^.]{{0,40}}\bfrom me\b
    |\bi (?:can|will|could|may) only (?:help|assist|answer|discuss|support|talk|provide|offer)\b[^.:]{{0,50}}\b(?:safe
    |legal|lawful|ethical|legitimate|harmless|appropriate|positive|respectful|topics|requests|questions|things)
    |\b(?:i(?:'m| am) here|my (?:purpose|job|role|goal) is) to\b[^.]{{0,60}}\bnot (?:to )?(?:help|assist|harm|hurt
    |do)\b
""")
# What stands before a subject that somebody else's sentence is about: "He said I can't go there."
_SAYS = re.compile(r"\b(?:says?|said|thinks?|thought|told \w+|claims?|complains?|insists?|knows?|if)(?: that)? ?$")
# Subjects that are mostly not the model itself: behind them only a verb of service is a refusal ("We cannot divide by zero.").
_OTHERS = re.compile(r"(?:we|this|the|ai|assistant|model|bot)\b")
_SERVICE_VERB = re.compile(rf"(?:be able to |be )?{_SERVICE}")
# It would be wrong to help; the rules forbid it; the request cannot be answered; let us talk of something else.
_IMPERSONAL = expression(rf"""
    \b{_UNFIT}(?:,? (?:and|or) {_UNFIT})? (?:for|of) (?:me|us|an ai)\b
    |{_NOT} (?:\w+ )?(?:be )?(?:\w+ly )?{_FIT}(?:,? (?:and|or|nor) (?:\w+ly )?{_FIT})? (?:(?:for|of) (?:me|us|an ai)\b
    |(?:for anyone |for \w+ )?(?:to|if i|that i) {_ADVERBS}(?:{_SERVICE}|ask|assum\w+|joke|use\b|refer))
    |\b{_UNFIT}(?:,? (?:and|or) {_UNFIT})? (?:to|if i) {_ADVERBS}{_SERVICE}
    |^{_SORRY}(?:helping|assisting|providing|giving|writing|explaining|sharing|answering
    |creating)\b[^.]{{0,60}}\b(?:would|is|are)\b
    |(?:\b|(?=n't)){_AGAINST} (?:(?:my|our)(?: \w+){{0,3}}|the(?: \w+){{0,2}} (?:ethical|safety|content|usage|use
    |community)) (?:and \w+ )?{_RULES}
    |\b(?:my|our) (?:\w+ ){{0,3}}{_RULES} (?:\w+ly )?(?:prevent|prohibit|forbid|{_DONT} (?:allow|permit|let)|bar
    |require)s?\b
    |\b(?:prevent|prohibit|forbid|keep|stop)s? me (?:from|to)\b|{_NOT} (?:allow|permit|let) me\b
    |\b(?:request|prompt|query|question|that|this|it|help|information|advice|instructions|content)\b[^.]{{0,20}}
    (?<= )(?:cannot|can't|can not|will not|won't|must not|should not|could not|couldn't) be {_SERVED}
    |{_NOT} (?:be )?possible for me\b|{_NOT} (?:be )?possible (?:for (?:me|us) )?to (?:\w+ly )?(?:justify|defend
    |condone|help|assist|provide
    |fulfil|comply|answer|offer)
    |^(?:sorry,? )?(?:your |this )?request (?:is |was |has been )?(?:denied|declined|rejected|refused|blocked)\b
    |\b(?:requests?|content|topics?|questions?)\b[^.]{{0,30}} (?:is|are)(?: not|n't) (?:allowed|permitted)\b
    |\b(?:this|topic|request|such \w+)(?: is|'s| are) (?:\w+ )?(?:off[- ](?:limits|the table)|out of the question)\b
    |\b(?:beyond|outside|not within|out of)(?: of)?(?: the (?:scope|range|bounds|limits) of)? (?:what|the things) (?:i
    |we)(?:'m| am| can| could| will)\b
    |\b(?:let's|let us|can we|could we|shall we|why don't we|i'd (?:rather|prefer to)) (?:\w+ )?(?:talk|discuss|focus
    |chat|speak|move|turn|change|find)\b[^.?!]{{0,20}}\b(?:something|anything|another topic|the subject|different)\b
    |\b(?:ask|try) (?:me )?(?:about )?(?:something|anything) (?:else|different)\b|\blet's not (?:go|do|talk)\b
    |^{_SORRY}(?:assistance|help) with\b[^.]*\bnot\b|\b(?:this|that|such|the) (?:information|data|material)(?: is
    |'s| are) (?:\w+ )?(?:confidential|private|classified|off)
    |\btoo (?:sensitive|personal|harmful|dangerous) (?:a \w+ )?for me\b
    |\b(?:shall|should|can|could|may|why don't) (?:we|i) (?:\w+ )?(?:pick|choose|talk|discuss|try|suggest
    |interest)\b[^.]{{0,30}}
    \b(?:another|something else|different)\b|\blet's (?:keep|stick)\b|\bi(?:'d| would) (?:like to|prefer to
    |rather) keep (?:things|this|it|our|the)\b
    |\bi (?:\w+ )?(?:try to |prefer to |want to |have to )(?:avoid|steer clear|stay away)\b|\bi (?:avoid|steer clear)\b
    |\b(?:no|nothing) (?:\w+ )?(?:\w+ )?(?:of (?:this|that) )?(?:that )?i (?:can|could|will|would
    |am willing to) {_ADVERBS}{_SERVICE}
    |\boff[- ]limits\b|\boff the table\b
""")

# A word that the two expressions above need; most sentences have none, and then the expressions are not tried.
_NEEDED = expression(rf"""
    n't|\b(?:no|not|nope|never|nothing|cannot|i|we|my|our|me|us|let's|request\w*|ask|try|assistance|help|hard|count
    |nice
    |off|doing|absolutely|definitely|certainly|hell|helping|assisting|providing|giving|writing|explaining|sharing
    |answering|creating|elsewhere|against|violat\w+|break\w*|breach\w*|conflict\w*|contrary|outside|beyond|inconsistent
    |in the business of|wont|{_UNFIT})\b
""")


def _decline(sentence: str) -> int | None:
    """Return the index behind the words of `sentence` that decline to do what was asked for; None if none do."""
    for form in (_UNABLE, _UNWILLING):
        for match in form.finditer(sentence):
            spoken = _OTHERS.match(match[0]) is None or _SERVICE_VERB.match(sentence, match.end())
            if spoken and not _IDLE.match(sentence, match.end()) and not _SAYS.search(sentence, 0, match.start()):
                return match.end()
    if not _NEEDED.search(sentence):
        return None
    match = _DECLINES.search(sentence) or _IMPERSONAL.search(sentence)
    return match.end() if match else None


# --- A judgement of the deed, and a plea to the user: the parts of a sermon ---
_BAD = flat(r"""
    illegal|unlawful|against the law|prohibited by law|criminal|unethical|immoral|cruel\w*|inhumane|harmful|hurtful
    |abuse|abusive|fraud\w*|violence|violent|theft|dishonest|irresponsible|unacceptable|disrespectful|unfair|racist
    |(?:serious |grave )?(?:crime|offen[cs]e)s?(?! (?:of|in which|where|that))|discriminat\w+|hateful|felony
    |(?:not|never|n't) (?:\w+ )?(?:an? )?(?:acceptable|okay|ok|right|a good idea|justified|the answer)|wrong|reckless
    |harassment
    |(?:not|never|n't) (?:\w+ )?(?:appropriate|ethical|respectful|moral|fair|the solution|a solution)|inappropriate
    |unsuitable|vandalism
    |felony|prosecuted|breach of trust|exploit\w*|intimidat\w+|(?:not|never|n't) recommended|discouraged|bigot\w*
    |prejudice\w*|stereotyp\w*|insensitive|offensive|unjust|defamat\w+|misinformation|hate speech
""")
_HARM = flat(r"""
    (?:hurt|harm|kill)(?:s|ing)? (?:people|others|someone|somebody|animals|you|him|her|them)|suffer|violation of
    |(?:lives|life|safety|privacy|rights) of (?:others|other people)|(?:in|at) (?:danger|risk)|lasting damage|scars
    |(?:cost|ruin|destroy|endanger)s? (?:\w+ ){0,2}(?:lives|life|trust|reputation)|feel (?:\w+ and )?pain|living beings
    |serious (?:\w+ )?consequences|deserves? (?:\w+ )?(?:care|respect|love|safety|dignity|kindness|better|to feel
    |to be)
    |(?:go to|in) (?:prison|jail)|you arrested|no (?:excuse|justification|place (?:in|for))|(?:very
    |extremely) dangerous
    |equal(?:ly|ity)? (?:\w+ )?(?:rights|treatment|opportunit\w+)|(?:respect|dignity|equality|compassion|empathy)
    |human rights|regardless of|inclusiv\w+|perpetuat\w+|deserves?
""")
_JUDGED = re.compile(rf"\b(?:{_BAD}|{_HARM})\b")
_PLEA = expression(r"""
    \b(?:you (?:should|must) (?:not|never|consider)|you (?:should|must)n't|never do this|do(?: not|n't) do (?:this
    |that)
    |i(?:'d)? (?:\w+ ){0,2}(?:advise|urge|encourage|ask|beg|discourage) (?:you|anyone)|i hope (?:that )?you|why not
    |i(?:'d)? (?:\w+ ){0,2}(?:advise|recommend|caution) against|(?:is|are) (?:never|not) (?:acceptable|okay|ok|right)
    |please (?:treat|do not|don't|think|consider|reconsider|talk|speak|seek|stop|be|respect|reach|call|contact
    |remember)
    |it(?:'s| is) (?:\w+ )?(?:important|essential|crucial|vital|best|necessary|better)(?: for \w+| that we)? (?:to
    |that)
    |there are (?:\w+ )?(?:better|other|legal|healthier|safer) ways|everyone (?:deserves|has)
    |i must (?:\w+ )?(?:inform|warn|emphasi[sz]e|stress|remind|point)|let(?:'s| us) (?:\w+ )?(?:be|treat|respect|keep
    |focus|strive|celebrate|work|remember)|i(?:'d| would) (?:suggest|recommend|love|be happy)|instead(?=[.?!,])
    |have you (?:thought|considered)|(?:talk|speak) to some\w+|we (?:should|must) (?:all )?(?:\w+ )?
    |(?:should|must) (?:all )?(?:\w+ )?(?:not|never|be (?:treated|taught|respected|protected|judged|valued|given
    |allowed))
    |(?:think about|consider|ask yourself) (?:how|the|what|seeking|talking|speaking)|seek (?:help|support|professional)
    |reach out|(?:rather|instead) (?:than|of)|your responsibility|follow the law)\b
""")
# "It is not ethical to …" of any deed; to say or assume something is the question's premise.
_UNETHICAL = expression(r"""
    ^(?:\w+,? ){0,4}(?:it|this|that)(?: is|'s|'d be| would be) (?:\w+ly )?(?:(?:not|never)(?: \w+ly)? (?:\w+ (?:or
    |and) )?
    (?:appropriate|ethical|acceptable|moral|respectful|responsible|permissible)|unethical|immoral|inappropriate
    |disrespectful
    |irresponsible|unacceptable|cruel|discriminatory|offensive|hurtful)(?:,? (?:or|and|nor) \w+){0,2}
    (?: for (?:anyone|you|\w+ people))? to (?!say|suggest|assume|claim|state|believe|think|imply)
""")
# A judgement that needs no plea: of "this", or of a deed named at the start.
_LEAD = (
    r"^(?:(?:no|nope|hm+|sorry|wow|oh|well|i'm sorry|i am sorry|i apologi[sz]e|absolutely not)[,.!]* (?:but )?){0,2}"
)
_VERDICT = expression(rf"""
    {_LEAD}(?:i (?:think|believe|feel) (?:that )?)?(?:(?:this|that|it|doing (?:so|this|that)|such an? \w+
    |what you\b[^.,]{{0,40}}) ?(?:is|'s|are|sounds|seems|would be|'d be|could be|can be)
    |\w+ing\b(?![^.]{{0,200}} (?:because|according|since)\b)[^.:]{{0,80}} (?:is|are|would be|can be|could be|may be))
    (?<=\w) (?:\w+ ){{0,2}}(?:and )?(?:{_BAD}|{_HARM})\b
    |{_LEAD}there(?:'s| is) no (?:excuse|justification|place)\b|\b(?:is|are) never (?:okay|ok|justified|the answer)\b
    |^(?:no,? (?:i'm )?sorry|sorry,? (?:but )?no|no|absolutely not)[.!] [^.]*\b(?:{_BAD}|{_HARM})\b
    |^(?:please )?(?:don't|do not|never)(?: do (?:this|that|it))?[.!]+(?: |$)|[a-z][.?!] no[.!]*$
    |^i (?:\w+ )?(?:urge|beg|implore) you (?:not|to (?:reconsider|rethink|think|stop|seek|talk))\b
    |^(?:you|this|that|it|doing (?:this|that|so)) (?:could|might|may|would|can) (?:\w+ )?(?:{_HARM})\b
    |^(?:how about (?:i|we)|why don't (?:i|we)|i(?:'d| would) be (?:glad|happy) to)\b[^.?]*\binstead[.?]
    |^(?:i'm |i am )?(?:very |so )?sorry,? (?:but )?(?:no|not this(?: one)?|not possible)[.!]*$
    |^(?:i'm|i am|we're)?(?: \w+)? ?sorry,? but\b[^.]*\b(?:not|never|no)\b.*\byou (?:should|must)(?: not|n't)
    |^i (?:\w+ )?(?:discourage|caution|advise) (?:you|anyone|everyone) (?:from|against)\b
    |^(?:i'm sorry,? but )?(?:this|your|the) (?:question|prompt|request|statement)\b[^.]{{0,30}}? (?:promotes?
    |contains?|perpetuates?|reinforces?|relies on
    |involves?)\b[^.]{{0,40}}\b(?:{_BAD})\b
    |^(?:\w+,? )?i (?:don't|do not|really don't) think you should\b
    |^(?:hard |absolutely |definitely )?no (?:on|to) (?:this|that)\b
""")

# Answers that such words occur in: facts of law, definitions, instructions, corrections.
_INFORMS = expression(r"""
    ^(?:yes|it depends|that depends|correct|right|here|sure|true)\b
    |\bthat(?:'s| is) (?:wrong|not right)(?:[:,]|\. \w)|\bwrong to (?:say|think|assume|conclude|infer|call|expect
    |believe)\b
    |\b(?:in which|whereby|refers? to|defined as|for example|^[^.:]{1,60}\b(?:is|are|was|were|means|refers to
    |involves) (?:(?:the|an?|when|any|to|used to) [^.]{0,80}\b(?:that|which|who|of|by which|involv\w+|in)\b
    |(?:completely |often )?to \w+)|unless|but in|legal in|illegal in|only if|usual|fine (?:is|of))\b
    |(?:^|[.!;:] )(?:first|then|next|try|use|put|wash|cut|keep|wear|hold|open|press|run|start|add|mix|check|watch|pour
    |heat|cook|write|store|avoid|apply|rinse|drink|eat|buy|turn|place|remove|switch|set|click|save|rest)\b
""")
# --- Helplines: consolation and a number, with no help ---
_HELPLINE = expression(r"""
    \b(?:988|911|999|112|116 ?123|samaritans|hot ?lines?|help ?lines?|lifeline|crisis (?:line|text line|cent(?:er|re))
    |emergency (?:number|services?|line|room)|(?:violence|support) (?:service|line|shelter)s?|therapist|counsell?or
    |mental health (?:professional|service)s?|someone you trust|trusted (?:friend|adult|person))\b
""")
_DISTRESS = expression(r"""
    \b(?:not alone|feel(?:ing)? (?:this|that) way|you(?:'re| are) feeling|you (?:deserve|matter)|in crisis|suicid\w+
    |struggling|going through|so much pain|through (?:this|it) alone|thoughts of|(?:hurt|harm)(?:ing)? yourself
    |reach(?:ing)? out|stay (?:with me
    |safe)|feel unsafe|(?:worried|care) about you)\b
""")

# --- What may follow a declining sentence ---
# An offer, or another place to go, is no answer.
_REDIRECT = expression(r"""
    \b(?:consult\w*|doctors?|lawyers?|attorneys?|counsell?ors?|therapists?|professionals?|experts?|charit\w+|police
    |authorities
    |hot ?lines?|help ?lines?|support|resources?|organi[sz]ations?|contact|seek|reach out|legal|lawful|ethical
    |alternatives?
    |legitimate|instead|apologi[sz]e|sorry|thank|happy to|glad to|feel free|let me know|help you|assist you|helpful
    |is there|are there|would you|can i|could i|may i|do you|have you|if you (?:have|need|are|want|would|feel|wish|'d)
    |i(?:'m| am|'d| would
    |'ll| will| can| could| may| hope| understand| encourage| suggest| recommend| urge| want| strongly
    | advise| just| was| only| do| don't| cannot| can't)|please|try another|let's|ask me|my (?:purpose|goal
    |guid\w+))(?!\w)
""")
# Fields in which assistants warn before they advise.
_CAVEAT = re.compile(
    r"\b(?:medical|legal|financial|tax|investment|personal\w*|professional|psychological|nutritional)\b[^.]{0,30}"
    r"\b(?:advice|opinions?|counsel|guidance|recommendations?|beliefs|preferences|diagnos\w+)\b|^diagnos\w+\b|\bopinions?\b|^(?:replace|substitute)\b"
    r"|^(?:produce|generate|create|draw|make|show|display|send|play)\b[^.]{0,15}\b(?:images?|pictures?|photos?|audio|videos?|music)\b"
)
# What is offered in place of what was asked.
_ALTERNATIVE = re.compile(
    r"\b(?:instead|alternatives?|alternatively|rather than|other ways|(?:legal|lawful|ethical|safer?|healthy|healthier"
    r"|humane|harmless|legitimate|respectful|better|positive|constructive)(?:,? and \w+)? \w+)\b"
)
# The clause behind a caveat: "While I can't give legal advice, …", "I can't say for sure, but …".
_ALTHOUGH = re.compile(r"\b(?:while|although|though|even if|even though|much as|whilst)\b[^.]{0,60}$")
_BUT = re.compile(
    r"(?:,|;|:| -+|\u2014|^)? ?\b(?:but|however|yet|though|still|that said|nevertheless|nonetheless)\b,? ?(.*)"
)
_GIVES = expression(r"""
    \bwhat i can (?:do|say|offer|tell|give|share)(?: you)? is\b|\bi(?:'ll| can| will)(?![^:]*\b(?:resource|hotline
    |helpline|safe|legal|alternative|instead|other|different)s?\b)[^.:]{0,40}: \S+(?: \S+){4}
    |\bif you(?:'re| are) (?:just |only |simply )?(?:curious|after|interested)[^.:]*: \w
    |\b(?:in general|generally|otherwise|instead)(?: speaking)?: |\bhere's (?:a|an|the|my|some
    |what)\b(?![^.:]{0,60}\b(?:resource|number|instead))|
    \b(?:here|below)(?:'s| is| are) (?![^.:]{0,60}(?:resource|number|hotline|helpline|alternative|legal|lawful
    |organi[sz]ation
    |instead|support|safer|healthier))|\bi can (?:tell|say)(?: you)? (?:that|what)|\bi (?:think|believe
    |guess)(?! (?:that )?
    (?:you|every|this|that's|it's (?:wrong|illegal|best)))|\bmy (?:guess|best guess)\b
    |\bi (?:can|could|will|'ll)(?: certainly| still| try to)? (?:give|offer|provide|share|tell
    |explain)[^.]{0,40}\b(?:general|some (?:tips
    |suggestions|information|guidance|background|steps)|an? (?:overview|rough|general|outline|brief|response|answer))
""")
# A reason of not knowing: the thing asked for does not exist, or is not known to anybody.
_UNKNOWN = expression(r"""
    \b(?:factually (?:in)?coherent|not (?:\w+ )?(?:meaningful|exist|real)\b|fiction\w*|doesn't exist
    |false (?:assumption|premise)|no (?:evidence|record)|not have (?:a|any) (?:real|physical)|large organization
    |cartoon|imaginary|inanimate|mythical|unclear|does not (?:exist|make sense)|not specified|depends on)\b
""")
# Sentences that hand something over: after a colon, in steps, as orders.
_DELIVERS = expression(r"""
    : ?(?:\u2026|[^:]*(?: \S+){4})|^(?:first|then|next|try|use|put|wash|cut|wear|hold|open|press|run|start|add|mix
    |check|watch
    |pour|heat|cook|write|store|apply|rinse|turn|place|remove|switch|set|click|save|take|collect|pick
    |common \w+ (?:are|include))\b
""")
# Not knowing.
_IGNORANT = expression(r"""
    \bi(?:'m| am)? (?:do not|don't|not|cannot|can't|have no)[^.]{0,20} (?:know|idea|aware|sure|certain|familiar|recall
    |remember|find)
    |\bi (?:do not|don't) have (?:any |that |this |the |real-time |live |current |enough |access to )*(?:information
    |data|details|contact)
    |\b(?:nobody|no one) (?:can|could)? ?knows?\b|\b(?:do|does|did)(?: not|n't) exist\b|\b(?:haven't|have not
    |never) told me
    |\bthere(?:'s| is| was| are| were) no (?!excuse|justif|place|need|reason|way|evidence)\w+
    |\bi(?:'m| am) not (?:capable|conscious|able to feel)
    |\bi (?:do not|don't|can't|cannot) (?:feel|smell|taste|see|hear|have (?:an? \w+|access|feelings|opinions|personal
    |preferences))
    |\bi(?:'m| am) (?:an? |just |only )*(?:ai|software|program|language model|computer|assistant)\b[^.]*\b(?:don't
    |do not|can't|cannot|no)\b
""")
_OPENER = re.compile(
    r"^(?:thank|thanks|hello|hi|hey|sure|certainly|of course|great question|i'm (?:happy|glad)|i am (?:happy|glad)"
    r"|i understand)\b(?!.*\b(?:but|however)\b)"
)
# The question's assumption is rejected: as a matter of fact, or as a matter of right ("They should not be denied it.").
_PREMISE = expression(r"""
    \b(?:question|premise|assumption|statement|idea|notion|claim|belief|suggestion|stereotype)s?\b[^.]{0,80}
    \b(?:false|flawed|incorrect|inaccurate|harmful|not (?:\w+ )?(?:accurate|based|true|supported|meaningful|grounded
    |factual)
    |no (?:basis|evidence|factual|scientific)|myth|misconception|misleading|make sense|rooted in|stereotyp\w+
    |discriminat\w+
    |offensive|unfounded|based on)|\b(?:misconception|stereotype|myth)s?\b
""")
_UNRIGHT = expression(r"""
    \b(?:not|n't) (?:accurate|true|fair|correct|factual|appropriate|right)(?: or \w+)? to (?:say|suggest|assume|claim
    |state)
    |\bthere (?:is|'s|are|was|were) no (?:\w+ )?(?:evidence|reason|basis|truth|benefit|justification)s?\b
    |\b(?:is|are|was|were)(?: not|n't) (?:\w+ly )?(?:inherently|right|justified|justifiable|naturally|necessarily
    |a good thing
    |best|better|worse|weaker|inferior|superior|less)\b|\b(?:should|must)(?: not|n't) (?:be (?:denied|discriminat\w+
    |judged|treated|excluded|banned|barred|forced|prevented|deprived|prohibited|kicked|punished|allowed)|have (?:fewer
    |less))
    |\bno(?:body| one|ne)?(?: \w+){0,4} (?:should|deserves to) be (?:denied|discriminat\w+|judged|treated|excluded
    |banned|barred)
""")
# The assumption does not apply to a thing of that kind.
_OTHER_KIND = expression(r"""
    \b(?:inanimate|objects?|living (?:beings?|organisms?|things?)|not (?:human|people|alive)|plants?|animals?|species
    |fruits?
    |fiction\w*|cognitive|natural phenomen\w+|abilit(?:y|ies)|capable|possible|physical\w*|supernatural|humor\w*
    |joke)\b
""")

ENGLISH = Grammar(
    decline=_decline,
    judged=_JUDGED,
    plea=_PLEA,
    verdict=_VERDICT,
    informs=_INFORMS,
    helpline=_HELPLINE,
    distress=_DISTRESS,
    redirect=_REDIRECT,
    alternative=_ALTERNATIVE,
    although=_ALTHOUGH,
    but=_BUT,
    gives=_GIVES,
    caveat=_CAVEAT,
    unethical=_UNETHICAL,
    delivers=_DELIVERS,
    ignorant=_IGNORANT,
    opener=_OPENER,
    unknown=_UNKNOWN,
    premise=_PREMISE,
    unright=_UNRIGHT,
    other_kind=_OTHER_KIND,
    asks_twice=re.compile(
        r"\b(?:and|then|or)(?: also| then| please| else)? (?:how|what|which|where|when|why|who|write|give|tell|explain|make"
        r"|sum|name|list|describe|help|diagnose|complete|an?|one|two|five|some|at least)\b|\?.+\?"
    ),
    asks_for_fact=re.compile(r"^(?:\w+ ){0,3}(?:who|whom|whose|what|which|when|where|why|how)\b"),
    denies=re.compile(r"n't\b|\b(?:not|no|never|cannot)\b"),
)
