"""API keys: a file of names and digests, one key per line.

::

    # name  then  word=value, in any order
    crm sha256=9f86…0a08 scopes=send,read created=2026-11-23T12:00:00Z
    alarms sha256=60fe…c9a1 scopes=send created=2026-11-23T12:00:00Z in_doubt_resend=true
    shop sha256=11d0…77ab scopes=send created=2026-11-23T12:00:00Z rate=10/s segments_per_day=5000

Only digests are kept: a key is 256 random bits, so its SHA-256 needs neither salt nor stretching. `in_doubt_resend`
makes the in-doubt policy `resend` the default of what is submitted with that key. `rate` bounds its messages per second
or minute, `segments_per_hour` and `segments_per_day` what it may cost.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from gatewayd.errors import ConfigError, Fault

PREFIX = "gw_"  # lets secret scanners and people recognise one
_RANDOM_OCTETS = 32
_MAX_OCTETS = 1 << 20
_BOM = b"\xef\xbb\xbf"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CREATED_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_WORDS = ("sha256", "scopes", "created", "in_doubt_resend", "rate", "segments_per_hour", "segments_per_day")
_LATER = frozenset({"networks", "expires"})
_RATE = re.compile(r"([1-9][0-9]{0,5})/(s|min)", re.ASCII)
_SEGMENTS = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_PERIODS_S = {"s": 1, "min": 60}


class Scope(StrEnum):
    """What a key may do."""

    SEND = "send"
    READ = "read"
    ADMIN = "admin"  # all of it


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `messages` in `unit` ("s" or "min"), on average; `burst` of them at once."""

    messages: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> Rate:
        """`10/s` or `600/min`. Raises ValueError that says what would be right."""
        match = _RATE.fullmatch(text)
        if match is None:
            raise ValueError("messages per second or minute such as 10/s or 600/min are expected (1 to 999999)")
        return cls(int(match[1]), match[2])

    @property
    def per_s(self) -> float:
        return self.messages / _PERIODS_S[self.unit]

    @property
    def burst(self) -> float:
        """What may come at once after a quiet time: one second's worth, and one message at least."""
        return max(self.per_s, 1.0)

    def __str__(self) -> str:
        return f"{self.messages}/{self.unit}"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, without its secret. `created` is UTC; a limit that is None is none."""

    name: str
    sha256: str
    scopes: frozenset[Scope]
    created: datetime
    in_doubt_resend: bool = False
    rate: Rate | None = None
    segments_per_hour: int | None = None
    segments_per_day: int | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether the key has a scope; `admin` has all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def record(self) -> str:
        """The key as a line of the file, without newline."""
        scopes = ",".join(scope.value for scope in Scope if scope in self.scopes)
        created = self.created.astimezone(UTC).strftime(_CREATED_FORMAT)
        words = [self.name, f"sha256={self.sha256}", f"scopes={scopes}", f"created={created}"]
        if self.in_doubt_resend:
            words.append("in_doubt_resend=true")
        words.extend(f"{word}={value}" for word, value in self.limits().items())
        return " ".join(words)

    def limits(self) -> dict[str, str]:
        """The limits there are, by the word of the file, as they are written there."""
        named = {
            "rate": self.rate,
            "segments_per_hour": self.segments_per_hour,
            "segments_per_day": self.segments_per_day,
        }
        return {word: str(value) for word, value in named.items() if value is not None}


class KeyRing:
    """All keys of a file. Immutable."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._keys = tuple(keys)
        self._digests = tuple((bytes.fromhex(key.sha256), key) for key in self._keys)
        self._names = {key.name: key for key in self._keys}

    def __iter__(self) -> Iterator[ApiKey]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def named(self, name: str) -> ApiKey | None:
        """The key of this name. Callers that have no key have names that no key can have ("host …", "uid …")."""
        return self._names.get(name)

    def find(self, secret: str) -> ApiKey | None:
        """The key this secret belongs to. All are compared, each in constant time."""
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        found = None
        for candidate, key in self._digests:
            if hmac.compare_digest(candidate, digest):
                found = key
        return found


