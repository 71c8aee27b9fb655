"""Whether an answer to a prompt may be given again: it may not where it depends on the hour, on who asks, or on chance.

The rule of the room: tables of phrases, in English and a few words of other languages. What asks *how* something is
done, or what it is, is asked at no certain time by nobody in particular. What decides is the instruction: of a long
text only its first and its last paragraph, where they are short. A prompt that brings its text along is about that
text, which is in the key: such a prompt is refused for the hour or for chance alone.
"""

from __future__ import annotations

from itertools import pairwise

LIVE, PERSONAL, BACK, RANDOM = "live", "personal", "back-referring", "random"
SHORT = 400
"""In characters: what is longer is an instruction and a document."""
_INSTRUCTION = 300


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(f" {' '.join(phrase.split())} " for phrase in text.split(","))


# ---------------------------------------------------------------- what holds at any time

_HOW = _phrases("""how do,how does,how to,how can i,how should i,how would,how could,what does,what do,what is a,what
is an,define,explain,why do,why does,why is the,write a,write an,implement,regex,describe,design,what causes,what
determines,who wrote,who discovered,who invented""")
_ANYWHERE = _phrases("""in python,in java,in javascript,in c,in rust,in go,in bash,in sql,in php,in ruby,in perl,in
numpy,in postgres,in mysql,in excel,in react,in swift,in html,in css,a script,a function,a program,a method,keyword,
variable,function,simulation,algorithm,sql,git,docker,npm,tense,grammar,the poem,the song,the novel,the beatles,in
english,in statistics,in journalism,difference between,meaning of,history of,theory of,chance of,chances of,probability
of,odds of""")
"""At the start, and anywhere: it is asked how, or what something is."""
_PAST = _phrases("what was,what were,who was,who were")
_HOW_TO = _phrases("""how do,how does,how to,how can i,how should i,why is my,why do,why does,help me,what is the best
way to""")
_WAYS = _phrases("how to,ways to,how do i,how can i")
"""At the start, and anywhere: what is mine in such a question is like anybody's."""
_OTHERWISE = _phrases("""current in a,current through,direct current,alternating current,electric current,current
assets,current account,current directory,current working,current branch,current user,weather like on,weather app,
weather balloon,weather front,and weather,now and then,moon phase,news bias,fake news,latest start,time complexity,time
zone,time zones,do i have to,price elasticity,average price""")
"""Whatever word is in them, they say nothing of this moment or this person."""

# ---------------------------------------------------------------- the hour

