"""Measure how far one image set is from another: features, distances with error bars, reports."""
