"""The OpenAI-compatible endpoint on this machine: `triparty device serve`."""