_NOW = _phrases("""right now,at the moment,as of now,currently,as we speak,this morning,this afternoon,this evening,
tonight,last night,this weekend,at present,just now,these days,happening in,going on in,near me,nearby,open now,days
until,any news,next year,this quarter,this term,on strike,phase is the moon,moon tonight,24 hours,up or down,will it
rain,will it snow,will it get,this season,this summer,this winter,this spring,this autumn,this hour,last hour,how hot
will,how cold will,chance of rain,chances of rain""")
"""However it is asked."""
_SOON = _phrases("""today,today's,todays,tomorrow,tomorrow's,yesterday,yesterday's,now,this week,this month,this year,
next week,next month,the weekend,latest,newest,most recent,current,upcoming,so far,recent,recently,weather,forecast,is
it raining,raining in,snowing in,trading at,wait time,top stories,going rate,expire,temperature outside,wind speed,
humidity,pollen,best selling,an umbrella,what time,the time,time in,what hour,what day,what date,which date,the date,
stock price,share price,price of,price in,prices in,exchange rate,interest rate,mortgage rates,inflation rate,
unemployment rate,worth in,market cap,stock up,stock down,close at,market open,the score,score of,standings,next train,
next bus,next flight,next game,next match,next episode,next season,next solar,next lunar,next full moon,next election,
next launch,trains running,flights from,flights to,cheapest flight,cheapest hotel,traffic on,traffic in,traffic like,
traffic update,traffic report,how is traffic,the traffic,air quality,when is sunset,when is sunrise,the surf,the news,
news about,headlines,trending,breaking news,people saying,an outage,status of,on tv,movies are,in cinemas,subscribers,
followers,safe to travel,been announced,been released,stable release,stable version,reigning,richest person,in stock,
how old is""")
"""Unless it is asked how."""
_HOLDERS = _set("""top ahead president ceo cto chancellor king queen pope mayor governor champion coach captain leader
leading winning owner minister premier secretary chairman monarch speaker richest""")
_CONTESTS = _set("""reply answer arrive game match fight election debate tournament final finals league bout derby""")
_MONEY = _set("""usd eur gbp jpy chf inr cad aud nzd sek nok dkk pln czk rub krw cny btc eth dollar dollars euro euros
pound pounds bitcoin ethereum yen rupees yuan pesos francs""")
_RIDES = _set("flight train bus plane ferry")
_RUNS = _set("""land lands landing board boarding arrive arrives arriving arrival depart departs departing departure
leave leaves leaving delayed scheduled status gate late""")
_LASTS = _set("up online available yet price")
_IS_IT = _set("down open closed offline")
_STATES = _set("stocks price prices tide tides queue queues situation odds moon's")
_DAYS = _set("""monday tuesday wednesday thursday friday saturday sunday mondays fridays saturdays sundays weekends""")
_DONE = _set("been won sold lost died hit made cut risen fallen gone begun started ended written")
_TIMES = _set("today tomorrow yesterday tonight now current")
_ABROAD = _set("""heute morgen gestern jetzt aktuell aktuelle wetter aujourd'hui demain hier maintenant météo hoy
mañana ayer ahora oggi domani ieri adesso vandaag gisteren hoje amanhã ontem agora dziś dzisiaj jutro wczoraj teraz
pogoda idag imorgon сегодня завтра вчера сейчас погода""")
_SIGNS = ("今天", "今日", "明天", "昨天", "现在", "現在", "天气", "天気", "最新", "오늘", "지금", "날씨")

# ---------------------------------------------------------------- who asks

_ALWAYS_MINE = _phrases("my name is,do i look,i feel,been feeling,wake me")
_MINE = _phrases("""call me,rename me,remind me,remember my,know about me,where am i,where i am,am i,i weigh,i live in,
i was born,i earn,book a table,book me,order me,order more,order some,order a,order another,to my shopping,to my cart,
send an email to my,a message to,turn on the,turn off the,what did i,where did i,should i take,should i eat,should i
wear,what should i cook,should i name,should i tell,should i worry,dangerous for me,safe for me,right for me,do i have,
do you think i,do you think i'm,my week,my day,my ip,my gps,my password is,delete my,i have type,i was diagnosed,track
my,i'm sick,i'm pregnant,i'm depressed,plan my,have i,did i,was i,i owe,i ordered,i spent,i get paid,i need to pay,do i
need to pay,i have left,i have taken,i have used,i need to buy,enough money in,i'm at,i'm out of,wanted to remember,
pto,vacation days,sick days,days off,payday,pay day,paycheck,minimum payment,amount due,the due date,credit limit,
rewards balance,to do list,shopping list,grocery list,chore list,my list of,my list for,todo list,my todo,gps
coordinates,exact location,what location,this location,an uber,uber to,a reminder,reminders,be reminded,who i am,find
my,my location,my bill,my vacation,i want to call,i need to call,i have an appointment,the calendar,a text""")
_WISHES: tuple[list[str], ...] = ([], ["want"], ["need"], ["would"], ["was"], ["wonder"])
_CHOICES = _set("use learn choose pick install prefer store write test study refactor start put call")
"""`Should I` do one of these, anybody may ask."""
_ACTS = _set("text call dial remind play snooze siri alexa send share message pay buy book")
"""As the first word: not an answer is wanted, but a deed."""
_DEVICES, _SETS = _set("timer alarm alarms bill bills"), _set("set start create need cancel stop setting due owe")
_ASKS = _set("""what what's whats when when's where where's who is are was do does did has have show tell list check
read""")
_KIN = _set("""wife husband son daughter girlfriend boyfriend partner mother father mum mom dad sister brother landlord
doctor boss ex fiance baby kid kids child children family salary income rent debt savings bank balance claim mortgage
taxes credit order package parcel appointment meetings calendar schedule inbox email emails messages birthday address
ssn phone card allergies symptoms blood heart weight height age bmi fever headache diagnosis medication anxiety
depression horoscope results knee back neck stomach tooth teeth throat eye eyes ear chest skin hair foot feet leg arm
shoulder ankle wrist period fridge dress outfit face body life name chances last""")
_THINGS = _set("""code query app function script program test tests build docker container server database db api site
website page css html component loop class model data dataset dataframe file files repo repository branch commit
commits pipeline cluster pod vm laptop computer pc mac iphone android screen keyboard mouse monitor tv router wifi
internet network printer battery camera browser excel spreadsheet sheet document pdf essay cv resume plant plants
garden lawn tomatoes dog cat puppy kitten car tires oil bike engine sink toilet oven house home kitchen roof bread
dough cake sourdough recipe list array string json regex terminal shell editor project npm game bot python java node
react django kubernetes linux windows git english""")
_TECH = _THINGS | _set("""error errors install installed installing using install log login run running compile import
exception warning variable column table key user users server request response version upgrade downgrade""")
"""Of mine: what is nobody else's, and what is like anybody's. What is neither is mine where its state is asked for."""

