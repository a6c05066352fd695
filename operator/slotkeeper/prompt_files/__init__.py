"""The prompt-files agent: owns the folder of slot states that llama-server saves and restores."""
