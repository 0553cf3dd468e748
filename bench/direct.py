"""`python -m bench.direct run …`: the daemon with channels that have messages handed over directly (+CMT, AT+CNMA).

The configuration has no key for it yet; `GsmSettings.direct` is what one would set.
"""

from __future__ import annotations

from dataclasses import replace

from gatewayd import wiring
from gatewayd.cli import main
from gatewayd.config import Channel
from gatewayd.modems.gsm import GsmSettings

_settings = wiring.gsm_settings


def _direct(channel: Channel) -> GsmSettings:
    return replace(_settings(channel), direct=True)


if __name__ == "__main__":
    wiring.gsm_settings = _direct
    main()
