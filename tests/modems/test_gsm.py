"""The serial channel, over a real pty against a scripted modem: spec/gsm-modem.md §1 to §4."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gatewayd.errors import ChannelLost, ChannelParked, SubmitError
from gatewayd.model import ChannelState, FailureClass, Outcome, SimIdentity
from gatewayd.modems.channel import Received
from gatewayd.modems.gsm import GsmChannel
from tests.modems.dialogue import (
    DELIVER,
    NAMES,
    PATIENCE,
    REPORT,
    TIMING,
    Answer,
    Collector,
    admit,
    channel_at,
    error,
    ok,
    opened,
    peer_at,
    running,
    segment,
    within,
)

# -- bring-up --

EXPECTED = {
    # name: (iccid, imsi, operator, rssi_dbm, model, TP-MR of the submission, CNMI)
    "generic": ("89490100000000000001", "748010000000001", "74801", -79, "ACME G1", 5, "2,1"),
    "huawei": ("89490100000000000002", "748010000000002", "74801", -73, "huawei E303", 200, "2,1,0,2,0"),
    "quectel": ("8949010000000000003", "748010000000003", "74807", -51, "Quectel EC25", 17, "2,1,0,1,0"),
    "simcom": ("8949010000000000004", "748010000000004", "74810", -91, "SIMCOM_Ltd SIMCOM_SIM800L", 0, "2,1,0,1,0"),
    "wavecom": (
        "8949010000000000005",
        "748010000000005",
        "74801",
        None,
        "WAVECOM MODEM MULTIBAND  900E  1800",
        9,
        None,
    ),
}


def test_every_dialogue_has_its_expectation() -> None:
    assert sorted(EXPECTED) == NAMES


@pytest.mark.parametrize("name", NAMES)
async def test_bring_up_and_first_submission(name: str, tmp_path: Path) -> None:
    iccid, imsi, operator, rssi_dbm, model, ref, cnmi = EXPECTED[name]
    async with peer_at(tmp_path, name) as peer, opened(peer) as channel:
        status = channel.status()
        assert status.state is ChannelState.READY
        assert (status.sim, status.operator) == (SimIdentity(iccid, imsi), operator)
        assert (status.rssi_dbm, status.model, status.imei) == (rssi_dbm, model, "490154203237518")
        assert cnmi is None or f"AT+CNMI={cnmi}" in peer.heard
        receipt = await within(channel.submit(segment(channel)))
        assert receipt.ref == ref
        assert receipt.started_ms <= receipt.finished_ms
        assert [pdu[:4] for pdu in peer.pdus] == ["0021"]  # no SMSC address; SMS-SUBMIT with a report


async def test_bring_up_of_an_instant_modem_is_fast(tmp_path: Path) -> None:
    async with peer_at(tmp_path, "huawei") as peer:
        began = time.process_time(), time.monotonic()
        async with opened(peer):
            busy, passed = time.process_time() - began[0], time.monotonic() - began[1]
            assert passed - busy < 1.0  # what it slept


async def test_a_half_written_sms_is_left_without_sending_it(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer._awaits_pdu = True  # somebody died between the prompt and the PDU
        async with opened(peer):
            assert peer.heard[0] == "ESC"
            assert not peer.pdus


async def test_a_modem_left_in_quiet_and_numeric_mode_is_reached(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT"] = [b"", b"", b"0\r"]
        timing = TIMING.__class__(quiet_s=0.05, open_quiet_s=0.01, settle_s=0.0, probe_s=0.05)
        async with opened(peer, timing=timing) as channel:
            assert "ATE0V1Q0" in peer.heard
            assert channel.status().state is ChannelState.READY


async def test_a_late_result_of_the_session_before_is_reported_and_completes_nothing(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT"] = [b"\r\n+CMGS: 77\r\n\r\nOK\r\n" + ok(), ok()]
        sink = Collector()
        async with opened(peer) as channel, running(channel, sink):
            await sink.until(lambda: sink.late == [77])
            assert channel.status().sim.imsi == "748010000000001"


@pytest.mark.parametrize(
    ("answer", "parked", "words"),
    [
        (ok("+CPIN: SIM PIN"), True, "PIN"),
        (ok("+CPIN: SIM PUK"), True, "PUK"),
        (ok("+CPIN: PH-NET PIN"), True, "PH-NET PIN"),
        (error("+CME ERROR: 11"), True, "PIN"),
        (error("+CME ERROR: 12"), True, "PUK"),
        (error("+CME ERROR: SIM not inserted"), False, "no SIM"),
        (error("+CMS ERROR: 310"), False, "no SIM"),
        (error("+CME ERROR: 13"), False, "SIM does not work"),
        (error("+CME ERROR: 14"), False, "not ready"),
        (error(), False, "is a SIM in"),
    ],
)
async def test_trouble_with_the_sim(answer: bytes, parked: bool, words: str, tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT+CPIN?"] = answer
        channel = channel_at(peer)
        with pytest.raises(ChannelParked if parked else ChannelLost, match=words):
            await within(channel.open(admit))
        assert channel.status().state is (ChannelState.PARKED if parked else ChannelState.DOWN)
        assert words in channel.status().reason
        assert not [text for text in peer.heard if text.startswith("AT+CPIN=")]  # no PIN is ever tried


async def test_a_busy_sim_is_waited_for(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        busy = error("+CME ERROR: 14")
        peer.answers["AT+CPIN?"] = [busy, error("+CME ERROR: 515"), ok("+CPIN: READY")]
        peer.answers["AT+CIMI"] = [busy, ok("748010000000001")]
        peer.answers["AT+CMGF=0"] = [error("+CMS ERROR: 314"), ok()]
        async with opened(peer) as channel:
            assert channel.status().state is ChannelState.READY


async def test_a_sim_that_is_not_admitted_parks_the_channel(tmp_path: Path) -> None:
    async def changed(sim: SimIdentity) -> str:
        return f"another SIM: {sim.iccid}"

    async with peer_at(tmp_path) as peer:
        channel = channel_at(peer)
        with pytest.raises(ChannelParked, match="another SIM: 89490100000000000001"):
            await within(channel.open(changed))
        assert "AT+CMGF=0" not in peer.heard


async def test_no_pdu_mode_no_channel(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT+CMGF=0"] = error()
        with pytest.raises(ChannelLost, match=r"AT\+CMGF=0 is refused"):
            await within(channel_at(peer).open(admit))
        assert peer.heard.count("AT+CMGF=0") == 1 + PATIENCE.tries


async def test_a_missing_device_says_so(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        channel = channel_at(peer, port=str(tmp_path / "away"))
        with pytest.raises(ChannelLost, match="no such device"):
            await within(channel.open(admit))


async def test_a_mute_port_is_given_up(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers.update({"AT": b"", "ATE0V1Q0": b""})
        timing = TIMING.__class__(quiet_s=0.02, open_quiet_s=0.01, probe_s=0.02)
        with pytest.raises(ChannelLost, match="no answer to AT"):
            await within(channel_at(peer, timing=timing).open(admit))


async def test_noise_without_end_is_given_up(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT"] = b"x" * 5000
        with pytest.raises(ChannelLost, match="does not speak AT"):
            await within(channel_at(peer).open(admit))


@pytest.mark.parametrize(
    ("current", "written"), [('"+59899111111",145', False), ('"+59899000000",145', True), ('""', True)]
)
async def test_the_smsc_is_written_only_if_it_differs(current: str, written: bool, tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT+CSCA?"] = ok(f"+CSCA: {current}")
        peer.answers['AT+CSCA="+59899111111",145'] = ok()
        async with opened(peer, smsc="+59899111111"):
            assert ('AT+CSCA="+59899111111",145' in peer.heard) == written


async def test_notifications_that_read_back_wrong_are_not_believed(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT+CNMI=2,1,0,1,0"] = ok()
        peer.answers["AT+CNMI=2,1,0,2,0"] = ok()
        peer.answers["AT+CNMI?"] = [ok("+CNMI: 2,0,0,0,0"), ok("+CNMI: 2,1,0,2,0")]
        async with opened(peer):
            assert [text for text in peer.heard if text.startswith("AT+CNMI=")][-1] == "AT+CNMI=2,1,0,2,0"


async def test_a_modem_that_names_itself_only_by_ati(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        for text in ("AT+CGMI", "AT+CGMM", "AT+CGMR", "AT+CGSN"):
            peer.answers[text] = error()
        peer.answers["ATI"] = ok("Manufacturer: ACME", "Model: G2", "Revision: 1", "IMEI: 490154203237518")
        async with opened(peer) as channel:
            assert (channel.status().model, channel.status().imei) == ("ACME G2", "490154203237518")


async def test_a_restart_during_bring_up_begins_again(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT+CGMM"] = error("RDY") + ok("G1")
        with pytest.raises(ChannelLost, match="restarted during bring-up"):
            await within(channel_at(peer).open(admit))


# -- registration --


async def test_an_unregistered_channel_becomes_ready_by_a_urc(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT+CREG?"] = ok("+CREG: 2,2")
        sink = Collector()
        async with opened(peer) as channel, running(channel, sink):
            assert channel.status().state is ChannelState.UNREGISTERED
            assert "searching" in channel.status().reason
            with pytest.raises(SubmitError) as caught:
                await channel.submit(segment(channel))
            assert (caught.value.outcome, caught.value.failure) == (Outcome.NOT_SENT, FailureClass.DEVICE)
            await sink.until(lambda: sink.states[-1:] == ["unregistered"])
            peer.urc('+CREG: 1,"00C3","0A1B"')
            await sink.until(lambda: sink.states[-1:] == ["ready"])
            peer.urc("+CREG: 0")
            await sink.until(lambda: sink.states[-1:] == ["unregistered"])


async def test_an_unregistered_channel_becomes_ready_by_polling(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers["AT+CREG?"] = [ok("+CREG: 2,2"), ok("+CREG: 2,2"), ok("+CREG: 2,1")]
        sink = Collector()
        async with opened(peer, search_interval_s=0.02) as channel, running(channel, sink):
            await sink.until(lambda: sink.states[-1:] == ["ready"])


async def test_roaming_can_be_forbidden(tmp_path: Path) -> None:
    async with peer_at(tmp_path, "simcom") as peer, opened(peer, roaming=False) as channel:
        assert channel.status().state is ChannelState.UNREGISTERED
        assert "roaming" in channel.status().reason


# -- submitting: the table of spec/gsm-modem.md §3 --


async def refused(channel: GsmChannel) -> SubmitError:
    with pytest.raises(SubmitError) as caught:
        await within(channel.submit(segment(channel)))
    return caught.value


@pytest.mark.parametrize(
    ("prompt", "outcome", "at_fault", "code"),
    [
        (error("+CMS ERROR: 330"), Outcome.NOT_SENT, FailureClass.SMSC, "CMS 330"),
        (error("+CMS ERROR: 500"), Outcome.NOT_SENT, FailureClass.UNKNOWN, "CMS 500"),
        (error(), Outcome.NOT_SENT, FailureClass.UNKNOWN, "ERROR"),
        (b"\r\n> " + error("+CMS ERROR: 331"), Outcome.NOT_SENT, FailureClass.NETWORK, "CMS 331"),
    ],
)
async def test_an_error_instead_of_the_prompt(
    prompt: bytes, outcome: Outcome, at_fault: FailureClass, code: str, tmp_path: Path
) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        peer.answers["AT+CMGS="] = prompt
        failure = await refused(channel)
        assert (failure.outcome, failure.failure, failure.code) == (outcome, at_fault, code)
        assert failure.started_ms is not None
        assert not peer.pdus


@pytest.mark.parametrize(
    ("answer", "outcome", "at_fault", "code"),
    [
        (error("+CMS ERROR: 38"), Outcome.NOT_SENT, FailureClass.NETWORK, "CMS 38"),
        (error("+CMS ERROR: 21"), Outcome.NOT_SENT, FailureClass.REJECTED, "CMS 21"),
        (error("+CMS ERROR: 1"), Outcome.NOT_SENT, FailureClass.NUMBER, "CMS 1"),
        (error("+CMS ERROR: 500"), Outcome.IN_DOUBT, FailureClass.UNKNOWN, "CMS 500"),
        (error("+CMS ERROR: 350"), Outcome.IN_DOUBT, FailureClass.SIM, "CMS 350"),
        (error("+CME ERROR: 100"), Outcome.IN_DOUBT, FailureClass.DEVICE, "CME 100"),
        (error("+CMS ERROR: 777"), Outcome.IN_DOUBT, FailureClass.UNKNOWN, "CMS 777"),
        (error("COMMAND NOT SUPPORT"), Outcome.NOT_SENT, FailureClass.UNKNOWN, "COMMAND NOT SUPPORT"),
    ],
)
async def test_a_refused_pdu(
    answer: bytes, outcome: Outcome, at_fault: FailureClass, code: str, tmp_path: Path
) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        good = peer.answers["PDU"]
        peer.answers["PDU"] = answer
        failure = await refused(channel)
        assert (failure.outcome, failure.failure, failure.code) == (outcome, at_fault, code)
        peer.answers["PDU"] = good
        assert (await within(channel.submit(segment(channel)))).ref == 5  # the session goes on


@pytest.mark.parametrize(
    ("answer", "ref"),
    [
        (ok("+CMGS: 7"), 7),
        (ok('+CMGS: 8,"0100"'), 8),
        (ok(), None),
        (error("+CMS ERROR: 197"), None),
        (ok("+CMGS: 99999"), None),
        (b'\r\n+CMTI: "SM",1\r\n+CMGS: 3\r\n+CREG: 1\r\n+CDS: 25\r\n' + REPORT.encode() + b"\r\nOK\r\n", 3),
    ],
)
async def test_a_sent_pdu(answer: bytes, ref: int | None, tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        peer.answers["PDU"] = answer
        assert (await within(channel.submit(segment(channel)))).ref == ref


async def test_the_reference_without_its_ok_is_sent(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        timing = TIMING.__class__(quiet_s=0.05, open_quiet_s=0.01, settle_s=0.0, factor=0.02)
        async with opened(peer) as channel:
            assert channel._client is not None
            channel._client._timing = timing  # only now: OK is given up after 0.1 s
            peer.answers["PDU"] = [b"\r\n+CMGS: 6\r\n", ok("+CMGS: 7")]
            assert (await within(channel.submit(segment(channel)))).ref == 6
            channel._client._timing = TIMING
            assert (await within(channel.submit(segment(channel)))).ref == 7


async def test_silence_after_the_pdu_is_doubt_and_ends_the_session(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer, submit_timeout_s=0.1) as channel:
        peer.answers["PDU"] = b""
        sink = Collector()
        async with running(channel, sink) as task:
            failure = await refused(channel)
            assert (failure.outcome, failure.code) == (Outcome.IN_DOUBT, "TIMEOUT")
            with pytest.raises(ChannelLost, match="no final result"):
                await within(task)
        assert channel.status().state is ChannelState.DOWN
        again = await refused(channel)
        assert again.outcome is Outcome.NOT_SENT
        assert again.started_ms is None


async def test_no_prompt_is_not_sent_and_the_late_prompt_is_no_harm(tmp_path: Path) -> None:
    timing = TIMING.__class__(quiet_s=0.05, open_quiet_s=0.01, settle_s=0.0, prompt_s=0.1)
    async with peer_at(tmp_path) as peer, opened(peer, timing=timing) as channel:
        prompt = peer.answers["AT+CMGS="]
        peer.answers["AT+CMGS="] = b""
        failure = await refused(channel)
        assert (failure.outcome, failure.failure) == (Outcome.NOT_SENT, FailureClass.DEVICE)
        await peer.until(lambda: peer.heard[-1] == "ESC")
        peer.say(b"\r\n> ")
        peer.say(ok("+CMGS: 99"))  # whatever that is, it is not the next one's
        peer.answers["AT+CMGS="] = prompt
        assert (await within(channel.submit(segment(channel)))).ref == 5
        assert len(peer.pdus) == 1


@pytest.mark.parametrize("raises", [False, True])
async def test_the_gate_withdraws_between_prompt_and_pdu(raises: bool, tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        seen: list[str] = []

        def gate() -> bool:
            seen.append(peer.heard[-1])
            if raises:
                raise ZeroDivisionError
            return False

        with pytest.raises(SubmitError) as caught:
            await within(channel.submit(segment(channel), gate))
        assert caught.value.outcome is Outcome.NOT_SENT
        assert seen[0].startswith("AT+CMGS=")
        assert peer.heard[-1] == "ESC"
        assert not peer.pdus
        assert (await within(channel.submit(segment(channel)))).ref == 5


# -- the link, cut in every phase --


async def test_unplugged_before_the_prompt(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        peer.answers["AT+CMGS="] = peer.unplug_after()
        failure = await refused(channel)
        assert (failure.outcome, failure.failure) == (Outcome.NOT_SENT, FailureClass.DEVICE)
        assert "gone" in failure.text


async def test_unplugged_after_the_prompt(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:

        def gate() -> bool:
            peer.unplug()
            return True

        with pytest.raises(SubmitError) as caught:
            await within(channel.submit(segment(channel), gate))
        # The PDU was written to a port that was gone: nobody can say how much of it arrived.
        assert caught.value.outcome is Outcome.IN_DOUBT


async def test_unplugged_after_the_pdu(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        peer.answers["PDU"] = peer.unplug_after()
        failure = await refused(channel)
        assert (failure.outcome, failure.code) == (Outcome.IN_DOUBT, "")
        assert failure.started_ms is not None


async def test_unplugged_after_the_reference(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        peer.answers["PDU"] = peer.unplug_after(b"\r\n+CMGS: 12\r\n")
        assert (await within(channel.submit(segment(channel)))).ref == 12
        failure = await refused(channel)
        assert (failure.outcome, failure.failure) == (Outcome.NOT_SENT, FailureClass.DEVICE)


@pytest.mark.parametrize("line", ["RDY", "^SYSSTART", "+CFUN: 1", "NORMAL POWER DOWN"])
async def test_a_restart_after_the_pdu_is_doubt(line: str, tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        peer.answers["PDU"] = error(line)
        failure = await refused(channel)
        assert failure.outcome is Outcome.IN_DOUBT
        assert "restarted" in failure.text


async def test_a_restart_before_the_pdu_is_not_sent(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        peer.answers["AT+CMGS="] = error("RDY")
        failure = await refused(channel)
        assert failure.outcome is Outcome.NOT_SENT


async def test_the_end_of_a_boot_makes_the_settings_doubtful(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        sink = Collector()
        async with running(channel, sink) as task:
            await sink.until(lambda: sink.states == ["ready"])
            peer.heard.clear()
            peer.urc("SMS Ready")
            await peer.until(lambda: "AT+CNMI?" in peer.heard)  # asked, and all is well
            peer.answers["AT+CMGF?"] = ok("+CMGF: 1")
            peer.urc("SMS Ready")
            with pytest.raises(ChannelLost, match="forgot its settings"):
                await within(task)


# -- cancellation --


async def test_cancelled_before_the_pdu_nothing_is_sent(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        prompt = peer.answers["AT+CMGS="]
        peer.answers["AT+CMGS="] = b""
        task = asyncio.create_task(channel.submit(segment(channel)))
        await peer.until(lambda: peer.heard[-1].startswith("AT+CMGS="))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(task)
        await peer.until(lambda: peer.heard[-1] == "ESC")
        peer.answers["AT+CMGS="] = prompt
        assert (await within(channel.submit(segment(channel)))).ref == 5
        assert len(peer.pdus) == 1


async def test_cancelled_after_the_pdu_the_result_still_counts(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        sink = Collector()
        async with running(channel, sink):
            peer.answers["PDU"] = b""
            task = asyncio.create_task(channel.submit(segment(channel)))
            await peer.until(lambda: peer.heard[-1] == "PDU")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await within(task)
            assert "ESC" not in peer.heard[1:]
            peer.say(ok("+CMGS: 31"))
            await sink.until(lambda: sink.late == [31])
            peer.answers["PDU"] = ok("+CMGS: 32")
            assert (await within(channel.submit(segment(channel)))).ref == 32
            assert "AT" not in peer.heard[peer.heard.index("PDU") :]  # the dialogue was never out of step


# -- receiving --


def stored(index: int, pdu: str = DELIVER, length: int | None = None) -> bytes:
    octets = len(pdu) // 2 - 8 if length is None else length
    return f"\r\n+CMGL: {index},1,,{octets}\r\n{pdu}".encode()


async def test_what_is_stored_is_deleted_only_after_the_sink_took_it(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer, poll_interval_s=0.05) as channel:
        peer.answers["AT+CMGL=4"] = [stored(1) + stored(4, REPORT) + ok(), stored(4, REPORT) + ok(), ok()]
        peer.answers["AT+CMGD=1"] = peer.answers["AT+CMGD=4"] = ok()
        deleted: list[list[str]] = []

        def watch(event: Received) -> None:
            deleted.append([text for text in peer.heard if text.startswith("AT+CMGD")])

        sink = Collector(refuse=(2,), watch=watch)  # the report is not taken the first time
        async with running(channel, sink):
            await peer.until(lambda: "AT+CMGD=4" in peer.heard)
        first, second, third = (event.pdu for event in sink.received)
        assert deleted == [[], ["AT+CMGD=1"], ["AT+CMGD=1"]]
        assert (first.raw, first.storage, first.index, first.length) == (DELIVER, "SM", 1, 24)
        assert first.listing == second.listing != third.listing
        assert (second.index, second.raw) == (third.index, third.raw) == (4, REPORT)
        assert not [text for text in peer.heard if text.startswith("AT+CMGD") and "," in text]


async def test_an_announcement_wakes_the_reader(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        sink = Collector()
        peer.answers["AT+CMGD=2"] = ok()
        async with running(channel, sink):
            await peer.until(lambda: "AT+CMGL=4" in peer.heard)
            peer.answers["AT+CMGL=4"] = [stored(2) + ok(), ok()]
            peer.urc('+CMTI: "ME",-1')  # memory and index are not to be trusted
            await peer.until(lambda: "AT+CMGD=2" in peer.heard)
        assert [event.pdu.index for event in sink.received] == [2]


async def test_every_memory_is_read(tmp_path: Path) -> None:
    async with peer_at(tmp_path, "quectel") as peer, opened(peer) as channel:
        sink = Collector()
        peer.answers["AT+CMGL=4"] = [ok(), stored(0) + ok(), ok()]
        peer.answers["AT+CMGD=0"] = ok()
        async with running(channel, sink):
            await peer.until(lambda: "AT+CMGD=0" in peer.heard)
            await peer.until(lambda: peer.heard.count('AT+CPMS="ME","ME","ME"') == 2)  # put back
        assert [(event.pdu.storage, event.pdu.index) for event in sink.received] == [("SM", 0)]
        assert peer.heard.index('AT+CPMS="SM","ME","ME"') < peer.heard.index("AT+CMGD=0")


async def test_a_truncated_line_is_read_again(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        sink = Collector()
        cut = DELIVER[:-10]
        peer.answers["AT+CMGL=4"] = [stored(1, cut, 24) + stored(2, cut, 24) + ok(), ok()]
        peer.answers["AT+CMGR=1"] = f"\r\n+CMGR: 1,,24\r\n{DELIVER}\r\n\r\nOK\r\n".encode()
        peer.answers["AT+CMGR=2"] = f"\r\n+CMGR: 1,,24\r\n{cut}\r\n\r\nOK\r\n".encode()
        peer.answers["AT+CMGD=1"] = peer.answers["AT+CMGD=2"] = ok()
        async with running(channel, sink):
            await peer.until(lambda: "AT+CMGD=2" in peer.heard)
        assert [event.pdu.raw for event in sink.received] == [DELIVER, cut]


async def test_a_modem_that_cannot_list_is_read_by_index(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        sink = Collector()
        peer.answers["AT+CMGL=4"] = error("+CMS ERROR: 303")
        peer.answers["AT+CPMS?"] = ok('+CPMS: "SM",2,10,"SM",2,10,"SM",2,10')
        for index in (1, 3):
            peer.answers[f"AT+CMGR={index}"] = f"\r\n+CMGR: 0,,24\r\n{DELIVER}\r\n\r\nOK\r\n".encode()
            peer.answers[f"AT+CMGD={index}"] = ok()
        peer.answers["AT+CMGR=0"] = error("+CMS ERROR: 321")
        peer.answers["AT+CMGR=2"] = ok()
        async with running(channel, sink):
            await peer.until(lambda: "AT+CMGD=3" in peer.heard)
        assert [event.pdu.index for event in sink.received] == [1, 3]
        assert "AT+CMGR=4" not in peer.heard  # both were found


@pytest.mark.parametrize("answer", [error("+CMS ERROR: 321"), error("+CMS ERROR: 500")])
async def test_a_delete_that_fails_is_tried_again_and_not_delivered_again(answer: bytes, tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer, poll_interval_s=0.05) as channel:
        sink = Collector()
        peer.answers["AT+CMGL=4"] = [stored(1) + ok(), stored(1) + ok(), ok()]
        peer.answers["AT+CMGD=1"] = [answer, ok()]
        async with running(channel, sink):
            await peer.until(lambda: peer.heard.count("AT+CMGL=4") >= 3)
        gone = b"321" in answer
        assert peer.heard.count("AT+CMGD=1") == 2
        assert len(sink.received) == (2 if gone else 1)  # gone, then there again: the spool has to look at it


async def test_what_is_delivered_directly(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        sink = Collector()
        async with running(channel, sink):
            peer.urc("+CMT: ,24", DELIVER, "+CDS: 25", REPORT)
            await sink.until(lambda: len(sink.received) == 2)
        first, second = (event.pdu for event in sink.received)
        assert (first.raw, first.length, first.index) == (DELIVER, 24, None)
        assert (second.raw, second.length, second.index) == (REPORT, 25, None)
        assert first.listing != second.listing
        assert "AT+CNMA" not in peer.heard


async def test_a_report_is_passed_on_while_a_submission_holds_the_port_and_when_the_session_ends(
    tmp_path: Path,
) -> None:
    """It lies nowhere else: waiting behind the submission it would be lost with the session."""
    async with peer_at(tmp_path) as peer, opened(peer, submit_timeout_s=60) as channel:
        peer.answers["PDU"] = b""
        sending = asyncio.create_task(refused(channel))
        await peer.until(lambda: "PDU" in peer.heard)
        sink = Collector(refuse=(1,))  # the spool takes no writes just then
        async with running(channel, sink):
            await sink.until(lambda: sink.states == ["ready"])  # from here on it waits for the port, to list the stores
            peer.urc("+CDS: 25", REPORT)
            await sink.until(lambda: len(sink.received) == 1)
            assert not sending.done()
            peer.unplug()
            assert (await within(sending)).outcome is Outcome.IN_DOUBT
            await sink.until(lambda: len(sink.received) == 2)  # offered once more before the session is over


async def test_direct_delivery_is_acknowledged_where_it_was_chosen(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer:
        peer.answers.update({"AT+CSMS=1": ok("+CSMS: 1,1,1"), "AT+CNMI=2,2,0,1,0": ok(), "AT+CNMA": ok()})
        peer.answers["AT+CNMI?"] = ok("+CNMI: 2,2,0,1,0")
        async with opened(peer, direct=True) as channel:
            sink = Collector()
            async with running(channel, sink):
                peer.urc("+CMT: ,24", DELIVER)
                await peer.until(lambda: "AT+CNMA" in peer.heard)


async def test_a_late_reference_is_reported(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        sink = Collector()
        async with running(channel, sink):
            peer.urc("+CMGS: 44", "OK")
            await sink.until(lambda: sink.late == [44])


async def test_a_modem_in_text_mode_is_given_up_and_nothing_deleted(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        peer.answers["AT+CMGL=4"] = b'\r\n+CMGL: 1,"REC READ","+598",,"26/11/23"\r\nhello\r\n' + ok()
        sink = Collector()
        async with running(channel, sink) as task:
            with pytest.raises(ChannelLost, match="left PDU mode"):
                await within(task)
        assert not sink.received
        assert not [text for text in peer.heard if text.startswith("AT+CMGD")]


# -- idle, storms, endings --


async def test_an_idle_channel_is_silent(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        sink = Collector()
        async with running(channel, sink):
            await peer.until(lambda: "AT+CMGL=4" in peer.heard)
            await sink.until(lambda: bool(sink.states))
            said = len(peer.heard)
            before = time.process_time()
            await asyncio.sleep(0.3)  # the subject of this test is that nothing happens meanwhile
            assert time.process_time() - before < 0.15
            assert len(peer.heard) == said
        assert sink.states == ["ready"]


async def test_a_storm_of_urcs_does_not_hold_up_a_submission(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        sink = Collector()
        storm = b'\r\n^RSSI:15\r\n\r\n+CMTI: "SM",1\r\n' * 40
        prompt: Answer = storm + b"\r\n> "
        peer.answers["AT+CMGS="] = prompt
        peer.answers["PDU"] = storm + b"\r\n+CMGS: 5\r\n" + storm + b"\r\nOK\r\n"
        async with running(channel, sink):
            for _ in range(20):
                assert (await within(channel.submit(segment(channel)))).ref == 5
        assert peer.heard.count("AT+CMGL=4") < 20  # an empty memory is not read for each false alarm


async def test_a_removed_sim_ends_the_session(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel, running(channel, Collector()) as task:
        peer.urc("+CPIN: NOT READY")
        with pytest.raises(ChannelLost, match="SIM is gone"):
            await within(task)


async def test_unplugged_while_running(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel, running(channel, Collector()) as task:
        await peer.until(lambda: "AT+CMGL=4" in peer.heard)
        peer.unplug()
        with pytest.raises(ChannelLost, match="gone"):
            await within(task)


async def test_closing_ends_everything(tmp_path: Path) -> None:
    async with peer_at(tmp_path) as peer, opened(peer) as channel:
        peer.answers["PDU"] = b""
        async with running(channel, Collector()) as task:
            sending = asyncio.create_task(refused(channel))
            await peer.until(lambda: "PDU" in peer.heard)
            await within(channel.close())
            await within(channel.close())
            assert (await within(sending)).outcome is Outcome.IN_DOUBT
            with pytest.raises(ChannelLost):
                await within(task)
        assert channel.status().state is ChannelState.STOPPED


async def test_notifications_a_modem_turned_off_are_turned_on_again(tmp_path: Path) -> None:
    async with (
        peer_at(tmp_path) as peer,
        opened(peer, health_interval_s=0.01) as channel,
        running(channel, Collector()),
    ):
        peer.answers["AT+CNMI?"] = [ok("+CNMI: 2,0,0,0,0"), ok("+CNMI: 2,1,0,0,0")]
        await peer.until(lambda: peer.heard.count("AT+CNMI=2,1") == 2)


async def test_health_checks_do_not_come_between_prompt_and_result(tmp_path: Path) -> None:
    async with (
        peer_at(tmp_path) as peer,
        opened(peer, health_interval_s=0.001) as channel,
        running(channel, Collector()),
    ):
        for _ in range(30):
            await within(channel.submit(segment(channel)))
        for index, text in enumerate(peer.heard):
            if text.startswith("AT+CMGS="):
                assert peer.heard[index + 1] == "PDU"
        assert "AT+CSQ" in peer.heard