# ---------------------------------------------------------------- what was said before, and chance

_BEFORE = _phrases("""you said,you mentioned,you told,you just,you ask,did you say,i said,as before,the above,earlier,
previously,previous answer,did you,you didn't,you did not,you were wrong,you left off,you wrote,you gave,you forgot,you
missed,my question,go back to,start over,give me another,show me another,write another,give another,suggest another,
last answer,your last,your answer,your previous,my first question,my last question,tell me more,expand on,elaborate,go
deeper,the other one,each of them,which of those,which of these,of those,are you sure,try again,that's wrong,that is
wrong,that didn't,did not work,didn't work,same but,what else,anything else,by that,three more,two more,one more,some
more,that again,it again,once more,repeat that,was said,be repeated,that question,the question,ask me again""")
_ORDER = _set("first second third fourth last next previous final")
_PARTS = _set("""paragraph part version sentence section point bullet one line option item step suggestion answer
question""")
"""The last paragraph is one of an answer that is not here."""
_GOES_ON = _phrases("""hm,that,double check,nope,nah,still,as a,as an,that's,that is,that was,it's,it is not,it
doesn't,it does not,it didn't,and,but,what about,how about,ok,yes,no,same,thanks,now,so,also,then,make it,make that,
make them,rewrite it,rewrite that,translate that,translate it,fix it,fix that,do it,do that,explain that,say that,undo
the last,undo that,shorter,longer,again""")
"""At the start of a short text: it goes on with what was said."""
_LEANS = _set("it that them those instead again one")
_BE = _set("is are was were does did has can could should would will what who where when why how if")
_ALONE = _set("""nope still continue more why yes no ok okay sure yep shorter longer again next go on keep going and
then really thanks thank you please stop elaborate how so what else when where who which done great cool nice hmm it
that this them tell me""")
"""Of nothing else, as is a text of no words."""
_LEADS = _phrases("can you,could you,please,would you,can we,will you")
_CHANCE = _phrases("""heads or tails,roll a,roll two,at random,think of a number,surprise me,another one,tell me
another,different from the,different version,a different name,a different one,something different,something new,this
time,tarot card,lottery ticket,spin the,random number,random word,random password,a random,generate random,shuffle
this,shuffle these,fresh idea,make up a,joke,jokes,something funny,make me laugh,entertain me,amuse me,inspire me,
writing prompt,riddle,fun fact,decide for me,lottery numbers for,random lottery""")
_EACH = _phrases("each time,every time,different one each,different each,new one each")
_COINS, _THROWS = _set("coin coins die dice heads tails"), _set("flip toss roll throw call")
_DRAWS = _set("roll pick flip toss shuffle spin")
_MAKES = _set("generate create make give new")
_GIVES = _MAKES | _set("choose name tell suggest recommend list show what's")
_TOKENS = _set("""uuid uuids guid guids password passwords passphrase token secret username usernames fake pin nonce
salt key""")


