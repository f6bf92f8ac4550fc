"""The page of a report: images to look at and decide on, with figures, in one HTML file or served."""
