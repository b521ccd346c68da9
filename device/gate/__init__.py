"""The packet gate: which packets of which stream are worth a decode (thesis chapter 2)."""
