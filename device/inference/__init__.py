"""Private inference from the device: conversation, generation, sampling."""
