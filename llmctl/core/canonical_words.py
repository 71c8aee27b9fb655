"""The tables of `canonical`: which words say the same, which capitals say nothing, which words are only politeness.

The rule of the room: an entry is right for every reader of every prompt, or it is not here. All words are English.
"""

from __future__ import annotations


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _lines(phrases: str) -> tuple[list[str], ...]:
    return tuple(phrase.split() for phrase in phrases.split(","))


def _pairs(words: str) -> dict[str, str]:
    each = words.split()
    return dict(zip(each[::2], each[1::2], strict=True))


# ---------------------------------------------------------------- what a text must be

WH = _set("what who whom whose which when where why how")
QUESTION = WH | _set("is are was were does did can could should would will has")
ENGLISH = QUESTION | _set("""what's whats how's who's does did explain write give tell show list describe compare
should would could with from and you your this that summarise summarize convert find create define into the it my has
be please""")
"""A text with none of them may be in another language, to which no table here applies."""
OF_WORDS = _set("""translate translation spell spelled spelling pronounce pronunciation grammar grammatical punctuation
proofread rewrite rephrase reword paraphrase edit correct capitalise capitalize uppercase lowercase letter letters
character characters syllable syllables vowel vowels anagram palindrome rhyme rhymes synonym synonyms antonym word
words sentence sentences phrase say says said saying repeat echo print quote stand stands abbreviation acronym encode
decode encrypt hash md5 sha1 sha256 base64 rot13 morse ascii unicode reverse reversed backwards sentiment reply respond
politeness typo typos regex token tokens contraction apostrophe numeral numerals digit digits number numbers homophone
emoji""")
"""A text with one of them may be about how it is written itself, unless what it is about stands in quotes."""
ELSEWHERE = _set("following above below attached")
"""What is meant is not in the text, or in a part of it that says how it is to be read."""
OPINION = _set("think feel believe like love hate want prefer")
"""A `you` who does one of these is asked as a person: no two answers are one."""

# ---------------------------------------------------------------- capitals

ASKED = _set("""explain tell give show write list describe summarise summarize compare define name suggest recommend
create generate draft outline provide convert calculate compute translate help find make design plan compose
identify""")
STARTERS = ASKED | QUESTION | ENGLISH | _set("""a an i i'd i'm in on for if do my it there these those please kindly
pls thanks thank many cheers hi hello hey good greetings quick at to as let""") - _set("will")  # fmt: skip
"""As the first word, what has a capital for no other reason."""
SUBJECTS = _set("i you he she it we they this that these those there the a an my your his her our their")
PLAIN = _set("""africa african america american amsterdam argentina asia asian athens australia australian austria
austrian bangladesh barcelona beijing belgian belgium berlin bolivia brazil brazilian britain british brussels budapest
bulgaria california cambodia canada canadian chicago chinese colombia copenhagen croatia czech denmark dublin egypt
egyptian england english estonia ethiopia europe european finland finnish florida france french german germany ghana
greece greek hungarian hungary iceland indonesia iran iraq ireland irish israel istanbul italian italy japan japanese
kenya korea korean latvia lebanon lisbon lithuania london madrid malaysia mexican mexico milan morocco moscow mumbai
munich nepal netherlands nigeria norway norwegian pakistan paris peru philippines poland portugal portuguese prague
romania rome russia scotland scottish seoul serbia shanghai singapore slovakia slovenia spain spanish stockholm sweden
swedish switzerland sydney syria taiwan texas thailand tokyo toronto ukraine venezuela vienna vietnam vietnamese zurich
monday tuesday wednesday thursday friday saturday sunday january february april june july september october november
december christmas easter halloween anthropic bitcoin blockchain chatgpt css debian docker ethereum facebook fastapi
firefox gitlab github google graphql html http https instagram iphone iphones ipad javascript jira jquery json kotlin
kubernetes laravel linkedin linux macos mariadb microsoft mongodb mysql netflix nginx numpy openai paypal photoshop php
postgres postgresql powerpoint powershell pytest pytorch reddit redis spotify sql sqlite tensorflow terraform tiktok
typescript ubuntu vim vscode webpack whatsapp wifi wikipedia wordpress xml yaml youtube aristotle avogadro bayes
bayesian beethoven boltzmann brownian copernicus darwin dijkstra doppler einstein euler fibonacci fourier freud
gaussian heisenberg kepler laplace leonardo lisa macbeth machiavelli markov marx maxwell michelangelo mona mozart
nietzsche picasso planck pythagoras pythagorean schrodinger shakespeare socrates tolstoy turing vinci algorithm effect
equation hypothesis paradox principle syndrome theorem""")
"""What is one thing with a capital and without: names that are no other word, and the nouns that go with them."""
VOWELS = frozenset("aeiouy")
ACRONYMS = _set("""ai api apis aws cpu cpus dna rna fbi gpu gpus nasa nato pc tv uk eu usa udp ui url urls usb json
yaml php""")
UNITS_LIKE = _set("mbps kbps gbps mrs pms hrs yrs lbs tbs tsp pts pst cmd hmm shh pcs std pwd tmp ptr src")
TOOLS = _set("excel java pandas perl python react")
CODING = _set("""array arrays class code columns csv database dataframe dict dictionary exception file files function
functions html json library list lists loop loops method module object objects package query script string strings
tuple variable variables xml""")
"""Beside one of them, a tool is no animal, island or verb."""
QUOTING = CODING | TOOLS | _set("c shell bash sql sh zsh quote quotes quoted char javascript rust go php yaml")
TWO_FACED = _set("""act aids air amazon amber android angular apple august basic bat bill black board bush cat chase
china chip chrome cook cow crystal dart dell delta django dos eclipse edge elm ember excel express falcon fall flask
ford gap gas gates gem go grant green hip hive hope ice ides intel ira iris iron it jack jade jam java jobs jordan joy
julia lamb latex lima lime mac mad maple march mark mars mass may mercury meta mint moon nice nut oracle orange pan
pandas pat pearl pen perl phoenix pin pink polish port prime puma python rails ram raven react red rest rice rich rob
rock rose ruby rum rust safari sap sat scala scheme shell sim slack soap spa spark spring square stem stone storm
stripe subway sun swan swift target teams telegram turkey unity us vault venus violet visa wales who will windows wolf
word zoom""")
"""Where every word has a capital, nobody can tell which of these were meant."""
SMALL = _set("is the of do does to for and how what are an with why can my by from or")

