"""What each room is given of the configuration: models in, plain settings out. Raises ConfigError where a file that is
needed for it cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from gatewayd.apikeys import KeyRing, load_keys
from gatewayd.config import Channel, Config, TlsFiles, read_secret
from gatewayd.config.dialstring import parse as parse_dial_string
from gatewayd.config.quota import Quota
from gatewayd.config.routing import ChooseBy, Dialer, DuplicateAction, Order, Route
from gatewayd.config.schedules import Schedule as ScheduleConfig
from gatewayd.http.context import HttpSettings
from gatewayd.model import SimIdentity
from gatewayd.modems.gsm import GsmSettings
from gatewayd.router.alerts import AlertGroup
from gatewayd.router.channeltask import Pacing, Sim
from gatewayd.router.eligibility import DialerSettings, DispatchSettings, UrgentSettings
from gatewayd.router.endpoints import callback_manner
from gatewayd.router.guards import Reachable
from gatewayd.router.intake import Intake, IntakeSettings
from gatewayd.router.numbers import zones_of
from gatewayd.router.optout import Pack, load_packs
from gatewayd.router.routes import Conditions, Destination, Drain, Router, RouterSettings, Rule
from gatewayd.router.submission import SubmissionSettings
from gatewayd.router.target import Kind, Tier
from gatewayd.router.windows import Day, Schedule, Spans, Window
from gatewayd.spool.engine import Database, SqliteDatabase, open_database
from gatewayd.spool.guards import DuplicateGuard
from gatewayd.spool.prune import RetentionPolicy
from gatewayd.spool.quarantine import QuarantinePolicy
from gatewayd.spool.quota import SimQuota
from gatewayd.spool.retry import RetryPolicy
from gatewayd.spool.work import Rules


def spool_of(config: Config) -> Database:
    """The database a configuration names."""
    file = config.spool.password_file
    return open_database(config.spool.url, None if file is None else read_secret(file))


def witness_of(config: Config, database: Database) -> Path | None:
    """The file that says how far the spool has come; None where there is no place for it."""
    if config.spool.witness is not None or not isinstance(database, SqliteDatabase):
        return config.spool.witness
    return database.path.with_name(database.path.name + ".witness")


def retention(config: Config) -> RetentionPolicy:
    kept = config.gateway.retention
    return RetentionPolicy(
        int(kept.content_s * 1000), int(kept.messages_s * 1000), int(kept.inbound_s * 1000), kept.archive_dir
    )


def rules(config: Config) -> Rules:
    gateway = config.gateway
    return Rules(
        retry=RetryPolicy(gateway.retry.attempts, tuple(int(step * 1000) for step in gateway.retry.backoff_s)),
        in_doubt_wait_ms=int(gateway.in_doubt.wait_s * 1000),
        report_wait_ms=int(gateway.report_wait_s * 1000),
        quarantine=QuarantinePolicy(
            gateway.quarantine.failures, tuple(int(step * 1000) for step in gateway.quarantine.backoff_s)
        ),
    )


def schedules(config: Config) -> Mapping[str, Schedule]:
    """The schedules by their names."""
    return {name: _schedule(name, given, config.gateway.timezone) for name, given in config.schedules.items()}


def _schedule(name: str, given: ScheduleConfig, timezone: str) -> Schedule:
    special: dict[Day, Spans] = dict.fromkeys(given.holidays, ())
    for extra in given.extra:
        special |= dict.fromkeys(extra.dates, tuple((hours.begin, hours.end) for hours in extra.windows))
    return Schedule(
        name=name,
        timezone=given.timezone or timezone,
        windows=tuple(Window(window.days, window.begin, window.end) for window in given.windows),
        special=special,
        cut_validity=given.cut_validity,
        min_validity_ms=int(given.min_validity_s * 1000),
    )


def keys(config: Config) -> KeyRing:
    path = config.http.api_keys_file
    return KeyRing() if path is None else load_keys(path)


@lru_cache(maxsize=4)  # they take tens of milliseconds to read, and a reload seldom asks for others
def _packs(languages: tuple[str, ...]) -> tuple[Pack, ...]:
    return load_packs(languages)


def intake(config: Config) -> Intake:
    """How what comes in is understood."""
    optout = config.inbound.optout
    return Intake(
        IntakeSettings(
            packs=_packs(tuple(language.value for language in optout.languages)),
            home_country=config.gateway.home_country or "",
            reassembly_timeout_ms=int(config.inbound.reassembly_timeout_s * 1000),
            confirm=optout.confirm,
            no_confirm_countries=frozenset(optout.no_confirm_countries),
            name=optout.name,
            contact=optout.contact,
        )
    )


def submission_settings(config: Config) -> SubmissionSettings:
    gateway = config.gateway
    return SubmissionSettings(
        home_country=gateway.home_country or "",
        strict_numbers=gateway.strict_numbers,
        allow_premium=gateway.allow_premium,
        max_segments=gateway.max_segments,
        channels=frozenset(channel.name for channel in config.channels if channel.enabled),
        reach=callback_manner(config.http.callbacks).reach,
        default_in_doubt=gateway.in_doubt.policy,
        reachable=Reachable(
            home_country=gateway.home_country or "",
            allow=frozenset(gateway.countries.allow),
            deny=frozenset(gateway.countries.deny),
            deny_prefixes=gateway.deny_prefixes,
        ),
        router=router(config),
        duplicates=None
        if gateway.duplicates.action is DuplicateAction.OFF
        else DuplicateGuard(
            int(gateway.duplicates.within_s * 1000), gateway.duplicates.action is DuplicateAction.REFUSE
        ),
    )


def destination(rule: Route | Dialer) -> Destination:
    """Where a route or dialer sends from."""
    places = tuple(
        Tier(Kind.CHANNEL, place.channel) if place.channel is not None else Tier(Kind.GROUP, place.group or "")
        for place in rule.to
    )
    weights = tuple(place.weight or 1 for place in rule.to) if rule.choose is ChooseBy.WEIGHTED else ()
    ports = None if rule.dial_string is None else parse_dial_string(rule.dial_string)
    return Destination(places, weights, ports, rule.sticky)


def router(config: Config) -> Router:
    """What decides where messages go out."""
    return Router(
        RouterSettings(
            rules=tuple(
                Rule(
                    route.name,
                    Conditions(
                        campaigns=frozenset(route.match.campaign),
                        prefixes=route.match.prefix,
                        countries=frozenset(route.match.country),
                        pattern=route.match.number_matches or "",
                        keys=frozenset(route.match.key),
                        classes=frozenset(route.match.class_),
                        schedule=route.match.schedule or "",
                    ),
                    destination(route),
                )
                for route in config.routes
            ),
            drains=tuple(
                Drain(
                    dialer.name,
                    frozenset(dialer.campaigns),
                    destination(dialer),
                    dialer.enabled,
                    by_zone=dialer.recipient_schedule is not None,
                    by_entry=dialer.order is Order.ENTRY,
                )
                for dialer in config.dialers
            ),
            schedules=schedules(config),
            home_country=config.gateway.home_country or "",
            zones_of=zones_of,
        )
    )


def gsm_settings(channel: Channel) -> GsmSettings:
    return GsmSettings(
        name=channel.name,
        port=channel.port,
        baudrate=channel.baudrate,
        number=channel.number or "",
        smsc=channel.smsc or "",
        submit_timeout_s=channel.submit_timeout_s,
        guard_time_s=channel.guard_time_s,
        poll_interval_s=channel.poll_interval_s,
    )


def quota_for(config: Config, identity: SimIdentity, channel: str) -> SimQuota:
    """What a SIM in a channel ("": in none) may send: by its own entry in `sims`, else by the channel's."""
    own = [
        sim.quota
        for sim in config.sims
        if (sim.iccid and sim.iccid == identity.iccid) or (sim.imsi and sim.imsi == identity.imsi)
    ]
    default = [each.quota for each in config.channels if each.name == channel]
    quota = next((each for each in (*own, *default) if each is not None), None) or Quota()
    return SimQuota(
        per_minute=quota.per_minute,
        per_hour=quota.per_hour,
        per_day=quota.per_day,
        per_month=quota.per_month,
        recipients_per_month=quota.recipients_per_month,
        reset_day=quota.reset_day,
        timezone=quota.timezone or config.gateway.timezone,
    )


