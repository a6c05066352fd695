"""The model downloader: resumes interrupted downloads, verifies files, puts them in place."""
