"""The words of a text that say what it is about, in the languages that we know a little of."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+")

#: Words that questions are made of and that say nothing about what is looked for, by language.
_STOP_WORDS = tuple(
    frozenset(words.split())
    for words in (
        """
        a an the and or but if of at by for with about to from in on into onto as
        is are was were be been being am do does did doing done have has had having
        will would can could should shall may might must not no nor so than then too very just
        i me my mine myself we our ours us you your yours he him his she her hers it its
        they them their theirs this that these those there here such own same both each any some
        what which who whom whose when where why how much many more most other ever
        get gets got getting up down out off over again now please thank thanks hello hi
        s t d m re ve ll don didn doesn isn wasn aren weren
        """,
        """
        der die das den dem des ein eine einen einem einer eines und oder aber wenn als wie
        von vom bei beim für mit über zu zum zur aus in im an am auf um nach vor seit bis durch
        ist sind war waren sein bin bist wird werden wurde hat haben habe hatte hast
        kann können könnte soll sollte muss darf nicht kein keine keinen so sehr nur auch noch
        ich mich mir mein meine meinen meinem meiner wir uns unser unsere du dich dir dein deine
        er ihn ihm sie ihr ihre ihren es man sich dies diese dieser dieses dort hier
        was welche welcher welches welchen wer wen wem wessen wann wo wohin woher warum wieso
        wogegen womit wofür viel viele heißt heißen gibt bitte danke hallo denn mal
        """,
        """
        le la les l un une des du de d et ou mais si que qui quoi quel quelle quels quelles
        à au aux en dans par pour avec sur sous chez depuis est sont était être suis es sera
        a ai as ont avais avait avoir ne pas plus n y ce cet cette ces c se s j je me m moi
        mon ma mes tu te t toi ton ta tes il elle on nous notre nos vous votre vos ils elles
        leur leurs son sa ses quand où comment pourquoi combien appelle faire fait
        puis peux peut merci bonjour svp
        """,
        """
        el la los las un una unos unas y o pero si que qué quien quién quienes quiénes cual cuál
        de del al a en con por para sobre desde hasta es son era eran ser soy eres está están
        estoy estaba fue ha he has han había haber hay no ni muy más ya me mi mis mí yo tú tu tus
        te ti él ella se su sus lo le les nos nuestro nuestra nosotros este esta estos estas
        ese esa eso cuando cuándo donde dónde como cómo cuanto cuánto cuanta cuánta cuantos
        cuántos llama llamo tengo tiene tienes gracias hola favor
        """,
        """
        il lo la i gli le un uno una l e ed o ma se che chi cosa quale quali di del della dei
        delle dello degli a al alla ai alle da dal dalla in nel nella con su sul sulla per tra fra
        è sono era erano essere sei ho hai ha hanno avevo aveva avere non più molto mi mio mia
        miei mie io tu tuo tua ti lui lei si suo sua suoi sue ci noi nostro nostra questo questa
        questi queste quello quella quando dove come quanto quanta quanti quante perché
        chiama chiamo grazie ciao
        """,
        """
        o a os as um uma uns umas e ou mas se que quem qual quais de do da dos das em no na nos
        nas com por para pelo pela sobre desde até é são era eram ser sou está estão estou foi
        tem tenho tens têm tinha ter há não nem muito mais já me meu minha meus minhas eu tu teu
        tua te você ele ela lhe seu sua seus suas nós nosso nossa este esta esse essa isto isso
        quando onde como quanto quanta quantos quantas porque chama chamo obrigado obrigada olá
        """,
        """
        de het een en of maar als dat die dit deze wat wie welke welk wanneer waar waarom hoe
        van voor met over naar uit in op aan bij om te tot door sinds is zijn was waren ben bent
        wordt worden heeft heb hebt hebben had kan kunnen moet mag niet geen zo zeer ook nog er
        ik mij me mijn wij we ons onze jij je jouw u uw hij hem zij ze haar hun het zich hier daar
        veel heet heten alstublieft dank hallo
        """,
        """
        и или но если что кто кого кому чей чья какой какая какое какие каком какого когда где
        куда откуда почему зачем как сколько в во на с со к ко у о об от до из за по для при без
        есть был была было были быть не нет ни так очень уже ли я меня мне мной мой моя моё мое
        мои моего моей мою мы нас нам наш наша ты тебя тебе твой твоя вы вас вам ваш он она оно
        они его её ее их ему ей это этот эта эти зовут называется пожалуйста спасибо привет
        """,
    )
)

#: Letters of scripts that put no spaces between words, or, as Korean, endings to them.
_UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_PART = re.compile(rf"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
#: What stop words are in these scripts: particles, and what questions are made of.
_BETWEEN = re.compile(
    "ください|でしょうか|教えて|どんな|ですか|ますか|です|ます|どこ|いつ|なに|どれ|どの|だれ"
    "|[何誰私僕俺のはがをもに]"
    "|什么|哪里|哪儿|哪个|怎么|多少|为什么|请问|告诉|[谁吗呢吧的了是我你您他她在有]"
    "|인가요|입니까|있나요|무엇|언제|어디|누구"
)

#: Of a text with more words, as many from its beginning and from its end: that is where a message
#: with something pasted into it says what is wanted.
_ENDS = 32

#: Forms of one word that a stemmer does not bring together.
_FORMS = """
begin began begun|bite bit bitten|blow blew blown|break broke broken|bring brought|build built
buy bought|catch caught|choose chose chosen|come came|dig dug|draw drew drawn|drink drank drunk
drive drove driven|eat ate eaten|fall fell fallen|feed fed|feel felt|fight fought|find found
fly flew flown|forget forgot forgotten|give gave given|go went gone|grow grew grown|hang hung
hear heard|hide hid hidden|hold held|keep kept|know knew known|lead led|leave left|lend lent
lose lost|make made|meet met|pay paid|ride rode ridden|ring rang rung|rise rose risen|run ran
say said|see saw seen|seek sought|sell sold|send sent|shake shook shaken|shoot shot|show shown
sing sang sung|sit sat|sleep slept|speak spoke spoken|spend spent|stand stood|steal stole stolen
swim swam swum|take took taken|teach taught|tear tore torn|tell told|think thought
throw threw thrown|understand understood|wake woke woken|wear wore worn|win won|write wrote written
child children|foot feet|life lives|man men|mouse mice|person people|tooth teeth|woman women
"""
_FORMS_OF = {form: group for group in map(str.split, re.split(r"[|\n]", _FORMS)) for form in group}


def words_of(text: str) -> tuple[str, ...]:
    """What ``text`` is about: its words, lower case, in order, each once, without stop words.

    The stop words are those of the language that the text has most of them from. Where words are
    not spaced, each pair of neighbouring letters counts as one (as Lucene's CJK analyzer has it).
    """
    all_words = [part for word in _WORD.findall(text.lower()) for part in _PART.findall(word)]
    stop_words = max(_STOP_WORDS, key=lambda stop: sum(word in stop for word in all_words))
    words = tuple(
        dict.fromkeys(
            piece
            for word in all_words
            if word not in stop_words
            for piece in (_pairs(word) if is_unspaced(word) else (word,))
        )
    )
    return words if len(words) <= 2 * _ENDS else words[:_ENDS] + words[-_ENDS:]


def _pairs(run: str) -> list[str]:
    """``run`` without what it has for stop words, as overlapping pairs of letters."""
    parts = [part for part in _BETWEEN.split(run) if part]
    return [part[n : n + 2] for part in parts for n in range(max(1, len(part) - 1))]


def is_unspaced(word: str) -> bool:
    """Whether ``word`` is of a script in which words are to be looked for within others."""
    return _IS_UNSPACED.match(word) is not None


def forms(word: str) -> list[str]:
    """``word`` with its irregular forms: “bought” is found by “buy”."""
    return _FORMS_OF.get(word, [word])
