"""The opt-out verdict: the sheet's examples, each language's own, and that disguises change nothing."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gatewayd.commands.optout import app
from gatewayd.errors import ConfigError
from gatewayd.router.optout import (
    DEFAULT_LANGUAGES,
    Intent,
    Tier,
    Verdict,
    classify,
    load_packs,
    normalise,
    parse_pack,
)
from gatewayd.router.optout_packs import Kind

PACKS = load_packs()
OWN = {pack.language: (pack,) for pack in PACKS}
LONGEST = 255 * 153  # characters of a text in the most parts there can be

SHEET = {
    "A": ["STOP", "stop", "Stop.", '"stop"', "STOP!!!", "stop please", "STOPALL", "OPT-OUT", "ARRÊT", "Baja",
          "sair", "END"],
    "B": ["stop texting me", "take me off this list", "remove my number", "stopppp"],
    "C": ["please stop by at 5", "non-stop", "I can't stop laughing", "the end", "cancel my 3pm appointment",
          "STOP 12345", "trabaja", "no"],
}  # fmt: skip

SURE = {
    "en": """
stop|Stop now|please STOP thanks|STOP pls|thank you, stop|Stop all|STOP ALL PLEASE|stop all now thanks|unsubscribe
Unsubscribe please|kindly unsubscribe, thanks a lot|stopall thx|optout|opt out|please opt-out|Please opt me out
opt me out|unsubscribe me|Remove me.|stop2quit|end|CANCEL|quit!|Revoke|REMOVE|td|STOP STOP|stop, stop, STOP!
unsubscribe unsubscribe|S T O P|s.t.o.p.|S-T-O-P please|stop 🛑|🛑🛑 STOP|stop🙏thanks
«STOP»|#STOP|*stop*|(stop)|¡STOP!|STOP\x00
""",
    "es": """
baja|BAJA|¡Baja!|bajá|Baja por favor|por favor BAJA gracias|baja ya|stop porfa|Stop por favor|STOP GRACIAS|stop ya mismo
muchas gracias, baja|CANCELAR|Parar|pare|darme de baja|Dar de baja|cancelar suscripción|baja baja|desuscribirme|b.a.j.a
""",
    "pt": """
sair|SAIR!|Sair por favor|sair, obrigado|obrigada SAIR|stop pfv|sair agora|sair já|PARAR|pare|Cancelar|sair sair
Sair da lista|me descadastre|descadastrar|s a i r
""",
    "fr": """
STOP|arrêt|ARRÊT svp|arret s'il vous plaît|Arrêt s’il te plaît|merci arrêt|stop svp merci|STOP tout de suite
stop, merci beaucoup|me désabonner|Désinscrivez-moi|désabonnement|ARRÊT ARRÊT|arre\u0302t|A.R.R.Ê.T
""",
    "de": """
STOPP|stopp|Stopp!|Stopp bitte|bitte STOP|stop danke|Bitte stopp, vielen Dank|stopp sofort|STOPP STOPP|abbestellen
SMS abbestellen|dankeschön stopp
""",
}

PROBABLE = {
    "en": """
