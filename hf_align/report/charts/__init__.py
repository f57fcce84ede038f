"""Lines, intervals, histograms and bars as inline SVG, coloured by the page's CSS, light and dark."""
