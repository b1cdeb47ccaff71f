"""Numbers in, numbers out: ranking metrics, reports of a ranking, free baselines, calibration."""
