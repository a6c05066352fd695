"""The Secrets of a gateway's pods, and where they are mounted."""

KEYS_FOLDER = "/etc/slotkeeper/api-keys"
KEYS_VOLUME = "api-keys"
TLS_FOLDER = "/etc/slotkeeper/tls"
TLS_VOLUME = "tls"
