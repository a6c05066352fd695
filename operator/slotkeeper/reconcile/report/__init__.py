"""What users read of a server: conditions, status and events."""
