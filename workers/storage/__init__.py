"""Paths and URLs, and the files behind them, on local disks and in object stores."""