def screen(text: str) -> str:
    """Why an answer to `text` is for once only (live, personal, back-referring, random); "" where it may be kept."""
    asked, alone = _instructions(text.strip())
    for each in asked:
        words = _words(each)
        said = f" {' '.join(words)} "
        for phrase in _OTHERWISE:
            said = said.replace(phrase, " x ")
        words = said.split()
        how = said.startswith(_HOW) or _has(said, _ANYWHERE)
        how = how or (said.startswith(_PAST) and _TIMES.isdisjoint(words))
        if alone and _is_personal(each, words, said, how):
            return PERSONAL
        if alone and _goes_back(words, said):
            return BACK
        if _is_live(each, words, said, how):
            return LIVE
        if words and (_has(said, _EACH) or (not how and _is_random(words, said))):
            return RANDOM
    return ""


def _has(said: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in said for phrase in phrases)


def _instructions(text: str) -> tuple[list[str], bool]:
    """What is asked, and whether no text comes with it.

    A short text without a file whole, and a long line by its ends; else the first line, where it begins no file, and
    the last paragraph, where it asks. What is between is a document, and never looked at.
    """
    first = text[: 5 * SHORT].partition("\n\n")[0]
    short = len(text) <= SHORT and not first.startswith("--- ")
    if (short and (first == text or (first[-1:] != ":" and " this " not in f" {first.lower()} "))) or "\n" not in text:
        return [text] if short else [text[:_INSTRUCTION], text[-_INSTRUCTION:]], True
    last = text[-5 * SHORT :].rpartition("\n\n")[2]
    asked = [] if first.startswith("--- ") else [first[:_INSTRUCTION].partition("\n")[0]]
    if len(last) <= _INSTRUCTION and "\n" not in last and (last[-1:] == "?" or not asked):
        asked.append(last)
    return asked, False


def _words(text: str) -> list[str]:
    """The words in small letters, without what is quoted, code, or a name like `The Day After Tomorrow`."""
    words: list[str] = []
    closing = ""
    for at, each in enumerate(text.replace("’", "'").replace("“", '"').replace("”", '"').split()):
        word = each.strip(".,;:!?()[]{}#*")
        if closing:
            closing = "" if word.endswith(closing) else closing
        elif word[:1] in ("'", '"', "`") and word[0] in text[text.find(word) + 1 :]:
            closing = "" if len(word) > 1 and word.endswith(word[0]) else word[0]
        elif at and word[:1].isupper() and word[1:].islower() and word.lower() in _TIMES:
            continue
        elif word and "_" not in word and "()" not in each:
            words.append(word.lower())
    return words


