"""What an incident report says, and the page that it is asked for on, in Swedish. Never here: the other pages (swedish)."""

from __future__ import annotations

from collections.abc import Mapping

_PAGE = {
    "Incident report": "Incidentrapport",
    "In short": "I korthet",
    "What is it about?": "Vad gäller det?",
    "What is filled in must all fit.": "Allt som är ifyllt ska stämma.",
    "The id of a message, a mailing or a freeze": "Referensen till ett meddelande, ett utskick eller en frysning",
    "The list": "Listan",
    "The sender": "Avsändaren",
    "A part of the subject": "En del av ämnet",
    "From (UTC)": "Från (UTC)",
    "Before (UTC)": "Före (UTC)",
    "Without the other messages of the same mailing": "Utan de andra meddelandena i samma utskick",
    "With names: who wrote, subjects, comments. That is journalled": "Med namn: vem som skrev, ämnen, kommentarer. Det journalförs",
    "With the proof that the journal is whole, which takes a while": "Med beviset för att journalen är hel, vilket tar en stund",
    "Make the report": "Gör rapporten",
    "Made {when} by {who}": "Gjord {when} av {who}",
    "That is no time: write 2026-11-26 09:30, in UTC, or 2h for so long ago.": "Det är ingen tidpunkt: skriv 2026-11-26 09:30, i UTC, eller 2h för så länge sedan.",
    "Say what it is about.": "Ange vad det gäller.",
    "Another report is being made: ask again in a minute.": "En annan rapport görs just nu: fråga igen om en minut.",
    "Too many messages fit: ask for less at a time.": "För många meddelanden stämmer: fråga efter färre åt gången.",
    "The record cannot be read at the moment.": "Journalen kan inte läsas just nu.",
    "Nothing in the journal fits.": "Inget i journalen stämmer.",
}

_HEAD = {
    "INCIDENT REPORT, made {when} by {who}": "INCIDENTRAPPORT, gjord {when} av {who}",
    "About: {what}": "Gäller: {what}",
    "Proof: {what}": "Bevis: {what}",
    "Mailings, in distinct people over all of their time": "Utskick, i olika personer över hela sin tid",
    "Who": "Vem",
    "What": "Vad",
    "Why": "Varför",
    "When, by the numbers of the journal": "När, med journalens nummer",
    "What is not known": "Vad som inte är känt",
    "{messages} came at {when}.": "{messages} kom {when}.",
    "{messages} came between {first} and {last}.": "{messages} kom mellan {first} och {last}.",
    "{messages} went out, to {people}.": "{messages} gick ut, till {people}.",
    "It is not known that anything went out.": "Det är inte känt att något har gått ut.",
    "Nothing of it went out through this guard.": "Inget av det gick ut genom den här vakten.",
    "Still open: {messages}, for {people}.": "Ännu inte avgjort: {messages}, till {people}.",
    "at least {people}": "minst {people}",
}

_BECAME = {
    "{messages}, for {people}: {became}": "{messages}, till {people}: {became}",
    "delivered: the relay took it": "levererat: e-postservern tog emot det",
    "delivered after people had approved it": "levererat efter att människor hade godkänt det",
    "in doubt: nobody knows whether the relay took it": "ovisst: ingen vet om e-postservern tog emot det",
    "approved, and on its way": "godkänt och på väg",
    "held: people are still to decide": "hållet kvar: människor ska ännu ta ställning",
    "held, and people decided that it does not go out": "hållet kvar, och människor bestämde att det inte går ut",
    "held, and withdrawn by its writer": "hållet kvar och återtaget av avsändaren",
    "held, and nobody decided in time: it does not go out": "hållet kvar, och ingen bestämde i tid: det går inte ut",
    "not taken: its client was told to try again": "inte mottaget: programmet ombads försöka igen",
    "rejected by a rule": "avvisat av en regel",
    "put off: its client has it still": "uppskjutet: programmet har det kvar",
    "refused by the relay": "avvisat av e-postservern",
    "stopped before it was sent": "stoppat innan det skickades",
    "once what was held already came again, which counts as the same message": "en gång kom det som redan hölls kvar igen, vilket räknas som samma meddelande",
    "# times what was held already came again, which counts as the same message": "# gånger kom det som redan hölls kvar igen, vilket räknas som samma meddelande",
    "once the colleagues among its recipients got it while the customers' part was held": "en gång fick kollegerna bland mottagarna det medan kundernas del hölls kvar",
    "# times the colleagues among its recipients got it while the customers' part was held": "# gånger fick kollegerna bland mottagarna det medan kundernas del hölls kvar",
    "# recipient of what was approved was refused by the relay": "# mottagare av det godkända avvisades av e-postservern",
    "# recipients of what was approved were refused by the relay": "# mottagare av det godkända avvisades av e-postservern",
}