stop texting me
Stop sending these
stop messaging
stop this service
stop the messages
take me off the list
take me off your list
remove my number
don't text me again
Do not contact me anymore
lose my number
no more messages
no more texts please
wrong number
you have the wrong number
sorry wrong person
stpo
sotp
stip
stoppp
STOOOP
ST0P
unsubscribbe
unsubscibe please
please stop texting me
Stop texting this number!
PLEASE STOP SENDING ME MESSAGES!!!
stop with the texts
stop all messages
stop please texting me
Stoppp texting me
quit texting me
stop contacting us
stop calling me
stop spamming
cancel my subscription
cancel these messages
end the messages
unsubscribe from this list
I want to unsubscribe
how do i opt out
How do I unsubscribe?
want out, unsub
take my number off your list
get me off this list
please delete my number from your system
remove me from this list
remove us from your database
remove me from your texts
I do not want these messages
I no longer wish to receive texts
I don't want any more texts
i never signed up for these messages
do not text
don’t text me
Don´t text me anymore
never text me again
leave me alone
go away
f off
stop it
stop this
make it stop
enough
revoke my consent
I withdraw my consent
i said stop
just stop
STOP already
ok stop now
not interested stop
Stop, not interested
hello please stop
can you stop
do not disturb
this is spam
please opt me out of this
Reply STOP to unsubscribe
cancel please
please end
STOP. Regards, Jane Doe
Please take me off your call list
pls stop txting
stop text
stop txt
stop msg
quit sending me stuff
i dont want ur texts
no more sms
do not send me any more messages
please do not message me again
kindly remove my number from your list
Remove me from list
take me off
remove this number
Unsubscribe please stop
delete me
block me
I never gave you my number stop
Who gave you my number? Stop texting
stop bugging me
you've got the wrong number mate
this isn't john, wrong number
stop sending messages to this number
I'm not interested please stop
cease and desist
cease
no more!
stop, please. no more.
would like to be removed
can you remove me
please take me off
I want off this list
get lost
stop these
stop everything
stop the spam
stop promo
please discontinue
Stop messaging me please this is my work phone
Stop!! Who is this?
who is this stop
dont send me nothing else
dont msg me
lose this number
stop contact
please end these texts
do not reply to me
stop sending this crap
stop blowing up my phone
no sms
no messages please
no longer interested, remove me
I'd like my number removed
please have my number removed from your list
please remove
""",
    "es": """
deje de enviarme mensajes
dejen de mandarme mensajes
dejá de escribirme
Paren de molestar
no me escribas más
No me manden más mensajes
no me envíen más sms por favor
ya no me manden mensajes
no quiero más mensajes
no quiero recibir más mensajes
ya no quiero recibir sus mensajes
no deseo recibir publicidad
no más mensajes
no más
basta
basta de mensajes
bórrenme de la lista
sácame de esta lista
Quítenme de su lista por favor
borren mi número
elimine mi número
número equivocado
Se equivocó de número
te equivocaste de numero
quiero darme de baja
Me quiero dar de baja
denme de baja ya
por favor darme de baja
cancelen mi suscripción
cancelar suscripción por favor
déjenme en paz
no molesten
no me interesa, stop
parar por favor
stop a los mensajes
nunca más me escriban
no quiero que me escriban
no quiero que me manden más mensajes
por favor no enviar más mensajes
no enviar más
no mandar más sms
quiero que dejen de escribirme
quiero dejar de recibir mensajes
dejen de joder
ya no más mensajes por favor
eliminarme de la lista
sacame de la lista
borrame
baja de la lista
quiero la baja
solicito la baja
dar de baja este número
stop mensajes
cancelar mensajes
cancelar sms
no soy esa persona, número equivocado
parar mensajes
""",
    "pt": """
pare de me mandar mensagens
para de me enviar mensagem
Parem de mandar SMS
chega de mensagens
não me mande mais mensagens
nao me mandem mais msg
não quero mais receber mensagens
Não quero receber mensagens
não envie mais
nao mande mais nada
não me envie mais sms, obrigado
me tira da lista
me remova da lista por favor
me retirem dessa lista
Remova meu número
apague o meu número
exclua meu telefone da lista
número errado
foi engano
você errou de número
quero sair da lista
quero me descadastrar
quero descadastrar
cancelar assinatura
cancelar mensagens
me deixa em paz
não perturbe
chega
pare por favor
sair da lista por favor
não quero mais
quero parar de receber mensagens
quero cancelar o recebimento
não tenho interesse, pare
me exclua dessa lista
tirem meu número
por favor remover meu número
remover da lista
stop mensagens
não autorizo mensagens
vcs estão com o número errado
pare com essas mensagens
""",
    "fr": """
