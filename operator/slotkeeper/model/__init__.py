"""The model downloader: one file, resumed after breaks, checked, and only then put in place."""
