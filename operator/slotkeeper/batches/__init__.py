"""Files and batches of a gateway: kept on a volume, executed on slots that nothing else needs."""
