"""The engines: transformers in this process, an OpenAI-compatible server, vLLM in process."""
