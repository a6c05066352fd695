"""The balancer of one server: queues requests and proxies them to free slots of its replicas."""
