"""Tells what only asks for something from what tells something.

A text tells something if one of its sentences does, apart from code and quotations. A sentence
does not if it is a question, a request, a greeting, thanks or a word or two. Requests begin with
the form of a verb that gives an order, maybe after a polite word. No list of verbs is complete;
what is not in it counts as telling.
"""

from __future__ import annotations

import re

#: What is not the user's own statement: code, quotations, and what only might be.
FOREIGN = re.compile(r"```.*?(?:```|\Z)|^[ \t]*>.*$|“[^”]*”|\"[^\"\n]*\"", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"[^.!?。！？؟…\n]+[.!?。！？؟…]*")
_QUESTION_MARKS = ("?", "？", "؟", ";")  # the last one is Greek

_POLITE = (
    r"(?:(?:please|pls|kindly|ok(?:ay)?|now|then|so|and|but|also|just|first|next|hey|hi|hello"
    r"|never ?mind|thanks|thank you|sorry|great|bitte|jetzt|und|dann|nun|mal|hallo"
    r"|s['’]il (?:te|vous) pla[iî]t|maintenant|et|bonjour|por favor|ahora|y|hola"
    r"|per favore|ora|e|ciao|alsjeblieft|en|пожалуйста|теперь|и|привет)\b[ ,:!–—-]*)*"
)
_ENGLISH = (
    r"(?:add|adapt|analy[sz]e|answer|apply|ask|brainstorm|build|calculate|change|check|choose"
    r"|classify|clean|code|combine|come up|compare|complete|compose|compute|continue|convert"
    r"|correct|count|create|critique|debug|define|delete|derive|describe|design|determine|develop"
    r"|discuss|do|draft|draw|edit|elaborate|estimate|evaluate|expand|explain|extract|fill|find|fix"
    r"|format|generate|give|go on|guess|help|identify|imagine|implement|improve|include|insert"
    r"|invent|keep going|let['’]s|list|look up|make|match|merge|modify|name|optimi[sz]e|order"
    r"|organi[sz]e|outline|paraphrase|parse|pick|plan(?! for)|play|predict|prepare|pretend|produce"
    r"|proofread|propose|prove|provide|put|quote|rank|read|recommend|refactor|remove|rename"
    r"|rephrase|replace|reply|respond|reverse|review|revise|rewrite|roleplay|run|say|search"
    r"|select|show|simplify|simulate|solve|sort|speak|spell|start|state|stop|suggest|sum up"
    r"|summari[sz]e|talk|teach|tell|test|think|transform|translate|try|turn|update|use|verify"
    r"|walk me|write)\b(?! (?:is|are|was|were|has|had|will|of)\b)"
)
_OTHERS = (
    r"(?:schreib|erklär|übersetz|fass|gib|gibt|zeig|mach|nenn|erstell|hilf|sag|berechne|vergleich"
    r"|verbesser|korrigier|beschreib|liste|finde|such|erzähl|generier|formulier)\w{0,2}\b"
    r"|(?:écri[st]|écrivez|expliqu|tradui[st]|traduisez|résum|donne|montre|fai[st]|faites|crée|aide"
    r"|di[st]|dites|calcul|compar|corrig|décri[st]|décrivez|liste|trouve|raconte|génère)\w{0,3}\b"
    r"|(?:escrib|explic|traduc|traduz|resum|dame|muéstra|haz|crea|cre[ae]|ayúda|calcul|compar|corrig"
    r"|describ|encuentra|genera|escrev|dê-me|mostre|faça|crie|ajude)\w{0,4}\b"
    r"|(?:scriv|spieg|traduci|riassum|dammi|mostra|fai|crea|aiuta|calcola|confronta|corregg|descriv"
    r"|elenca|trova)\w{0,3}\b"
    r"|(?:schrijf|leg uit|vertaal|vat|geef|toon|maak|bereken|vergelijk|verbeter|beschrijf|zoek)\b"
    r"|(?:напиши|объясни|переведи|сделай|покажи|дай|создай|помоги|скажи|посчитай|сравни|исправь"
    r"|опиши|найди|расскажи|перескажи|составь|придумай)\w{0,2}\b"
    r"|(?:请|請|帮我|幫我|给我|給我|告诉我|告訴我|写|寫|解释|解釋|翻译|翻譯|总结|總結|列出|生成)"
)
_REQUEST = re.compile(
    rf"{_POLITE}(?:{_ENGLISH}|{_OTHERS}|(?:can|could|would|will) you\b|(?:kannst|könntest) du\b"
    r"|(?:peux-tu|pouvez-vous|puedes|podrías|você pode|puoi|kun je|можешь)\b"
    r"|I(?: want|['’]d like| would like| need) you to\b|ich möchte,? dass du\b)",
    re.IGNORECASE,
)
#: Where the request stands at the end of the sentence.
_REQUEST_ENDS = re.compile(
    r"(?:してください|して下さい|てください|て下さい|をお願いします|教えて|書いて|説明して|翻訳して|해줘|해주세요|주세요|알려줘)[。.!！]*$"
)
_QUESTION = re.compile(
    rf"{_POLITE}(?:(?:what|who|whom|whose|where|why|how|which|when)(?:['’]s|['’]re| (?:is|are|was"
    r"|were|do|does|did|can|could|should|would|will|has|have|to|many|much|long|old|far|about)\b)"
    r"|(?:is|are|was|were|do|does|did|can|could|should|would|will|has|have) (?:there|it|this|that"
    r"|the|a|an|you|we|I|they|he|she|my|your)\b"
    r"|(?:was|wer|wo|wann|warum|wieso|wie|welche\w*) (?:ist|sind|war|kann|soll|muss|macht|heißt)\b"
    r"|(?:qu['’]est-ce|est-ce que|quel(?:le)?s? (?:est|sont)|comment |pourquoi |combien )"
    r"|(?:qué|cuál|cómo|quién|dónde|cuándo|por qué|cosa|come si|perché|quanto|quem é|o que é)\b"
    r"|(?:что|кто|где|когда|почему|как|сколько|какой|какая|какие)\b"
    r"|(?:什么|什麼|谁|誰|哪|为什么|為什麼|怎么|怎麼|如何|何|なぜ|どう))",
    re.IGNORECASE,
)
_SMALL_TALK = re.compile(
    r"(?:hi|hello|hey|good (?:morning|evening|night|day|afternoon)|thanks?|thank you|cheers|bye|yes"
    r"|no|sure|great|nice|cool|perfect|well done|never ?mind|hallo|danke|guten \w+|merci|bonjour"
    r"|salut|gracias|hola|grazie|ciao|obrigad[oa]|dank je|спасибо|привет|谢谢|你好|ありがとう"
    r"|こんにちは)\b[^.!?,;:]{0,24}[.!…]*$",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")
_FEWEST = 3  # words, or four letters where words are not spaced


def statements(text: str) -> list[str]:
    """The sentences of ``text`` that are the user's own and no questions."""
    sentences = (found[0].strip() for found in _SENTENCE.finditer(FOREIGN.sub(" ", text)))
    return [s for s in sentences if s and not s.endswith(_QUESTION_MARKS)]


def requests(sentence: str) -> bool:
    """Whether the sentence asks for something to be done."""
    return bool(_REQUEST.match(sentence) or _REQUEST_ENDS.search(sentence))


def tells(text: str) -> bool:
    """Whether a text tells something that may be worth knowing later."""
    return any(
        not (requests(sentence) or _QUESTION.match(sentence) or _SMALL_TALK.match(sentence))
        and (len(_WORD.findall(sentence)) >= _FEWEST or len(_UNSPACED.findall(sentence)) > _FEWEST)
        for sentence in statements(text)
    )
