"""Our encoder and decoder against those of python-gsmmodem-new.

It is a peer, not an oracle. Its known defects are kept out of what is compared, by name:

encoding  characters outside the BMP fail; a backtick is sent as § and § forces UCS2; ÿ crashes; numbers without + are
          typed national; a form feed forces UCS2; no 16-bit references; validity under 5 minutes crashes, above 24
          hours is cut
decoding  truncated PDUs raise StopIteration; 16-bit concatenation and ports lose a character; surrogate pairs are torn;
          text of 8n septets that ends in @ loses it; only DCS 00xx is understood; 0x5F is a backtick; an invalid time
          stamp loses the message; an address of length 0 shifts what follows; digits * # a b c are read as letters;
          the years 69 to 89 are of the last century, a form feed is lost
"""

from __future__ import annotations

import warnings
from datetime import timedelta

from hypothesis import assume, example, given
from hypothesis import strategies as st

from gatewayd.modems.pdu import (
    Address,
    Alphabet,
    Deliver,
    RelativeValidity,
    Submit,
    Timestamp,
    UserData,
    encode_smsc,
    join_text,
    split,
)
from tests.modems.pdu.strategies import GSM_CHARACTERS, modest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from gsmmodem.pdu import decodeSmsPdu, encodeSmsSubmitPdu

# by construction without its defects: see above
gsm_characters = "".join(sorted(set(GSM_CHARACTERS) - {"§", "\f"}))
# one UCS2 unit each, nothing that we keep together and it does not; the Cyrillic letter forces UCS2
ucs2_characters = "бжщАЯ日本語مرحبا abc123ñ"
short_gsm = st.text(st.sampled_from(gsm_characters), min_size=1, max_size=160)
gsm_texts = st.one_of(short_gsm, st.builds(lambda text, times: (text * times)[:2000], short_gsm, st.integers(1, 30)))
ucs2_texts = st.builds(
    lambda text, times: "б" + (text * times)[:1000],
    st.text(st.sampled_from(ucs2_characters), min_size=1, max_size=80),
    st.integers(1, 20),
)
international = st.text(st.sampled_from("0123456789"), min_size=1, max_size=20).map(lambda digits: f"+{digits}")
offsets = st.integers(-48, 56)
times = st.integers(946684800, 3124000000)


@modest
@given(
    st.one_of(gsm_texts, ucs2_texts), international, st.integers(0, 255), st.booleans(), st.booleans(), st.booleans()
)
@example("a" * 152 + "€" + "a" * 200, "+59898344484", 7, True, False, False)
@example("a" * 7, "+1", 0, False, False, True)
@example("a" * 8, "+12", 255, True, True, True)
def test_submit_is_the_same(
    text: str, number: str, reference: int, report: bool, reject_duplicates: bool, flash: bool
) -> None:
    theirs = encodeSmsSubmitPdu(
        number,
        text,
        reference=reference,
        requestStatusReport=report,
        rejectDuplicates=reject_duplicates,
        sendFlash=flash,
    )
    parts = split(text, concat_ref=reference, message_class=0 if flash else None)
    ours = [
        Submit(Address.to_send(number), part, mr=reference, report=report, reject_duplicates=reject_duplicates).encode()
        for part in parts
    ]
    assert [tpdu.hex() for tpdu in ours] == [bytes(pdu.data)[1:].hex() for pdu in theirs]
    assert [len(tpdu) for tpdu in ours] == [pdu.tpduLength for pdu in theirs]


@modest
@given(st.integers(5, 24 * 60).map(lambda minutes: minutes // 30 * 30).filter(bool))
def test_validity_is_the_same(minutes: int) -> None:
    (theirs,) = encodeSmsSubmitPdu("+598", "a", validity=timedelta(minutes=minutes), requestStatusReport=False)
    ours = Submit(
        Address.to_send("+598"), UserData(Alphabet.GSM7, "a"), validity=RelativeValidity.of_seconds(minutes * 60)
    )
    assert ours.encode().hex() == bytes(theirs.data)[1:].hex()


@modest
@given(
    st.one_of(gsm_texts, ucs2_texts),
    international,
    times,
    offsets,
    st.integers(0, 255),
)
def test_it_reads_our_deliver(text: str, number: str, epoch_s: int, quarters: int, reference: int) -> None:
    parts = split(text, concat_ref=reference)
    assume(not any(part.alphabet is Alphabet.GSM7 and _ends_as_padding(part) for part in parts))
    texts = []
    for part in parts:
        tpdu = Deliver(Address.to_send(number), part, Timestamp(epoch_s, quarters)).encode()
        theirs = decodeSmsPdu((encode_smsc(Address.to_send("+59899000000")) + tpdu).hex())
        assert theirs["type"] == "SMS-DELIVER"
        assert theirs["number"] == number
        assert theirs["smsc"] == "+59899000000"
        assert theirs["time"].timestamp() == epoch_s
        assert theirs["time"].utcoffset() == timedelta(minutes=15 * quarters)
        texts.append(theirs["text"])
        if part.concat:
            concat = theirs["udh"][0]
            assert (concat.reference, concat.parts, concat.number) == (reference, len(parts), part.concat.seq)
    assert "".join(texts) == text == join_text(parts)


def _ends_as_padding(part: UserData) -> bool:
    """Whether the last septet is an @ that fills the last octet, which it takes for padding."""
    return part.data.endswith(b"\0")