def _is_live(text: str, words: list[str], said: str, how: bool) -> bool:
    if _has(said, _NOW) or not _ABROAD.isdisjoint(words) or any(sign in text for sign in _SIGNS):
        return True
    if how or not words:
        return False
    dated = any(word.isdigit() and len(word) == 4 for word in words) or "first" in words
    who = not dated and said.startswith((" who is ", " who's ", " whos "))
    if who and (not _HOLDERS.isdisjoint(words) or any(word[-3:] == "ing" for word in words[1:3])):
        return True
    if not dated and words[0] in ("who", "did") and not _CONTESTS.isdisjoint(words):
        return True
    if not _RIDES.isdisjoint(words) and not _RUNS.isdisjoint(words):
        return True
    if words[0] in ("is", "are") and not _IS_IT.isdisjoint(words):
        return True
    if not dated and (words[0] in ("has", "have", "any") or not (_STATES | _DAYS).isdisjoint(words)):
        return True
    if words[0] in ("is", "are") and len(words) > 2 and words[-1].endswith(("ed", "ing")):
        return True
    if words[0] == "how" and "has" in words and any(word in _DONE or word[-2:] == "ed" for word in words):
        return True
    if sum(word in _MONEY for word in words) > 1 or (words[-1] in _LASTS and words[0] in ("is", "are", "has", *_MONEY)):
        return True
    return _has(said, _SOON)


def _is_personal(text: str, words: list[str], said: str, how: bool) -> bool:
    if _has(said, _ALWAYS_MINE) or _names_somebody(text):
        return True
    if said.startswith(_HOW_TO) or _has(said, _WAYS):
        return False
    if how and not {"my", "me", "i", "i'm"} & set(words):
        return False
    if words[:1] in (["i"], ["i'm"], ["i've"]) and words[1:2] not in _WISHES and _TECH.isdisjoint(words):
        return True
    if words[:2] == ["should", "i"] and words[2:] and words[2] not in _CHOICES:
        return True
    for at, word in enumerate(words):
        after = [each.removesuffix("'s") for each in words[at + 1 : at + 4]]
        known = (each in _KIN for each in after if each in _KIN or each in _THINGS)
        if word == "my" and next(known, words[0] in _ASKS):
            return True
        if after and after[0][:1].isdigit() and (word == "i'm" or (word in ("am", "have") and words[at - 1] == "i")):
            return True
    for lead in _LEADS:
        words = words[len(lead.split()) :] if said.startswith(lead) else words
    if words[:1] == ["tell"] and words[1:2] not in ([], ["me"], ["us"], ["a"], ["the"], ["about"]):
        return True
    deed = bool(words) and words[0] in _ACTS
    return deed or (not _DEVICES.isdisjoint(words) and not _SETS.isdisjoint(words)) or _has(said, _MINE)


def _names_somebody(text: str) -> bool:
    """Whether an address of e-mail, or a number as long as those of cards and telephones, is in it."""
    digits = groups = 0
    for word in text.split():
        name, at, host = word.partition("@")
        if at and name[-1:].isalnum() and "." in host.strip(".,;:!?)"):
            return True
        plain = word.strip(".,;:!?()+").replace("-", "")
        digits, groups = (digits + len(plain), groups + 1 + word.count("-")) if plain.isdecimal() else (0, 0)
        if digits > 12 or (digits > 8 and groups > 1):
            return True
    return False


def _goes_back(words: list[str], said: str) -> bool:
    if _ALONE.issuperset(words):
        return True
    for lead in _LEADS:
        said = said[len(lead) - 1 :] if said.startswith(lead) else said
    if len(words) > 12:
        return False
    part = any(word in _ORDER and after in _PARTS for word, after in pairwise(words))
    return part or _has(said, _BEFORE) or (len(words) <= 6 and (said.startswith(_GOES_ON) or _leans(said.split())))


def _leans(words: list[str]) -> bool:
    """Whether what is meant was said before: `use tabs instead`, `put it in a table`; but not `is it`."""
    return not words or words[-1] in _LEANS or (words[1:2] in (["it"], ["them"]) and words[0] not in _BE)


def _is_random(words: list[str], said: str) -> bool:
    if _has(said, _CHANCE) or (not _COINS.isdisjoint(words) and not _THROWS.isdisjoint(words)):
        return True
    if "random" in words and words[0] in _GIVES:
        return True
    return words[0] in _DRAWS or (words[0] in _MAKES and not _TOKENS.isdisjoint(words))
