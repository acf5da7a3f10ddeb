"""Settings, placement and facts to a `Plan`. Pure."""
