"""Pages about what was measured: text, tables and plots in one HTML file. Needs matplotlib, and no simulator."""
