"""Each fault of pyserial-asyncio that the transport rules out, on real pseudo-terminals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import pty
import resource
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serial

from gatewayd.errors import ChannelLost
from gatewayd.modems import transport as module
from gatewayd.modems.transport import WRITE_LIMIT, open_serial

DEADLINE_S = 20


class Device:
    """The far end: a pty whose master the test holds. Its slave is not kept open, so closing it shows as EIO here."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        os.close(slave)

    def vanish(self) -> None:
        if self.master >= 0:
            os.close(self.master)
        self.master = -1

    def is_held(self) -> bool:
        """Whether anybody has the port open."""
        os.set_blocking(self.master, False)
        while True:
            try:
                os.read(self.master, 1 << 20)  # what was written before comes first
            except BlockingIOError:
                return True
            except OSError:
                return False


class Listener:
    """Collects what a transport says."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost: list[Exception | None] = []
        self.on_lost: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_lost()
        self.lost.append(exc)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_lost(self) -> Exception | None:
        await self.until(lambda: bool(self.lost))
        return self.lost[0]


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device()
    yield device
    device.vanish()


async def until_not_held(device: Device) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while device.is_held():
            await asyncio.sleep(0.005)


async def drain(fd: int, count: int) -> bytes:
    """Read exactly `count` octets from the device's side."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    got = bytearray()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(DEADLINE_S):
            while len(got) < count:
                await ready.wait()
                ready.clear()
                with contextlib.suppress(BlockingIOError):
                    got += os.read(fd, 65536)
    finally:
        loop.remove_reader(fd)
    return bytes(got)


@contextlib.contextmanager
def fds_above(count: int) -> Iterator[None]:
    """Take all descriptor numbers below `count`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, count + 200), hard), hard))
    held = [os.open("/dev/null", os.O_RDONLY)]
    try:
        while held[-1] < count:
            held.append(os.dup(held[0]))
        yield
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_carries_bytes_both_ways_and_closes_once(device: Device) -> None:
    listener = Listener()
    transport = await open_serial(device.path, protocol=listener)
    transport.write(b"AT\r")
    assert await drain(device.master, 3) == b"AT\r"
    os.write(device.master, b"\r\nOK\r\n\x00\xff\x1a\x03\x11\x13")
    await listener.until(lambda: len(listener.data) >= 12)
    assert bytes(listener.data) == b"\r\nOK\r\n\x00\xff\x1a\x03\x11\x13"
    await transport.close()
    assert listener.lost == [None]
    assert not device.is_held()


async def test_line_settings(device: Device) -> None:
    transport = await open_serial(device.path, baudrate=9600, protocol=Listener())
    attributes = termios.tcgetattr(transport.serial.fd)
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = attributes
    assert ispeed == ospeed == termios.B9600
    assert cflag & termios.CSIZE == termios.CS8
    assert cflag & termios.CLOCAL
    assert not cflag & termios.HUPCL
    assert not iflag & (termios.IXON | termios.IXOFF | termios.ICRNL)
    assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG)
    assert not oflag & termios.OPOST
    assert cc[termios.VMIN] in (1, b"\x01")
    await transport.close()


@pytest.mark.parametrize("name", ["ttyUSB99", "gone/ttyUSB0"])
async def test_no_such_device(tmp_path: Path, name: str) -> None:
    with pytest.raises(ChannelLost, match="no such device"):
        await open_serial(str(tmp_path / name), protocol=Listener())


async def test_not_a_serial_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path):
        with pytest.raises(ChannelLost, match="is not a serial port"):
            await open_serial(str(path), protocol=Listener())


async def test_impossible_baud_rate(device: Device) -> None:
    with pytest.raises(ChannelLost, match="baud"):
        await open_serial(device.path, baudrate=-1, protocol=Listener())


async def test_permission_denied_names_the_group(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:  # the superuser, who may run these tests, is never refused
        raise serial.SerialException(errno.EACCES, "could not open port")

    monkeypatch.setattr(module.serial, "Serial", refuse)
    os.chmod(device.path, 0o660)  # noqa: PTH101
    with pytest.raises(ChannelLost, match=r"permission denied: .*belongs to the group '\w+'"):
        await open_serial(device.path, protocol=Listener())
    os.chmod(device.path, 0o600)  # noqa: PTH101
    with pytest.raises(ChannelLost, match=r"permission denied: .*mode does not let"):
        await open_serial(device.path, protocol=Listener())


async def test_busy_names_the_holder(device: Device) -> None:
    holder = await asyncio.create_subprocess_exec(
        "sh", "-c", 'exec 3<>"$0"; flock -n 3 && echo held; read -r line', device.path,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert await asyncio.wait_for(holder.stdout.readline(), DEADLINE_S) == b"held\n"
    with pytest.raises(ChannelLost, match=rf"busy: held by another process \(PID {holder.pid}, sh\)"):
        await open_serial(device.path, protocol=Listener())
    await holder.communicate(b"\n")
    await (await open_serial(device.path, protocol=Listener())).close()


async def test_second_opening_in_this_process_is_refused(device: Device) -> None:
    transport = await open_serial(device.path, protocol=Listener())
    with pytest.raises(ChannelLost, match="busy"):
        await open_serial(device.path, protocol=Listener())
    await transport.close()


class SlowPort(serial.Serial):  # type: ignore[misc]
    """A real port whose opening hangs until told otherwise, as a broken USB device's does."""

    release = threading.Event()

    def open(self) -> None:
        assert self.release.wait(DEADLINE_S)
        super().open()


