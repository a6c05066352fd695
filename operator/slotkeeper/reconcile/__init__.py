"""The operator: observes each server and its objects, decides, writes and reports."""
