"""What each room is given of the configuration: models in, plain settings out. Raises ConfigError where a file that is
needed for it cannot be read.
"""

from __future__ import annotations

from functools import lru_cache

from gatewayd.apikeys import KeyRing, load_keys
from gatewayd.config import Channel, Config, TlsFiles, read_secret
from gatewayd.http.context import HttpSettings
from gatewayd.modems.gsm import GsmSettings
from gatewayd.router.alerts import AlertGroup
from gatewayd.router.endpoints import callback_manner
from gatewayd.router.intake import Intake, IntakeSettings
from gatewayd.router.optout import Pack, load_packs
from gatewayd.router.submission import SubmissionSettings
from gatewayd.spool.engine import Database, open_database
from gatewayd.spool.retry import RetryPolicy
from gatewayd.spool.work import Rules


def spool_of(config: Config) -> Database:
    """The database a configuration names."""
    file = config.spool.password_file
    return open_database(config.spool.url, None if file is None else read_secret(file))


def rules(config: Config) -> Rules:
    gateway = config.gateway
    return Rules(
        retry=RetryPolicy(gateway.retry.attempts, tuple(int(step * 1000) for step in gateway.retry.backoff_s)),
        in_doubt_wait_ms=int(gateway.in_doubt.wait_s * 1000),
        report_wait_ms=int(gateway.report_wait_s * 1000),
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
