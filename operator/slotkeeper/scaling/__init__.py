"""The autoscaler: from demand over time to a number of replicas, with its reason. Pure."""