async def test_hung_open_does_not_stall_the_loop_and_is_closed_when_it_comes_late(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    SlowPort.release.clear()
    monkeypatch.setattr(module.serial, "Serial", SlowPort)
    with pytest.raises(ChannelLost, match=r"did not open within 0.05 s"):
        await open_serial(device.path, protocol=Listener(), open_timeout_s=0.05)
    await _let_open_finish(device)
    monkeypatch.undo()
    await (await open_serial(device.path, protocol=Listener())).close()


async def _let_open_finish(device: Device) -> None:
    """Let the hung opening come back, and see its port closed again."""
    assert not device.is_held()
    threads = [thread for thread in threading.enumerate() if thread.name == f"open {device.path}"]
    assert threads
    SlowPort.release.set()
    for thread in threads:
        await asyncio.to_thread(thread.join, DEADLINE_S)
    await until_not_held(device)


async def test_cancelled_open_leaks_nothing(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    SlowPort.release.clear()
    monkeypatch.setattr(module.serial, "Serial", SlowPort)
    opening = asyncio.create_task(open_serial(device.path, protocol=Listener()))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await _let_open_finish(device)


async def test_close_with_stuck_output(device: Device) -> None:
    """Nobody reads the master: neither close() nor the loop waits for it."""
    listener = Listener()
    transport = await open_serial(device.path, protocol=listener)
    transport.write(b"x" * 300_000)
    assert transport.get_write_buffer_size() > 0
    started = time.monotonic()
    await transport.close()
    assert time.monotonic() - started < module.CLOSE_TIMEOUT_S
    assert listener.lost == [None]
    assert not device.is_held()


async def test_hung_close_has_a_limit(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    close_port = module._close_port

    def hang(port: serial.Serial) -> None:
        assert release.wait(DEADLINE_S)
        close_port(port)

    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(module, "_close_port", hang)
    listener = Listener()
    transport = await open_serial(device.path, protocol=listener)
    await transport.close()
    assert len(listener.lost) == 1
    assert "did not close within" in str(listener.lost[0])
    release.set()
    await until_not_held(device)
    assert len(listener.lost) == 1


async def test_connection_lost_comes_once_and_after_the_port_is_closed(device: Device) -> None:
    held: list[bool] = []
    listener = Listener()
    listener.on_lost = lambda: held.append(device.is_held())
    transport = await open_serial(device.path, protocol=listener)
    closing = asyncio.create_task(transport.close())
    await asyncio.sleep(0)
    transport.abort()
    transport.abort()
    await closing
    await transport.close()
    transport.abort()
    transport.write(b"ignored")
    await asyncio.sleep(0)
    assert listener.lost == [None]
    assert held == [False]
    assert transport.is_closing()


async def test_descriptor_numbers_above_1024() -> None:
    with fds_above(1100):
        device = Device()
        listener = Listener()
        transport = await open_serial(device.path, protocol=listener)
        assert transport.serial.fd > 1024
        transport.write(b"AT\r")
        assert await drain(device.master, 3) == b"AT\r"
        os.write(device.master, b"OK")
        await listener.until(lambda: bytes(listener.data) == b"OK")
        await transport.close()
        device.vanish()
    assert listener.lost == [None]


async def test_slow_reader_gets_everything_in_order(device: Device) -> None:
    transport = await open_serial(device.path, protocol=Listener())
    sent = bytearray()
    for number in range(5000):
        piece = b"%07d " % number * 8
        sent += piece
        transport.write(piece)
    assert transport.get_write_buffer_size() > 0
    assert await drain(device.master, len(sent)) == sent
    assert transport.get_write_buffer_size() == 0
    await transport.close()


async def test_output_is_bounded(device: Device) -> None:
    listener = Listener()
    transport = await open_serial(device.path, protocol=listener)
    for _ in range(WRITE_LIMIT // 65536 + 2):
        transport.write(b"x" * 65536)
    assert "takes no data" in str(await listener.until_lost())
    assert not device.is_held()


async def test_flush_discards_and_the_port_goes_on(device: Device) -> None:
    transport = await open_serial(device.path, protocol=Listener())
    transport.write(b"x" * 100_000)
    waiting = transport.get_write_buffer_size()
    transport.flush()
    assert transport.get_write_buffer_size() == 0
    assert await drain(device.master, 100_000 - waiting) == b"x" * (100_000 - waiting)
    transport.write(b"AT\r")
    assert await drain(device.master, 3) == b"AT\r"
    await transport.close()


async def test_vanished_device_is_noticed_at_once(device: Device) -> None:
    listener = Listener()
    transport = await open_serial(device.path, protocol=listener)
    with pytest.raises(NotImplementedError):
        transport.pause_reading()
    device.vanish()
    assert isinstance(await listener.until_lost(), ChannelLost)
    transport.write(b"nothing happens")
    await transport.close()
    assert len(listener.lost) == 1


async def test_vanished_device_with_stuck_output(device: Device) -> None:
    listener = Listener()
    transport = await open_serial(device.path, protocol=listener)
    transport.write(b"x" * 100_000)
    device.vanish()
    assert isinstance(await listener.until_lost(), ChannelLost)
    await transport.close()


async def test_hang_up_reads_as_the_end(device: Device) -> None:
    """TIOCVHANGUP is what the kernel does to the port of an unplugged USB modem: reads give nothing from then on."""
    if os.geteuid() != 0:
        pytest.skip("only the superuser may hang up a terminal")
    listener = Listener()
    await open_serial(device.path, protocol=listener)
    other = os.open(device.path, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.ioctl(other, 0x5437)
    finally:
        os.close(other)
    assert isinstance(await listener.until_lost(), ChannelLost)


async def test_no_spinning_while_idle(device: Device) -> None:
    transport = await open_serial(device.path, protocol=Listener())
    before = time.process_time()
    await asyncio.sleep(0.2)
    assert time.process_time() - before < 0.15
    await transport.close()


async def test_a_listener_that_raises_ends_the_connection(device: Device) -> None:
    problems: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["message"]))

    class Broken(Listener):
        def data_received(self, data: bytes) -> None:
            raise ValueError("broken")

    listener = Broken()
    await open_serial(device.path, protocol=listener)
    os.write(device.master, b"OK")
    assert isinstance(await listener.until_lost(), ValueError)
    assert problems
    assert not device.is_held()