arrêtez de m'envoyer des messages
Arrête de m'écrire
arretez svp
merci d'arrêter les sms
arrêter les messages
stop aux sms
cessez de me contacter
ne m'envoyez plus de messages
n'envoyez plus de sms
m'envoyez plus rien
ne me contactez plus
je ne veux plus recevoir vos messages
je veux plus recevoir de sms
Je ne souhaite plus être contacté
merci de ne plus m'envoyer de sms
ne plus recevoir de sms
plus de messages svp
retirez-moi de votre liste
enlevez-moi de la liste
supprimez mon numéro
effacez mon numéro svp
désinscrivez moi svp
je veux me désinscrire
comment se désabonner
mauvais numéro
vous vous trompez de numéro
erreur de numéro
laissez-moi tranquille
foutez moi la paix
ça suffit
STOP PUB svp
Stop au 36180
je ne veux plus de vos messages
je veux plus de messages
veuillez me retirer de la liste
merci de me retirer de votre liste
merci de supprimer mon numéro
stop messages
stop les messages svp
arrêtez vos messages
arrêtez avec vos pubs
je veux arrêter les sms
plus de pub
pas de pub merci
vous avez le mauvais numéro
me retirer de la liste
ne pas me contacter
ne me contactez pas
désabonnement svp
désabonnez-moi de vos sms
""",
    "de": """