_MAILINGS = {
    "{n} got it": "{n} fick det",
    "{n} have it on the way": "{n} har det på väg",
    "{n} held": "{n} hålls kvar",
    "{n} wait at the client": "{n} väntar hos programmet",
    "{n} refused by the relay": "{n} avvisades av e-postservern",
    "{n} bounces": "{n} studsar",
    "{n} complaints": "{n} klagomål",
    "nobody got it": "ingen fick det",
    "and {n} more": "och {n} till",
}

_DETAILS = {
    "From": "Från",
    "reverse-path": "returadress",
    "logged in as": "inloggad som",
    "client": "klient",
    "subject": "ämne",
    "list": "lista",
    "content, SHA-256": "innehåll, SHA-256",
    "policy": "policy",
    "rule {name}": "regeln {name}",
    "rule {name} (observes)": "regeln {name} (observerar)",
    "rule {name} (approved)": "regeln {name} (godkänt)",
    "not shown": "visas inte",
    "{value}, the limit {limit}": "{value}, gränsen är {limit}",
    "... and {n} more of this kind, before the next of it": "... och {n} till av det slaget, före nästa",
    "to {who}": "till {who}",
    "by {who}": "av {who}",
    "for {n}": "till {n}",
    "with {id}": "med {id}",
    'a subject with "{words}"': 'ett ämne med "{words}"',
    "what somebody wrote": "vad någon skrev",
    "since {when}": "sedan {when}",
    "until {when}": "till {when}",
}

_NOT_KNOWN = {
    "whether the relay took {ids}: look in its own log": "om e-postservern tog emot {ids}: se dess egen logg",
    "above, each message counts its own people: who got two of them is counted twice, save where it says distinct": "ovan räknar varje meddelande sina egna personer: den som fick två är räknad två gånger, utom där det står olika personer",
    "how many people exactly: of some messages a list could not say who is on it": "exakt hur många: för några meddelanden kunde en lista inte säga vilka som står på den",
    "who wrote # of the messages, and its subject: retention has erased it": "vem som skrev # av meddelandena, och dess ämne: det har gallrats",
    "who wrote # of the messages, and their subjects: retention has erased it": "vem som skrev # av meddelandena, och deras ämnen: det har gallrats",
    "what the rules of the policy {sha256} are for: it is not kept any more, or this version does not read it": "vad reglerna i policyn {sha256} är till för: den finns inte kvar, eller läses inte av den här versionen",
    "whether the journal is whole: nobody asked for the proof": "om journalen är hel: ingen bad om beviset",
    "what became of what was put off: a client that came again with it is counted once more, by what became of that": "vad det blev av det uppskjutna: ett program som kom igen med det är räknat en gång till, efter vad det blev av det",
    "what went another way than through this guard, and who read what was delivered": "vad som gick en annan väg än genom den här vakten, och vem som läste det levererade",
    "not looked for": "har inte sökts",
    "the journal is whole, each of its {n} entries checked": "journalen är hel, var och en av dess {n} poster är kontrollerad",
    "THE JOURNAL IS NOT WHAT WAS WRITTEN: entry {seq}: {problem}": "JOURNALEN ÄR INTE VAD SOM SKREVS: post {seq}: {problem}",
    "up to entry {seq}, {hash}": "till och med post {seq}, {hash}",
    "entry {seq} signed {when}": "post {seq} signerad {when}",
}

TEXTS: Mapping[str, str] = {**_PAGE, **_HEAD, **_BECAME, **_MAILINGS, **_DETAILS, **_NOT_KNOWN}
