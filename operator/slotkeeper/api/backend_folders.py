"""Where a gateway's pods have the Secrets of external backends. No pydantic: the pods read it."""

BACKENDS_FOLDER = "/etc/slotkeeper/backends"
"""Contains a folder for each backend with Secrets."""

KEY_FOLDER = "key"
CA_FOLDER = "ca"

KEY_FILE = f"{KEY_FOLDER}/api-key"
"""The API key, below the backend's folder."""

HOSTS_FILE = f"{KEY_FOLDER}/hosts"
"""The hosts that may receive the key, below the backend's folder."""

CA_FILE = f"{CA_FOLDER}/ca.crt"
"""The certificate authorities, below the backend's folder."""
