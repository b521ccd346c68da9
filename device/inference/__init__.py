"""Private inference from the device: conversation and generation."""
