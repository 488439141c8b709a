"""The page that shows a network at work on one image, every multiplication of it."""
