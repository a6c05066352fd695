"""What the API server's watches show, kept in a store."""
