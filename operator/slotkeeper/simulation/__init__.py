"""What an autoscaler would have made of a day: requests played against it in simulated time."""