hören Sie auf mir zu schreiben
Hör auf mir zu schreiben
hoert auf mir SMS zu schicken
hör auf
aufhören
aufhören bitte
keine SMS mehr
bitte keine Nachrichten mehr
keine weiteren Nachrichten bitte
Keine Werbung
ich möchte keine SMS mehr
Ich will keine Werbung mehr bekommen
ich möchte keine Nachrichten mehr erhalten
schreiben Sie mir nicht mehr
Schreib mir nicht mehr
bitte nicht mehr schreiben
Schicken Sie mir keine SMS mehr
senden sie mir bitte keine Nachrichten mehr
löschen Sie meine Nummer
bitte löschen Sie meine Telefonnummer
Loeschen Sie bitte meine Nummer
meine Nummer bitte löschen
nehmen Sie mich aus dem Verteiler
Nehmt mich bitte von der Liste
streichen Sie mich von Ihrer Liste
mich bitte aus dem Verteiler löschen
falsche Nummer
Sie haben die falsche Nummer
falsch verbunden
Sie haben sich verwählt
bitte abmelden
ich möchte mich abmelden
melden Sie mich ab
SMS abbestellen bitte
stoppt die SMS
Stoppen Sie das
abmelden
lassen Sie mich in Ruhe
lass mich in ruhe
ich widerrufe meine Einwilligung
es reicht
stop die Nachrichten
STOP MFG Hans Meier
stopp die SMS
stopp sms
bitte von der Liste löschen
bitte aus der Liste streichen
bitte keine SMS
Bitte löschen
nicht mehr kontaktieren
kontaktieren Sie mich nicht mehr
ich will nicht mehr angeschrieben werden
möchte keine weiteren SMS erhalten
Ich möchte nichts mehr von Ihnen hören
hier ist die falsche nummer
SMS stoppen
bitte SMS einstellen
Abo kündigen
aus Verteiler löschen
""",
}

ORDINARY = """
Please stop the car
stop at gate 4
I need you to stop by the office
Do I need to stop my medication before surgery?
I have no messages from you
no message yet
Could you drop my number to Anna
I lost my number plate
Is this the wrong number to ask about parking?
I don't want any more pizza
don't send me the invoice by post
Quit my job today
enough for two people
Put me on the list please
delete the second booking
Leave me a message
no me mandes el pedido hoy
borra mi pedido anterior
basta con dos
deja de llover y salgo
se equivocó de talla
quiero que baja el precio
não mande o pedido hoje
não envie hoje
chega de manhã
tira uma foto
foi sem querer
n'envoyez pas le colis demain
je ne reçois plus de sms depuis hier
arrête le chauffage
supprimez ma commande
erreur de livraison
schicken Sie mir keine Rechnung
Ich bekomme keine Nachrichten mehr
ich habe keine SMS bekommen
nehmen Sie mich mit
falsche Größe geliefert
Auftrag stoppen
please stop by at 5
Can you stop at the shop on the way home?
non-stop
It rained non-stop all weekend
I can't stop laughing
Stop by whenever you like
the bus stop is on the corner
I'm at the bus stop
Which stop do I get off at?
Don't stop now, we are nearly there
we will stop for lunch at noon
My watch has stopped, what time is it?
STOP 12345
stop 2 please
Where does the tour stop?
the end
See you at the end of the month
in the end we took the train
end of story lol
By the end of the week thanks
cancel my 3pm appointment
Please cancel Tuesday and book me in for Friday
I had to cancel, sorry!
Can I cancel the order?
ok cancel
Do you have a cancellation policy?
I quit smoking last year
he quit his job
Never quit!
quit joking, are you serious?
Please remove the old sofa too
Can you remove the item from my basket?
The stain won't remove, help me
no
No thanks
NO!
yes
yes please
Now is fine
all good thanks
Thanks all
please
thanks
thank you very much
What is the revoke date on the licence?
Did they revoke the permit?
TD Bank is closed today
start at 9 tomorrow?
When does it start
Can we start over please
help me move on Saturday?
Thanks for your help
info please
More info about the blue one?
Do you need my info?
unstoppable!
Stopwatch is in the drawer
one stop shop
stop light on Main St is out
pit stop in 10 min
I will stop messaging you now, good night
don't stop texting me please
did you stop texting me?
Don't call me, text me
text me again when you arrive
Don't text me while I'm driving
I gave him the wrong number of chairs
Take me off speaker please
Take the 5pm off the list, the 6pm is better
is my name on the list?
My number is 555 0100
leave it at the door
No more than 3 please
no more room in the car
opt for the red one
I like your messages, keep them coming
Where do I stop for gas
I'm not at home, leave it with my neighbour
The trains stop at midnight
End of the line, getting out now
Please end the meeting by 4
stop worrying, all is well
stop wasting my time and deliver my parcel
Stop! In the name of love
he can't stop
never stop dreaming
my subscription renews in May?
trabaja
Juan trabaja hasta las 8
La luz está muy baja hoy
Baja el volumen por favor
Estoy de baja médica
¿Me puedes dar la talla más baja?
planta baja, timbre 2
Baja a abrirme
en baja temporada es más barato
estoy parado en la esquina
No puedo parar de reír
Voy a parar en la gasolinera
¿Dónde hay que parar?
el bus para en la plaza
para mañana por favor
Es para mi hermana
quiero cancelar la cita del martes
Tengo que cancelar la reserva
¿Puedo cancelar el pedido?
No
no gracias
no quiero café
ya voy
ya no hay?
Gracias!
No me mandes fotos todavía
no me llames ahora que estoy en una reunión
Mándame más mensajes cuando llegues
Recibí tu mensaje
alta en el gimnasio
El precio es alto
¿Me das de alta mañana?
necesito ayuda con el pedido
fin de semana
no hay stop en esa calle
sin stock
hasta el fin de mes
pare en la puerta
El número es 4, apto 2
quiero saber el precio
vou sair agora de casa
Quando você vai sair?
não posso sair hoje
sair cedo é melhor
Pode sair às 5
A que horas vamos sair da festa?
Não para de chover
pare na próxima esquina
Vou parar no posto
o ônibus vai parar aqui?
Preciso cancelar a consulta de amanhã
posso cancelar o pedido?
não
não obrigado
sim
obrigada!
agora não
para amanhã
É para minha mãe
me manda mensagem quando chegar
não recebi mensagem
Qual é o número?
meu número novo é 99999
não consigo entrar no site
pode entrar
preciso de ajuda com o boleto
tudo bem?
até já
não me liga agora
chega amanhã?
arrêt maladie jusqu'à lundi
je suis à l'arrêt de bus
l'arrêt du tram est fermé
le bus s'arrête ici?
Il n'arrête pas de pleuvoir
arrête-toi à la boulangerie
On fait un stop à Lyon
auto-stop
stop à la station service
non-stop depuis ce matin
c'est la fin du film
non
non merci
merci
oui svp
j'ai plus de place dans la voiture
je n'ai plus de batterie
plus tard
je vous envoie mes coordonnées
envoyez-moi un message
je ne peux plus venir
annuler mon rdv de demain svp
je dois annuler
besoin d'aide pour ma commande
une info svp
mon numéro est le 12
je veux plus de pain
je veux plus d'informations sur la liste
vous êtes sur la liste
tout va bien
Non-Stop geöffnet
Ich bin an der Bushaltestelle
Kannst du kurz beim Bäcker stoppen?
Stoppuhr nicht vergessen
der Zug stoppt nicht in Fulda
Am Ende der Straße links
Ende gut alles gut
bis Ende der Woche
nein
nein danke
ja bitte
danke
jetzt nicht
Alles klar, danke
ich will nicht mehr warten
Ich kann nicht mehr laufen
Ich habe keine Zeit mehr
keine Ahnung
kein Problem
Schreib mir wenn du da bist
schick mir bitte die Nummer
meine Nummer ist neu
Hilfe beim Umzug gesucht
brauche Hilfe
Info kommt morgen
Termin bitte absagen
ich muss mein Kind für morgen abmelden
Der Start war super
hör mal zu
bitte auf die Liste setzen
Ruf mich nicht vor 8 an
Ich melde mich später
"""

SLIPS = [
    "stpo", "sotp", "stip", "ST0P", "sstop", "STOOOOP", "STOPSTOP", "sto p", "stpo pls", "unsubcribe", "unsubscirbe",
    "UNSUBSCRIBEE", "bsja", "abja", "siar", "arert", "stop unsubscribe", "STOP/ARRET", "end end", "cancel please",
    "now quit", "unsubscribe me please", "hello stop", "ok👌stop👍", "Stop!\n-- \nRegards\nJane Doe",
    "STOP\n\nSent from my iPhone", "Stop. Envoyé de mon iPhone", "stopp LG Anna",
]  # fmt: skip


def rows(text: str) -> list[str]:
    return [line for line in text.split("\n") if line]


def cells(text: str) -> list[str]:
    return [cell for line in text.strip("\n").split("\n") for cell in line.split("|")]


SURE_TEXTS = [(language, text) for language, table in SURE.items() for text in cells(table)]
PROBABLE_TEXTS = [(language, text) for language, table in PROBABLE.items() for text in rows(table)]
ALL_TEXTS = [text for _, text in SURE_TEXTS + PROBABLE_TEXTS] + rows(ORDINARY) + SLIPS


def judged(text: str) -> Verdict:
    return classify(text, PACKS)


# --- Tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tier", "text"), [(tier, text) for tier, texts in SHEET.items() for text in texts])
def test_the_sheet(tier: str, text: str) -> None:
    verdict = judged(text)
    assert verdict.tier is Tier(tier)
    assert verdict.intent is (Intent.NONE if tier == "C" else Intent.OPT_OUT)


@pytest.mark.parametrize(("language", "text"), SURE_TEXTS)
def test_a_sure_opt_out_is_one_by_all_packs_and_by_its_own(language: str, text: str) -> None:
    assert (judged(text).tier, judged(text).intent) == (Tier.A, Intent.OPT_OUT)
    assert classify(text, OWN[language]).tier is Tier.A


@pytest.mark.parametrize(("language", "text"), PROBABLE_TEXTS)
def test_a_probable_opt_out_is_one_by_all_packs_and_by_its_own(language: str, text: str) -> None:
    assert (judged(text).tier, judged(text).intent) == (Tier.B, Intent.OPT_OUT)
    own = classify(text, OWN[language])
    assert own.tier is Tier.B
    assert own.language == language
    assert own.rule


@pytest.mark.parametrize("text", SLIPS)
def test_slips_and_company_make_it_probable(text: str) -> None:
    assert judged(text).tier is Tier.B


@pytest.mark.parametrize("text", rows(ORDINARY))
def test_ordinary_talk_is_no_opt_out(text: str) -> None:
    assert (judged(text).tier, judged(text).intent) == (Tier.C, Intent.NONE)
    for own in OWN.values():
        assert (classify(text, own).tier, classify(text, own).intent) == (Tier.C, Intent.NONE)


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        *((text, Intent.OPT_IN) for text in ("START", "start!", "Unstop", "ALTA", "Comenzar", "suscribirme", "ENTRAR")),
        *((text, Intent.HELP) for text in ("HELP", "help?", "Info", "AIDE", "ayuda", "AJUDA", "Hilfe", "ＨＥＬＰ 🙂")),
        *((text, Intent.NONE) for text in ("YES", "sí", "start please", "help me", "info please", "start start")),
        *((text, Intent.NONE) for text in ("", " ", "🛑", "please", "!")),
    ],
)  # fmt: skip
def test_opt_in_and_help_count_as_the_whole_text_only(text: str, intent: Intent) -> None:
    assert (judged(text).tier, judged(text).intent) == (Tier.C, intent)


@pytest.mark.parametrize(
    ("text", "language"),
    [("STOP", "en"), ("stop por favor", "es"), ("stop svp", "fr"), ("STOP bitte", "de"), ("stop obrigado", "pt"),
     ("arrêt please", "fr"), ("hola stop", "es")],
)  # fmt: skip
def test_the_language_is_the_one_that_has_all_the_words(text: str, language: str) -> None:
    assert judged(text).language == language


def test_a_verdict_is_evidence() -> None:
    assert judged("Please, STOP!") == Verdict(
        Tier.A, Intent.OPT_OUT, "keyword and filler: stop", "en", "please stop", "en-1/rules-2"
    )
    assert judged("see you") == Verdict(Tier.C, Intent.NONE, "", "", "see you", "rules-2")
    assert classify("STOP", ()).tier is Tier.C


# --- Normalisation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  ARRÊT  !!", "arret"),
        ("ＳＴＯＰ　１２", "stop 12"),
        ("s\u200bt\u200do\ufeffp\u2060", "stop"),
        ("\u202estop\u202c", "stop"),
        ("so\u00adft", "soft"),
        ("don’t «stop» “now” `x´ ʼy", "dont stop now x y"),
        ("stop 🛑", "stop"),
        ("stop👨‍👩‍👧❤️👍🏽", "stop"),
        ("opt_out/now…ok—yes", "opt out now ok yes"),
        ("𝐒𝐓𝐎𝐏 ⓈⓉⓄⓅ", "stop stop"),
        ("Straße", "strasse"),
        ("İstanbul ıssız", "istanbul issiz"),
        ("STOP™ ℹ️", "stop"),
        ("Стоп Й", "стоп и"),
        ("เสือ สถานี", "เสือ สถานี"),
        ("إيقاف", "ايقاف"),
        ("한국", "한국"),
        ("\ud83d stop \ue001", "stop"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S", "Z", "C"))))
def test_normalise_is_idempotent(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert once == " ".join(once.split())


def test_normalise_is_idempotent_on_each_character() -> None:
    for start in range(0, 0x110000, 64):
        once = normalise(" ".join(f"a{chr(code)}b" for code in range(start, start + 64)))
        assert normalise(once) == once, hex(start)


# --- Properties ----------------------------------------------------------------------------------------------------

_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_BETWEEN = st.text(st.sampled_from(" .,;:!?-_/()*#…¡¿\n\t\u00a0\u3000+="), min_size=1, max_size=4)
_UNSEEN = st.text(
    st.sampled_from("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202c\u2066\u2069\ufe0f\u0301\u0308\"'"),
    max_size=2,
)


@given(st.sampled_from(ALL_TEXTS), st.data())
def test_disguises_change_no_verdict(text: str, data: st.DataObject) -> None:
    before = judged(text)
    case: Callable[[str], str] = data.draw(st.sampled_from([str.upper, str.lower, str.title, str.swapcase]))
    form = data.draw(st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
    disguised = unicodedata.normalize(form, case(text.replace("´", "'")))
    if data.draw(st.booleans()):
        disguised = disguised.translate(_FULL_WIDTH)
    disguised = "".join(letter + (data.draw(_UNSEEN) if letter.isalnum() else "") for letter in disguised)
    words = disguised.split(" ")
    disguised = data.draw(_BETWEEN) + "".join(word + data.draw(_BETWEEN) for word in words)
    after = judged(disguised)
    assert (after.tier, after.intent, after.rule, after.language) == (
        before.tier, before.intent, before.rule, before.language,
    )  # fmt: skip


_FILLERS = sorted(" ".join(words) for pack in PACKS for words, kind in pack.phrases.items() if kind is Kind.FILLER)
_KEYWORDS = sorted({" ".join(words) for pack in PACKS for words, kind in pack.phrases.items() if kind is Kind.KEYWORD})
_EVERYDAY = sorted({" ".join(words) for pack in PACKS for words, kind in pack.phrases.items() if kind is Kind.EVERYDAY})
_POLITE = st.lists(st.sampled_from(_FILLERS), max_size=4)


@given(_POLITE, st.sampled_from(_KEYWORDS), _POLITE)
def test_politeness_takes_nothing_from_a_keyword(before: list[str], keyword: str, after: list[str]) -> None:
    assert judged(" ".join([*before, keyword, *after])).tier is Tier.A


@given(_POLITE, st.sampled_from(_EVERYDAY), _POLITE)
def test_an_everyday_word_is_sure_only_as_the_whole_text(before: list[str], word: str, after: list[str]) -> None:
    assert judged(" ".join([*before, word, *after])).tier is (Tier.B if before or after else Tier.A)


@given(
    st.sampled_from(["stop", "stopp", "baja", "sair", "arrêt", "end", "cancel"]),
    st.from_regex(r"[0-9]{1,8}", fullmatch=True),
    st.booleans(),
)
def test_a_keyword_with_a_number_is_an_applications_command(keyword: str, number: str, first: bool) -> None:
    assert judged(f"{number} {keyword}" if first else f"{keyword} {number}").tier is Tier.C


@given(st.sampled_from(rows(ORDINARY)), st.sampled_from(rows(ORDINARY)))
def test_two_ordinary_texts_are_never_sure(one: str, other: str) -> None:
    assert judged(f"{one}\n{other}").tier is not Tier.A


@given(st.text(st.characters()))
def test_any_text_has_a_verdict(text: str) -> None:
    verdict = judged(text)
    assert (verdict.intent is Intent.OPT_OUT) == (verdict.tier is not Tier.C)
    assert bool(verdict.rule) == (verdict.intent is not Intent.NONE)
    assert verdict.normalised == normalise(text)


_LONG = [
    "a", "stop ", "stop x ", "stooop ", "please ", "s t ", "no me ", "no more of all of ", "take me off the ",
    "stop sending me all ",    "ne plus de ", "keine mehr ", "\0", " ", "🛑", "\u200bs", "s.",
    "não quero mais mais ", "ich will keine weitere ",
    "regards x x x x x ", "aaab",
]  # fmt: skip


@pytest.mark.parametrize("unit", _LONG)
def test_work_grows_no_faster_than_the_text(unit: str) -> None:
    def calls(length: int) -> int:
        text = (unit * length)[:length] + "x"
        classify(text, PACKS)  # fills what is remembered about characters
        count = 0

        def counted(_frame: FrameType, _event: str, _argument: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(counted)
        try:
            classify(text, PACKS)
        finally:
            sys.setprofile(None)
        return count

    assert calls(4000) <= 4.5 * calls(1000)


@pytest.mark.parametrize("unit", ["stop ", "\ufdfa", "no me ", "\u0301", "\u0e38\u0e49", "\u0323\u0301", "\ud800"])
def test_the_longest_text_has_a_verdict(unit: str) -> None:
    assert judged("please " + (unit * LONGEST)[: LONGEST - 10] + "x") is not None


def test_a_letter_has_a_bound_on_its_marks() -> None:
    """Sorting them is quadratic in the standard library."""
    assert len(normalise("ก" + "\u0e49" * 5000 + "\u0e38" * 5000)) == 31


# --- Packs ---------------------------------------------------------------------------------------------------------


def test_no_word_is_a_keyword_here_and_something_else_there() -> None:
    meanings: dict[tuple[str, ...], set[str]] = {}
    for pack in PACKS:
        for words, kind in pack.phrases.items():
            meanings.setdefault(words, set()).add(kind)
        for words in pack.opt_in:
            meanings.setdefault(words, set()).add("opt_in")
        for words in pack.help:
            meanings.setdefault(words, set()).add("help")
    harmless = {Kind.FILLER, Kind.LEAD}
    assert {words: kinds for words, kinds in meanings.items() if len(kinds) > 1 and not kinds <= harmless} == {}


def test_packs_come_in_the_order_asked_for() -> None:
    assert tuple(pack.language for pack in PACKS) == DEFAULT_LANGUAGES
    assert [pack.language for pack in load_packs(["fr", "en", "fr"])] == ["fr", "en"]
    assert classify("STOP", load_packs(["fr", "en"])).language == "fr"
    assert classify("arrêt", load_packs(["en"])).tier is Tier.C


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load_packs(["en", "xx", "../en"])
    assert [fault.path for fault in caught.value.faults] == ["languages", "languages"]
    assert "'xx'" in str(caught.value)
    assert "de, en, es, fr, pt" in str(caught.value)


_HEAD = (
    "{language: nl, version: 1, opt_out: {keywords: [stop, afmelden]}, "
    "replies: {opt_out: Klaar, opt_in: Klaar, help: STOP, contact: 'Bel {contact}'}"
)


def test_a_pack_of_ones_own() -> None:
    pack = parse_pack(
        _HEAD
        + ', filler: [alstublieft], probable: {sets: {WEG: [haal, neem]}, patterns: ["WEG mij|me van? de lijst"]}}',
        "nl.yaml",
    )
    assert classify("Afmelden alstublieft", [pack]).tier is Tier.A
    assert classify("haal me van de lijst aub", [pack]).rule == "pattern 1: haal me van de lijst"
    assert classify("haal me op", [pack]).tier is Tier.C


@pytest.mark.parametrize(
    ("rest", "paths"),
    [
        (", fillers: []}", ["fillers"]),
        (", filler: [no]}", ["filler.0"]),
        (", filler: [stop]}", ["filler"]),
        (", filler: ['!']}", ["filler"]),
        (", filler: [a b c d e f g]}", ["filler"]),
        (", opt_in: [stop]}", ["opt_in, help"]),
        (", probable: {patterns: [NONE x]}}", ["probable.patterns.0", "probable.patterns.0"]),
        (", probable: {patterns: ['a?', '? x', 'x !NONE', '']}}", [f"probable.patterns.{at}" for at in range(4)]),
        (", probable: {patterns: ['# x']}}", ["probable.patterns.0"]),
        (", probable: {sets: {AB: [a b]}, patterns: [x !AB]}}", ["probable.patterns.0"]),
        (", x: [", [""]),
    ],
)  # fmt: skip
def test_a_pack_with_faults_names_them_all(rest: str, paths: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pack(_HEAD + rest, "nl.yaml")
    assert [fault.path for fault in caught.value.faults] == paths
    assert caught.value.source == "nl.yaml"


# --- The command ---------------------------------------------------------------------------------------------------


def run(*arguments: str, stdin: str | bytes = "") -> tuple[int, str]:
    result = CliRunner().invoke(app, ["test", *arguments], input=stdin)
    return result.exit_code, result.output


def test_the_command_says_it_in_words() -> None:
    code, output = run("take me off this list")
    assert code == 0
    assert "B  probably an opt-out" in output
    assert "take me off this list" in output


@pytest.mark.parametrize("text", ["STOP", "stop texting me", "hello", "ARRÊT svp", "", "🛑"])
def test_json_is_one_object(text: str) -> None:
    code, output = run("--json", text)
    assert code == 0
    assert output.count("\n") == 1
    verdict = judged(text)
    assert json.loads(output) == {
        "tier": verdict.tier, "intent": verdict.intent, "rule": verdict.rule, "language": verdict.language,
        "normalised": verdict.normalised, "version": verdict.version,
    }  # fmt: skip


def test_standard_input_is_one_text() -> None:
    code, output = run("--json", "-", stdin="please\nSTOP\n")
    assert (code, json.loads(output)["tier"]) == (0, "A")
    code, output = run("--json", "-", stdin=b"\xff\xfe no utf-8")
    assert (code, json.loads(output)["tier"]) == (0, "C")


def test_languages_can_be_chosen() -> None:
    assert json.loads(run("--json", "-l", "de", "-l", "en", "ARRÊT")[1])["tier"] == "C"
    code, output = run("-l", "xx", "STOP")
    assert code == 2
    assert "'xx'" in output


def test_a_text_is_needed() -> None:
    assert run()[0] == 2
