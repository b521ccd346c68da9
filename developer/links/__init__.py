"""Model links for a developer: trained from recorded outputs, judged on others."""
