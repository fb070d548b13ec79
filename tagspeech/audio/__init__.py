"""Audio: files of any length, arrays in memory, and streams that still grow, to samples."""
