"""The gateway's page for people: its static files, and the JSON that it shows."""