# ---------------------------------------------------------------- words and numbers

WHOLE = _pairs("""cannot can can't can won't will shan't shall dont do doesnt does didnt did isnt is arent are wasnt
was couldnt could shouldnt should wouldnt would""")
ENDINGS = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'m": "am"}
IS = _pairs("""what's what who's who where's where when's when how's how whats what that's that there's there it's it
he's he she's she""")
DONE = _set("""got gone done made become come known shown taken won lost led run left put read set sold stood taught
thought told built bought brought caught cost cut felt found had heard held hit kept let met paid sent spent not always
never just already""")
"""After `what's` these may say `what has`, and so may all that looks like a participle."""
NUMBERS = _pairs("""one 1 two 2 three 3 four 4 five 5 six 6 seven 7 eight 8 nine 9 ten 10 eleven 11 twelve 12 thirteen
13 fourteen 14 fifteen 15 sixteen 16 seventeen 17 eighteen 18 nineteen 19 twenty 20 thirty 30 forty 40 fifty 50 sixty
60 seventy 70 eighty 80 ninety 90""")
ORDINALS = _pairs("""1st first 2nd second 3rd third 4th fourth 5th fifth 6th sixth 7th seventh 8th eighth 9th ninth
10th tenth""")
SCALES = {"hundred": "00", "thousand": "000"}
TENS = _set("20 30 40 50 60 70 80 90")
TEENS = frozenset(word for word, digits in NUMBERS.items() if len(digits) > 1)
NUMERIC = NUMBERS.keys() | _set("zero dozen half quarter point something odd")
UNITS = _pairs("""kilometer km kilometers km kilometre km kilometres km km km centimeter cm centimeters cm centimetre
cm centimetres cm cm cm millimeter mm millimeters mm millimetre mm millimetres mm mm mm kilogram kg kilograms kg kg kg
milligram mg milligrams mg mg mg milliliter ml milliliters ml millilitre ml millilitres ml ml ml feet ft ft ft percent
% % % hrs hours mins minutes secs seconds""")
"""After a number, names of one thing only: an m may be metres or minutes, a pound weight or money."""
ATTACHED = _set("km cm mm kg mg ml % am pm KB MB GB TB")

# ---------------------------------------------------------------- politeness

GREETINGS = _lines("""hi there,hi,hello there,hello,hey there,hey,good morning,good afternoon,good evening,excuse me,
sorry to bother you,ok so,okay so,ok,okay,so,just wondering""")
ASIDES = _set("hi hello hey there a quick question one just my for you i have q")
"""Of such words alone, what stands before a colon is no part of the question."""
PLEASE = _set("please kindly pls plz")
YOU = _lines("can you,could you,would you,will you,can someone,can anyone,could someone,could anyone")
POLITELY = _lines("""i was wondering if you could,i was wondering if you can,would it be possible for you to,would you
mind,would you be able to,would you be so kind as to,could you be so kind as to,i would like you to,i want you to,i
would appreciate it if you could,i would be grateful if you could,it would be great if you could""")
KNOW = _lines("""i was wondering,i am wondering,i would like to know,i want to know,i am curious,tell me,do you know,do
you happen to know""")
DOINGS = {
    **{word: word for word in ASKED},
    **{word + "ing": word for word in ASKED},
    **{word[:-1] + "ing": word for word in ASKED if word[-1] == "e"},
}
FOR_ME = _set("explain translate convert calculate compute summarise summarize")
THANKS = _lines("""thanks a lot,thanks so much,thanks in advance,many thanks,thanks,thank you very much,thank you so
much,thank you in advance,thank you,cheers,thx,please and thank you""")
OPENERS = QUESTION | ASKED | PLEASE | _set("i i'd do it quick")
NO_OBJECT = _set("""to and or of with without the a as i you they we he she who how not always ask use using add adding
write writing type hear hearing mean means before after than like :""")
BY_LOOKS = _set("look feel sound smell seem taste appear come compare rank not be")
AUXILIARY = _set("am is are was were do did have had can could should would will may might must")
