"""A program that knows nothing of the simulator: python-gsmmodem-new sends, waits for its report, receives.

Run by test_process.py in a process of its own, for the library leaves threads behind. Prints a JSON object a line.
"""

from __future__ import annotations

import json
import queue
import sys
import warnings


def main(port: str, limit_s: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gsmmodem.modem import GsmModem

    received: queue.Queue[tuple[str, str]] = queue.Queue()
    modem = GsmModem(port, smsReceivedCallbackFunc=lambda sms: received.put((sms.number, sms.text)))
    modem.connect()
    sent = modem.sendSms("+59898000010", "hello", waitForDeliveryReport=True, deliveryTimeout=limit_s)
    print(json.dumps({"signal": modem.signalStrength, "delivered": sent.status == sent.DELIVERED}), flush=True)
    print(json.dumps(received.get(timeout=limit_s)), flush=True)
    modem.close()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
