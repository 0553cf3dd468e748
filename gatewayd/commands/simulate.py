"""`gatewayd simulate`: emulated modems that any program can use."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gatewayd.modems.simulator.server import Options, run


class PersonalityName(StrEnum):
    """Which model the modems pretend to be."""

    GENERIC = "generic"
    HUAWEI = "huawei"
    QUECTEL = "quectel"
    SIMCOM = "simcom"


def simulate(
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where modem0, modem1, … ledger.jsonl and control.sock appear.")
    ],
    modems: Annotated[int, typer.Option(metavar="N", help="How many modems, 1 to 256.")] = 1,
    latency_ms: Annotated[float, typer.Option(metavar="MS", help="From Ctrl-Z to +CMGS, in milliseconds.")] = 200.0,
    report_delay_ms: Annotated[
        float, typer.Option(metavar="MS", help="From submission to delivery and its report.")
    ] = 1000.0,
    personality: Annotated[PersonalityName, typer.Option(help="The model.")] = PersonalityName.GENERIC,
    number_base: Annotated[
        str, typer.Option(metavar="PREFIX", help="The modems' numbers are this and 0001, 0002, …")
    ] = "+5989900",
) -> None:
    """Emulate modems on ptys, for any program to use.

    Prints path, number and ICCID of each modem, then "ready", and runs until it is interrupted. Behind them are an
    emulated SMS centre and subscribers: the end of a number decides what happens to a message (docs/simulator.md).
    """
    options = Options(directory, modems, latency_ms, report_delay_ms, personality.value, number_base)
    try:
        run(options)
    except (ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
