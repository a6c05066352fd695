"""The model downloader: files are resumed after breaks, checked, and only then put in place."""
