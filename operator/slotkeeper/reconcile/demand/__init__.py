"""The demand that balancers report, polled and kept."""
