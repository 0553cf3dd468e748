"""What is made of a group of alerts: one text that fits, a priority, and a digest that tells a repetition."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.modems.pdu import count
from gatewayd.router.alerts import Alert, Notification, compose, digest, fit, priority


def alert(instance: str = "web1:9100", status: str = "firing", **labels: str) -> Alert:
    return Alert(
        status,
        {"alertname": "HighLoad", "instance": instance, "severity": "warning", "job": "node", **labels},
        {"summary": f"CPU of {instance} above 90 %"},
        "2026-11-28T07:00:00.000Z",
        f"print-{instance}",
    )


def group(*alerts: Alert, status: str = "firing") -> Notification:
    return Notification(
        status, alerts, '{}:{alertname="HighLoad"}', {"alertname": "HighLoad"},
        {"alertname": "HighLoad", "severity": "warning", "job": "node"},
    )  # fmt: skip


def test_the_text_says_the_most_telling_first() -> None:
    assert compose(group(alert()), 2) == (
        "FIRING 1: HighLoad (warning): web1:9100: CPU of web1:9100 above 90 %; job=node"
    )
    mixed = group(alert("a"), alert("b"), alert("c", "resolved"))
    assert compose(mixed, 2) == (
        "FIRING 2 (1 resolved): HighLoad (warning): a, b: CPU of a above 90 % / CPU of b above 90 %; job=node"
    )
    assert compose(group(alert(status="resolved"), status="resolved"), 2).startswith("RESOLVED 1: HighLoad (warning)")
    many = compose(group(*(alert(f"host{i}") for i in range(12))), 2)
    assert many.startswith("FIRING 12: HighLoad (warning): host0, host1, host2, host3, host4 +7: CPU of host0")


def test_the_summary_is_the_first_there_is() -> None:
    bare = Notification("firing", (Alert("firing"),))
    assert compose(bare, 2) == "FIRING 1: alert"
    assert compose(replace(bare, title="[FIRING:1] Disk", message="full"), 2) == "FIRING 1: [FIRING:1] Disk: full"
    assert compose(replace(bare, common_annotations={"description": "d", "summary": "s"}), 2) == "FIRING 1: alert: s"


def test_priority_is_that_of_the_most_severe_alert_that_counts() -> None:
    assert priority(group(alert()), "severity") == 5000
    assert priority(group(alert(), alert("b", severity="Critical")), "severity") == 9000
    assert priority(group(alert(), alert("b", "resolved", severity="critical")), "severity") == 5000
    assert priority(Notification("firing", (alert(severity="none", level="critical"),)), "severity") == 1000
    assert priority(Notification("firing", (alert(level="critical"),)), "level") == 9000


def test_the_digest_tells_a_repetition_from_news() -> None:
    one = group(alert("a"), alert("b"))
    assert digest(one) == digest(replace(one, alerts=one.alerts[::-1], title="x"))
    others = [
        replace(one, status="resolved"),
        replace(one, group_key="other"),
        replace(one, alerts=one.alerts[:1]),
        replace(one, alerts=(one.alerts[0], replace(one.alerts[1], starts_at="2026-11-28T09:00:00Z"))),
        replace(one, alerts=(one.alerts[0], replace(one.alerts[1], status="resolved"))),
    ]
    assert len({digest(each) for each in (one, *others)}) == 6
    without = replace(one, alerts=tuple(replace(each, fingerprint="") for each in one.alerts))
    assert digest(without) != digest(replace(without, alerts=without.alerts[:1] * 2)), "labels stand for a fingerprint"


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_long_text_is_cut_at_a_word(most: int) -> None:
    text = fit("word " * 400, most)
    assert count(text)[1] == most
    assert text.endswith("word...")
    assert len(text) > {1: 150, 2: 290, 3: 440}[most]


def test_what_cannot_be_sent_is_made_so_that_it_can() -> None:
    assert fit("a\0b\r\n\tc\ud800d\x7f  e", 1) == "a b c?d e"


WORDS = st.text(st.characters() | st.sampled_from(" \n{}[]€~e\u0301👨‍👩‍👧🇺🇾\ud800\0"), max_size=600)


@given(WORDS, st.integers(1, 4))
def test_whatever_the_text_it_fits_and_can_be_sent(text: str, most: int) -> None:
    made = fit(text, most)
    made.encode()
    assert "\0" not in made
    assert "\n" not in made
    assert count(made)[1] <= most
    assert made.endswith("...") or made == fit(made, most)


LABELS = st.dictionaries(
    st.sampled_from(["alertname", "severity", "instance", "job", "__x", "zone"]), WORDS, max_size=4
)
ALERTS = st.builds(Alert, st.sampled_from(["firing", "resolved", ""]), LABELS, LABELS, st.just(""), st.just(""))


@given(
    st.builds(
        Notification, st.sampled_from(["firing", "resolved"]), st.lists(ALERTS, min_size=1, max_size=8).map(tuple),
        WORDS, LABELS, LABELS, LABELS, WORDS, WORDS,
    )
)  # fmt: skip
def test_any_alerts_make_a_text(notification: Notification) -> None:
    text = compose(notification, 2)
    assert text.startswith(notification.status.upper())
    assert count(text)[1] <= 2
    assert len(digest(notification)) == 32
