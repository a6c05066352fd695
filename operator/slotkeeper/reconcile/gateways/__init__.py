"""The operator's part that reconciles LlamaGateways."""