def pacing(channel: Channel) -> Pacing:
    return Pacing(channel.pacing.interval_s, channel.pacing.jitter_s, channel.pacing.burst)


def sim(config: Config, channel: Channel, identity: SimIdentity) -> Sim:
    """What is known of the SIM that is in a channel, and of the channel with it."""
    listed = next(
        (one for one in config.sims
         if (one.iccid and one.iccid == identity.iccid) or (one.imsi and one.imsi == identity.imsi)),
        None,
    )  # fmt: skip
    named = schedules(config)
    both = [channel.schedule, None if listed is None else listed.schedule]
    return Sim(
        number=(channel.number if listed is None else listed.number) or "",
        tags=frozenset(channel.tags) | frozenset(() if listed is None else listed.tags),
        schedules=tuple(named[name] for name in dict.fromkeys(both) if name is not None),
        quota=quota_for(config, identity, channel.name),
    )


def dispatch_settings(config: Config) -> DispatchSettings:
    named = schedules(config)
    gateway = config.gateway
    urgent = gateway.urgent
    dialers = {
        dialer.name: DialerSettings(
            name=dialer.name,
            target=destination(dialer).target(),
            enabled=dialer.enabled,
            schedule=None if dialer.schedule is None else named[dialer.schedule],
            recipient=None if dialer.recipient_schedule is None else named[dialer.recipient_schedule],
            interval_s=dialer.pacing.interval_s,
            jitter_s=dialer.pacing.jitter_s,
            burst=dialer.pacing.burst,
            turn_patience_s=gateway.turn_patience_s if dialer.turn_patience_s is None else dialer.turn_patience_s,
        )
        for dialer in config.dialers
    }
    return DispatchSettings(
        dialers=dialers,
        order=tuple(channel.name for channel in config.channels),
        failover_after_s=gateway.failover_after_s,
        turn_patience_s=gateway.turn_patience_s,
        urgent=UrgentSettings(urgent.ignore_windows, urgent.interval_s, urgent.per_hour),
    )


def tls_files(config: Config) -> TlsFiles | None:
    """The certificate and its key; None without TLS."""
    tls = config.http.tls
    return None if tls is None else TlsFiles(tls.cert_file, tls.key_file, tls.min_version.value)


def kannel_path(config: Config) -> str:
    """Where Kannel's sendsms is served; "" where it is not."""
    return config.http.kannel.path if config.http.kannel.enabled else ""


def http_settings(config: Config) -> HttpSettings:
    http = config.http
    return HttpSettings(
        host=http.listen.host,
        port=http.listen.port,
        control_socket=str(config.gateway.control_socket),
        trusted_networks=http.trusted_networks,
        trusted_proxies=http.trusted_proxies,
        metrics_networks=http.metrics_networks,
        host_names=http.host_names,
        max_body_octets=http.max_body_octets,
        tls=tls_files(config),
        access_log=http.access_log,
        kannel_path=kannel_path(config),
        alert_groups=tuple(
            AlertGroup(
                group.name, group.to, group.send_resolved, group.channel or "", group.max_segments, group.severity_label
            )
            for group in http.alertmanager.groups
        ),
    )
