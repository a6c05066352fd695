"""What must change in the cluster, and the writing of it."""
