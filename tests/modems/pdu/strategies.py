"""Hypothesis strategies for the codec's tests."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from gatewayd.modems.pdu import (
    AbsoluteValidity,
    Address,
    Concat,
    Deliver,
    EnhancedValidity,
    InformationElement,
    NumberingPlan,
    RelativeValidity,
    StatusReport,
    Submit,
    Timestamp,
    TypeOfNumber,
    UserData,
    split,
    split_data,
)
from gatewayd.modems.pdu.gsm7 import DEFAULT, ESC, EXTENSION

modest = settings(deadline=None, max_examples=150)

GSM_CHARACTERS = "".join(char for septet, char in enumerate(DEFAULT) if septet != ESC) + "".join(EXTENSION.values())

gsm_text = st.text(st.sampled_from(GSM_CHARACTERS))
no_surrogates = st.characters(exclude_categories=["Cs"])
clusters = st.sampled_from(
    ["e\u0301", "👨\u200d👩\u200d👧", "🇺🇾", "👍🏽", "❤\ufe0f", "1\ufe0f\u20e3", "한", "क्ष", "\r\n", "a"]
)
any_text = st.one_of(
    gsm_text,
    st.text(no_surrogates),
    st.lists(clusters).map("".join),
    st.builds(lambda text, times: text * times, st.text(no_surrogates, max_size=20), st.integers(0, 30)),
)

octet = st.integers(0, 255)
numbers = st.builds(
    str.__add__, st.sampled_from(["", "+"]), st.text(st.sampled_from("0123456789*#abc"), min_size=1, max_size=20)
)
names = st.text(st.sampled_from(DEFAULT.replace("\x1b", "")), max_size=11)
addresses = st.one_of(
    numbers.map(Address.to_send),
    names.map(Address.alphanumeric),
    st.builds(
        Address,
        st.text(st.sampled_from("0123456789*#abc"), max_size=20),
        st.sampled_from([ton for ton in TypeOfNumber if ton != TypeOfNumber.ALPHANUMERIC]),
        st.integers(0, 15),
    ),
)
unknown_sender = Address("", TypeOfNumber.UNKNOWN, NumberingPlan.UNKNOWN)

# 1990-01-02 to 2089-12-30 UTC: whatever the offset, the local year fits in two digits
timestamps = st.builds(Timestamp, st.integers(631238400, 3786739200), st.integers(-79, 79))
validities = st.one_of(
    st.builds(RelativeValidity, octet),
    st.builds(AbsoluteValidity, st.none() | timestamps),
    st.builds(EnhancedValidity, st.binary(min_size=7, max_size=7)),
)

elements = st.builds(InformationElement, octet, st.binary(max_size=6))
headers = st.lists(elements, max_size=4).map(tuple)
concats = st.one_of(
    st.builds(
        lambda ref, total, seq: Concat(ref, total, min(seq, total), 8), octet, st.integers(1, 255), st.integers(1, 255)
    ),
    st.builds(
        lambda ref, total, seq: Concat(ref, total, min(seq, total), 16),
        st.integers(0, 65535),
        st.integers(1, 255),
        st.integers(1, 255),
    ),
)


def _first_part(text: str, header: tuple[InformationElement, ...], message_class: int | None) -> UserData:
    return split(text, udh=header, message_class=message_class)[0]


classes = st.none() | st.integers(0, 3)
user_data = st.one_of(
    st.builds(_first_part, any_text, headers, classes),
    st.builds(lambda data, header: split_data(data, udh=header)[0], st.binary(max_size=200), headers),
)

submits = st.builds(
    Submit,
    destination=addresses,
    user_data=user_data,
    mr=octet,
    report=st.booleans(),
    reject_duplicates=st.booleans(),
    reply_path=st.booleans(),
    pid=octet,
    validity=st.none() | validities,
)
delivers = st.builds(
    Deliver,
    originator=addresses,
    user_data=user_data,
    scts=st.none() | timestamps,
    pid=octet,
    more_messages=st.booleans(),
    report_indicator=st.booleans(),
    reply_path=st.booleans(),
    loop_prevention=st.booleans(),
)
status_reports = st.builds(
    StatusReport,
    mr=octet,
    recipient=addresses,
    scts=st.none() | timestamps,
    discharge=st.none() | timestamps,
    status=octet,
    more_messages=st.booleans(),
    loop_prevention=st.booleans(),
    command=st.booleans(),
    pid=st.none() | octet,
    user_data=st.none() | user_data,
)
