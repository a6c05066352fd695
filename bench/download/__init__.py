"""The downloader compared with curl, in one run."""