def new_key(
    name: str,
    scopes: Iterable[Scope | str],
    *,
    in_doubt_resend: bool = False,
    rate: str | None = None,
    segments_per_hour: int | None = None,
    segments_per_day: int | None = None,
    now: datetime | None = None,
) -> tuple[str, str]:
    """Make a key: (secret, record line). The secret is nowhere else.

    Raises ConfigError for a bad name, scope or limit (`rate` as in the file: "10/s").
    """
    moment = (now or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    secret = PREFIX + secrets.token_urlsafe(_RANDOM_OCTETS)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    faults: list[str] = []
    if _NAME.fullmatch(name) is None:
        faults.append(_bad_name(name))
    known = _scopes(list(map(str, scopes)), faults)
    bound = _rate(rate, faults)
    per_hour = _segments("segments_per_hour", segments_per_hour, faults)
    per_day = _segments("segments_per_day", segments_per_day, faults)
    if faults:
        raise ConfigError([Fault(name, reason) for reason in faults])
    return secret, ApiKey(name, digest, known, moment, in_doubt_resend, bound, per_hour, per_day).record()


def read_private(path: Path) -> bytes:
    """The content of a file with secrets. Raises ConfigError if it cannot be read, or others can.

    Never waits, also not on a FIFO.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError([Fault("", "is no regular file")], str(path))
            if status.st_mode & 0o007:
                reason = f"everybody can read or change it (mode {stat.S_IMODE(status.st_mode):04o}): chmod o= it"
                raise ConfigError([Fault("", reason)], str(path))
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(_MAX_OCTETS + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError([Fault("", f"cannot be read: {reason}")], str(path)) from error
    if len(data) > _MAX_OCTETS:
        raise ConfigError([Fault("", f"is larger than {_MAX_OCTETS} octets")], str(path))
    return data


def load_keys(path: Path) -> KeyRing:
    """Read a key file. Raises ConfigError with every fault and its line; a fault's path is the key's name."""
    keys, faults = _parse(read_private(path))
    if faults:
        raise ConfigError(faults, str(path))
    return KeyRing(keys)


def add_key(path: Path, record: str) -> None:
    """Append a record to a key file, which is made if it is not there.

    The new content replaces the old at once (rename) and is on disk when this returns. Raises ConfigError if the file
    has faults or the name already, OSError if it cannot be written.
    """

    def change(text: str) -> str:
        return text + ("" if not text or text.endswith("\n") else "\n") + record + "\n"

    _rewrite(path, change, create=True)


def remove_key(path: Path, name: str) -> None:
    """Take a key out of a file; comments stay. Raises ConfigError if there is no such key, else as `add_key`."""

    def change(text: str) -> str:
        lines = text.split("\n")
        kept = [line for line in lines if line.split()[:1] != [name]]
        if len(kept) == len(lines):
            raise ConfigError([Fault(name, "there is no key of this name")], str(path))
        return "\n".join(kept)

    _rewrite(path, change, create=False)


def _parse(data: bytes) -> tuple[list[ApiKey], list[Fault]]:
    keys: list[ApiKey] = []
    faults: list[Fault] = []
    names: dict[str, int] = {}
    digests: dict[str, int] = {}
    for number, raw in enumerate(data.removeprefix(_BOM).split(b"\n"), 1):
        try:
            words = raw.decode("ascii").split()
        except UnicodeDecodeError:
            if not raw.lstrip().startswith(b"#"):
                faults.append(Fault("", "is not ASCII", number))
            continue
        if not words or words[0].startswith("#"):
            continue
        name = words[0]
        key, reasons = _parse_words(name, words[1:])
        if name in names:
            reasons.append(f"the name is on line {names[name]} already: names must differ")
        names.setdefault(name, number)
        if key is not None:
            if key.sha256 in digests:
                reasons.append(f"the same key is on line {digests[key.sha256]} already")
            digests.setdefault(key.sha256, number)
            keys.append(key)
        where = name if _NAME.fullmatch(name) else ""
        faults.extend(Fault(where, reason, number) for reason in reasons)
    return keys, faults


def _parse_words(name: str, words: list[str]) -> tuple[ApiKey | None, list[str]]:
    """One line: the key (None if it is not whole) and what is wrong with it."""
    reasons: list[str] = [] if _NAME.fullmatch(name) else [_bad_name(name)]
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key in _LATER:
            reasons.append(f"{key}: not in this version")
        elif not equals or key not in _WORDS:
            # Not shown: it may be a secret somebody pasted.
            reasons.append(f"only {', '.join(_WORDS)} may follow the name, each as word=value without spaces")
        elif key in values:
            reasons.append(f"{key} is given twice")
        else:
            values[key] = value
    reasons.extend(f"{word} is required" for word in _WORDS[:3] if word not in values)
    if "sha256" in values and _SHA256.fullmatch(values["sha256"]) is None:
        reasons.append("sha256: 64 hexadecimal digits in lower case are expected")
    scopes = _scopes(values["scopes"].split(","), reasons) if "scopes" in values else frozenset[Scope]()
    created = _created(values.get("created"), reasons)
    resend = values.get("in_doubt_resend", "false")
    if resend not in ("true", "false"):
        reasons.append("in_doubt_resend: true or false is expected")
    rate = _rate(values.get("rate"), reasons)
    per_hour, per_day = (_segments(word, values.get(word), reasons) for word in _WORDS[5:])
    if reasons or created is None:
        return None, reasons
    return ApiKey(name, values["sha256"], scopes, created, resend == "true", rate, per_hour, per_day), reasons


def _bad_name(name: str) -> str:
    shown = name if len(name) <= 40 else name[:39] + "…"
    return f"a name of 1 to 32 letters, digits, _ . or - is expected, not {shown!r}"


def _scopes(words: list[str], reasons: list[str]) -> frozenset[Scope]:
    known = [scope.value for scope in Scope]
    if not words or any(word not in known for word in words):
        reasons.append(f"scopes: one or more of {', '.join(known)} are expected")
        return frozenset()
    return frozenset(map(Scope, words))


def _rate(text: str | None, reasons: list[str]) -> Rate | None:
    try:
        return None if text is None else Rate.parse(text)
    except ValueError as error:
        reasons.append(f"rate: {error}")
        return None


def _segments(word: str, value: str | int | None, reasons: list[str]) -> int | None:
    if value is None:
        return None
    if _SEGMENTS.fullmatch(str(value)) is None:
        reasons.append(f"{word}: a whole number from 1 to 999999999 is expected (leave it out for no limit)")
        return None
    return int(value)


def _created(text: str | None, reasons: list[str]) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, _CREATED_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        reasons.append("created: a UTC time such as 2026-11-23T12:00:00Z is expected")
        return None


def _rewrite(path: Path, change: Callable[[str], str], *, create: bool) -> None:
    """Replace a key file by a changed one, with two writers one after the other."""
    target = Path(os.path.realpath(path))  # a symbolic link stays one
    with _locked(target.parent) as folder:
        before: os.stat_result | None = None
        text = ""
        if not create or target.exists():
            before = target.stat()
            text = read_private(target).removeprefix(_BOM).decode("utf-8", "surrogateescape")
        new = change(text).encode("utf-8", "surrogateescape")
        _, faults = _parse(new)
        if faults:
            raise ConfigError(faults, str(path))
        _replace(target, new, before)
        os.fsync(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(target: Path, data: bytes, before: os.stat_result | None) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            _keep_owner(descriptor, target.parent, before)
            os.fsync(descriptor)
        temporary.rename(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _keep_owner(descriptor: int, folder: Path, before: os.stat_result | None) -> None:
    """What root rewrites must stay readable for the daemon, which is not root.

    An existing file keeps owner, group and mode. A new one is for its owner only (0600), unless root makes it in a
    folder of another group (/etc/gatewayd of root:gatewayd): then that group may read it (0640).
    """
    if before is not None:
        mine = os.fstat(descriptor)
        if (mine.st_uid, mine.st_gid) != (before.st_uid, before.st_gid):
            os.fchown(descriptor, before.st_uid, before.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode) & 0o660)
    elif os.geteuid() == 0:
        group = folder.stat().st_gid
        if group != 0:
            os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, 0o640)
