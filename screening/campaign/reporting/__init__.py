"""The report of a campaign: its page, its plots, and what they rest on."""
