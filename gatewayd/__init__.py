"""gatewayd: an on-prem SMS gateway daemon for GSM hardware."""

__version__ = "0.1.0"
